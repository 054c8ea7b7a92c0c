//! What is no hub, is a hub that cannot be trusted, or says what no hub says.

use std::io::{Read as _, Write as _};

use iotdm_tests::{Client, Daemon, Hub, Server, wait_until};

/// A daemon of `hub` that is sent to `server` instead.
fn sent_to(hub: &Hub, server: &Server) -> Daemon {
    let daemon = Daemon::simulating(hub);
    let string = hub.device_connection_string();
    let (rest, _) = string.split_once(";GatewayHostName=").unwrap();
    daemon.write_connection_string(&format!("{rest};GatewayHostName=localhost:{}", server.port));
    daemon.configure(&format!("hub.ca_file = {:?}\n", server.ca_file()));
    daemon
}

/// What a daemon that is sent to `server` says in its status.
fn said_of(hub: &Hub, server: &Server) -> String {
    if !server.ca_file().exists() {
        std::fs::copy(hub.ca_file(), server.ca_file()).unwrap();
    }
    let mut daemon = sent_to(hub, server);
    daemon.start();
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(daemon.stop().success());
    status
}

#[test]
fn a_server_that_cannot_be_trusted_is_refused_with_the_reason() {
    let hub = Hub::start();
    let expired = Server::start(
        |params| params.not_after = rcgen::date_time_ymd(2020, 1, 2),
        |mut client| client.listen(),
    );
    let status = said_of(&hub, &expired);
    assert!(status.contains("has expired, by this machine's clock"), "{status}");
    let future = Server::start(
        |params| {
            params.not_before = rcgen::date_time_ymd(2090, 1, 1);
            params.not_after = rcgen::date_time_ymd(2091, 1, 1);
        },
        |mut client| client.listen(),
    );
    let status = said_of(&hub, &future);
    assert!(status.contains("is not valid yet, by this machine's clock"), "{status}");
    let other = Server::named("other", |mut client| client.listen());
    let status = said_of(&hub, &other);
    assert!(status.contains("is for another name"), "{status}");

    // As OpenSSL ends the handshake of a client that wants 1.2 or 1.3.
    let old = Server::plain(|mut stream| {
        let _ = stream.read(&mut [0; 2048]);
        let _ = stream.write_all(&[21, 3, 2, 0, 2, 2, 70]);
    });
    let status = said_of(&hub, &old);
    assert!(status.contains("it does not speak TLS 1.2 or 1.3"), "{status}");
    let web = Server::plain(|mut stream| {
        let _ = stream.read(&mut [0; 2048]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let status = said_of(&hub, &web);
    assert!(status.contains("what answers there does not speak TLS"), "{status}");
}

#[test]
fn a_server_that_speaks_no_mqtt_or_says_no_is_told_apart() {
    let hub = Hub::start();
    for (talk, words) in [
        ((|mut client: Client| client.answer(&[b'H'; 200])) as fn(Client), "sent what is no MQTT packet"),
        (|mut client| client.answer(&[0x20, 2, 0, 3]), "is not available to gw1 now"),
        (|mut client| client.answer(&[0x20, 2, 0, 1]), "refused gw1: check its key in "),
        (|mut client| client.answer(&[0x20, 2, 0, 2]), "refused gw1: check its key in "),
        (|mut client| client.answer(&[0x20, 2, 0, 4]), "refused gw1: check its key in "),
        (|mut client| client.answer(&[0x20, 2, 0, 5]), "refused gw1: check its key in "),
        (|mut client| client.answer(&[0x20, 2, 0, 99]), "sent what is no MQTT packet"),
        (|mut client| client.answer(&[0xd0, 0]), "another packet than CONNACK came first"),
        (
            |mut client| {
                let _ = client.packet();
                client.say(&[0x20, 2, 0, 0]);
                let Some((_, subscribe)) = client.packet() else { return };
                client.say(&[0x90, 5, subscribe[0], subscribe[1], 0, 0x80, 0]);
                client.listen();
            },
            "refused a subscription",
        ),
    ] {
        let server = Server::start(|_| {}, talk);
        let status = said_of(&hub, &server);
        assert!(status.contains(words), "{words}: {status}");
    }
}

/// A PUBLISH with QoS 0.
fn publish(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x30];
    let mut left = 2 + topic.len() + payload.len();
    while left >= 0x80 {
        packet.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    packet.push(left.try_into().unwrap());
    packet.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    [&packet, topic, payload].concat()
}

#[test]
fn bytes_that_no_hub_sends_end_the_connection_and_nothing_else() {
    let hub = Hub::start();
    for hostile in [
        // 256 MB are announced.
        (|mut client: Client| {
            client.accept();
            client.say(&[0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, b'x']);
            client.listen();
        }) as fn(Client),
        // A length that does not end.
        |mut client| {
            client.accept();
            client.say(&[0x30, 0xff, 0xff, 0xff, 0xff, 0xff]);
            client.listen();
        },
        // A topic that is longer than its packet.
        |mut client| {
            client.accept();
            client.say(&[0x30, 3, 0xff, 0xff, b'x']);
            client.listen();
        },
        // A topic that is not UTF-8.
        |mut client| {
            client.accept();
            client.say(&publish(b"$iothub/methods/POST/\xff\xfe/?$rid=1", b"{}"));
            client.listen();
        },
        // QoS 3, and a type that does not exist.
        |mut client| {
            client.accept();
            client.say(&[0x36, 5, 0, 1, b'x', 0, 1]);
            client.listen();
        },
        |mut client| {
            client.accept();
            client.say(&[0xf0, 0]);
            client.listen();
        },
    ] {
        let server = Server::start(|_| {}, hostile);
        let mut daemon = sent_to(&hub, &server);
        daemon.start();
        let status = daemon.notified.wait_for("STATUS=not connected");
        assert!(status.contains("sent what is no MQTT packet that a hub sends"), "{status}");
        assert!(daemon.stop().success(), "{:?}", daemon.log.lines());
    }
}

#[test]
fn a_session_that_goes_on_is_used_before_its_subscriptions_are_acknowledged() {
    let hub = Hub::start();
    let server = Server::start(
        |_| {},
        |mut client| {
            let _ = client.packet();
            client.say(&[0x20, 2, 1, 0]);
            let Some((0x82, _)) = client.packet() else { return };
            let Some((0x30, twin)) = client.packet() else { return };
            if twin[2..].starts_with(b"$iothub/twin/GET/?$rid=") {
                client.say(&[0xe0, 0]);
            }
        },
    );
    let mut daemon = sent_to(&hub, &server);
    daemon.start();
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(status.contains("closed the connection"), "the twin was asked for: {status}");
    assert!(daemon.stop().success());
}

#[test]
fn messages_that_make_no_sense_are_passed_over() {
    let hub = Hub::start();
    let server = Server::start(
        |_| {},
        |mut client| {
            client.accept();
            for (topic, payload) in [
                (&b"$iothub/methods/POST/"[..], &b"{}"[..]),
                (b"$iothub/methods/POST/rebootDevice/?rid=1", b"{}"),
                (b"$iothub/methods/POST//?$rid=", b""),
                (b"$iothub/twin/res/abc/?$rid=1", b"{}"),
                (b"$iothub/twin/res/200/?$rid=nobody", b"\xff\xff"),
                (b"$iothub/twin/PATCH/properties/desired/?$version=-1", b"{}"),
                (b"$iothub/twin/PATCH/properties/desired/?$version=2", b"[1, 2"),
                (b"$iothub/twin/PATCH/properties/desired/?$version=18446744073709551615", b"\"x\""),
                (b"devices/gw1/messages/devicebound/a=b", b"hello"),
                (b"", b""),
            ] {
                client.say(&publish(topic, payload));
            }
            // Acknowledgements of what was never sent.
            client.say(&[0x40, 2, 0x12, 0x34, 0xd0, 0, 0xb0, 2, 0, 1, 0x50, 2, 0, 1]);
            // And then a call that makes sense.
            client.say(&publish(b"$iothub/methods/POST/getRebootStatus/?$rid=last", b"{}"));
            while let Some((first, rest)) = client.packet() {
                if first & 0xf0 == 0x30 && String::from_utf8_lossy(&rest).contains("res/200/?$rid=last") {
                    client.say(&[0xe0, 0]);
                    return;
                }
            }
        },
    );
    let mut daemon = sent_to(&hub, &server);
    daemon.start();
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(status.contains("closed the connection"), "the last call was answered: {status}");
    assert!(daemon.stop().success());
}

#[test]
fn all_that_a_hub_may_send_at_most_is_taken() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    // 32 KB in ten levels beside the daemon's own key, which holds a wish of the wrong type.
    let mut deep = serde_json::json!({});
    for (index, key) in "abcdefg".chars().enumerate() {
        let filling: Vec<String> = (0..if index == 0 { 7 } else { 0 }).map(|_| "x".repeat(4000)).collect();
        let mut level = serde_json::Map::from_iter([(key.to_string(), deep)]);
        level.extend(filling.into_iter().enumerate().map(|(at, text)| (format!("f{at}"), text.into())));
        deep = level.into();
    }
    let desired =
        serde_json::json!({ "filling": deep, "reboot": { "id": "w1", "onInhibitor": 7 } }).to_string();
    let ran = hub.ctl(&["twin", "update", "gw1", "--desired", &desired]);
    assert_eq!(ran.code, 0, "{ran:?}");
    daemon.start_connected(&hub);
    let payload = format!(r#"{{"check":true,"filling":"{}"}}"#, "y".repeat(120 * 1024));
    let file = daemon.state_dir().join("payload");
    std::fs::write(&file, payload).unwrap();
    let argument = format!("@{}", file.display());
    let ran = hub.ctl(&["-o", "json", "invoke", "gw1", "rebootDevice", "--payload", &argument]);
    assert_eq!(ran.code, 0, "{ran:?}");
    wait_until("the malformed wish is reported", || hub.reported()["reboot"]["error"]["message"].is_string());
    assert!(daemon.stop().success());
}
