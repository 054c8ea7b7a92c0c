//! Identities and their secrets against canned hubs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{FakeHub, HttpResponse, KEY, Ran, ctl, on_terminal};
use serde_json::{Value, json};

/// The primary key of the device, whose secondary one is [`KEY`].
const OLD_PRIMARY: &str = "b2xkIHByaW1hcnkga2V5";

fn registry() -> FakeHub {
    FakeHub::start(|request, _| match request.method.as_str() {
        "DELETE" => HttpResponse::ok(Value::Null),
        _ => HttpResponse::ok(json!({
            "deviceId": "gw1", "etag": "x", "status": "enabled",
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": OLD_PRIMARY, "secondaryKey": KEY}},
        })),
    })
}

#[test]
fn keys_are_shown_only_by_connection_string() {
    let hub = registry();
    for command in ["create", "show"] {
        for form in ["text", "json", "jsonl"] {
            let run = hub.run(&["device", command, "gw1", "-o", form]);
            run.ends(0, &[]);
            assert!(run.stdout.contains("gw1"), "{run:#?}");
            assert!(
                [KEY, OLD_PRIMARY].iter().all(|key| !run.stdout.contains(key) && !run.stderr.contains(key)),
                "{run:#?}"
            );
        }
    }
    let create = &hub.requests()[0];
    assert_eq!(create.line(), "PUT /devices/gw1");
    assert_eq!(create.body["authentication"]["type"], "sas");
    let keys = &create.body["authentication"]["symmetricKey"];
    assert!(keys["primaryKey"].is_string() && keys["primaryKey"] != keys["secondaryKey"], "{keys}");
    assert_eq!(create.header("if-match"), None);
    let run = hub.run(&["device", "connection-string", "gw1"]);
    assert_eq!(run.stdout, format!("HostName=localhost;DeviceId=gw1;SharedAccessKey={OLD_PRIMARY}\n"));
}

#[test]
fn a_connection_string_file_is_private() {
    let hub = registry();
    let out = hub.path("gw1");
    let arguments = [
        "device",
        "connection-string",
        "gw1",
        "--gateway",
        "localhost:18883",
        "--out",
        out.to_str().unwrap(),
    ];
    let run = hub.run(&arguments);
    run.ends(0, &["wrote "]);
    assert_eq!(run.stdout, "");
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        format!(
            "HostName=localhost;DeviceId=gw1;GatewayHostName=localhost:18883;SharedAccessKey={OLD_PRIMARY}\n"
        )
    );
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let run = hub.run(&["device", "connection-string", "gw1", "--out", "/nonexistent/gw1"]);
    run.ends(1, &["/nonexistent/gw1"]);
}

#[test]
fn delete_needs_a_terminal_or_yes() {
    let hub = registry();
    hub.run(&["device", "delete", "gw1"]).ends(2, &["--yes"]);
    assert!(hub.requests().is_empty());
    let run = hub.run(&["device", "delete", "gw1", "--yes"]);
    run.ends(0, &[]);
    assert_eq!(run.stdout, "deleted gw1\n");
    assert_eq!(hub.requests()[0].line(), "DELETE /devices/gw1");
    assert_eq!(hub.requests()[0].header("if-match"), Some("\"*\""));
}

#[test]
fn a_new_devices_string_goes_into_a_private_file() {
    let hub = registry();
    let out = hub.path("gw1");
    let run = hub.run(&["device", "create", "gw1", "--disabled", "--out", out.to_str().unwrap()]);
    run.ends(0, &["wrote "]);
    assert_eq!(run.stdout, "created gw1\n");
    let sent = &hub.requests()[0].body;
    assert_eq!(sent["status"], "disabled");
    let key = sent["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap();
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        format!("HostName=localhost;DeviceId=gw1;SharedAccessKey={key}\n")
    );
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    hub.run(&["device", "create", "gw1", "--out", "/nonexistent/gw1"]).ends(2, &["/nonexistent/gw1"]);
    assert_eq!(hub.requests().len(), 1, "nothing is created whose key would be lost");
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUaGqa9GqWzmWdbq2piuhsbcpNFjQwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDZ3cxMCAXDTI2MTEyMjIzMzczNloYDzIxMjYxMDI5MjMzNzM2
WjAOMQwwCgYDVQQDDANndzEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASSeG8S
ZXvHaMUBcbCfwerhJIb6vCqdBIIyO9JgcEbpHAwhcDmlRW296sQCWyFtOLlilrXH
yM2iV3+uRkqTW6Dko1MwUTAdBgNVHQ4EFgQUGfFcexnt5RbLsxdnpBn5TQUheKkw
HwYDVR0jBBgwFoAUGfFcexnt5RbLsxdnpBn5TQUheKkwDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEAluyNbWlP5l4/z4PAT9dHRd0EnKPknVNg5MeH
M7Du2vcCIQCYzNaBAFVFxq2Jd14Iu9cQwnOlP0q2el1ZksFy0y/LCA==
-----END CERTIFICATE-----
";

#[test]
fn certificates_by_thumbprint_and_by_ca() {
    let hub = registry();
    let certificate = hub.path("gw1.pem");
    fs::write(&certificate, CERTIFICATE).unwrap();
    let create = |more: &[&str]| {
        hub.run(&[&["device", "create", "gw1"][..], more].concat());
        hub.requests().pop().unwrap().body["authentication"].clone()
    };
    let sent = create(&["--auth", "x509-thumbprint", "--certificate", certificate.to_str().unwrap()]);
    // As `openssl x509 -fingerprint -sha256` prints it.
    let expected = "2555C54FACEE4D98BD66FBEF0A54B452D3E244833A08EA6A5C5115D506763413";
    assert_eq!(sent["x509Thumbprint"]["primaryThumbprint"], expected);
    assert_eq!(sent["type"], "selfSigned");
    let given = create(&["--auth", "x509-thumbprint", "--thumbprint", &"ab".repeat(20)]);
    assert_eq!(given["x509Thumbprint"]["primaryThumbprint"], "AB".repeat(20));
    assert_eq!(create(&["--auth", "x509-ca"]), json!({"type": "certificateAuthority"}));
    for (more, named) in [
        (&["--auth", "x509-thumbprint"][..], "--certificate FILE"),
        (&["--thumbprint", &"ab".repeat(20)], "--auth x509-thumbprint"),
        (&["--auth", "x509-thumbprint", "--thumbprint", "ab"], "64 hex digits"),
        (&["--auth", "x509-thumbprint", "--certificate", "/dev/null"], "BEGIN CERTIFICATE"),
        (&["--from", "x"], "--from"),
    ] {
        hub.run(&[&["device", "create", "gw1"][..], more].concat()).ends(2, &[named]);
    }
    assert_eq!(hub.requests().len(), 3);
}

/// A registry that takes bulk changes but one of `taken`.
fn bulk() -> FakeHub {
    FakeHub::start(|request, _| {
        let changes = request.body.as_array().unwrap();
        if changes.iter().all(|change| change["id"] != "taken") {
            return HttpResponse::ok(json!({"isSuccessful": true, "errors": [], "warnings": []}));
        }
        let error = json!({"deviceId": "taken", "errorCode": "DeviceAlreadyExists", "errorStatus": "no"});
        HttpResponse::ok(json!({"isSuccessful": false, "errors": [error], "warnings": []})).status(400)
    })
}

#[test]
fn many_devices_from_a_file() {
    let hub = bulk();
    let (list, out) = (hub.path("list"), hub.path("out"));
    let rows: String = (1..=150).map(|n| format!("gw{n},north\n")).collect();
    fs::write(&list, format!("deviceId,tags.site\n{rows}taken,\n")).unwrap();
    let arguments =
        ["device", "create", "--from", list.to_str().unwrap(), "--out", out.to_str().unwrap(), "-o", "json"];
    let run = hub.run(&arguments);
    run.ends(1, &["taken: the hub refused (DeviceAlreadyExists, \"no\")", "wrote "]);
    assert_eq!(run.json()["created"].as_array().unwrap().len(), 150);
    let sent = hub.requests();
    assert_eq!(sent.iter().map(|r| r.body.as_array().unwrap().len()).collect::<Vec<_>>(), [100, 51]);
    assert_eq!(sent[0].line(), "POST /devices");
    let first = &sent[0].body[0];
    assert_eq!((&first["importMode"], &first["tags"]), (&json!("create"), &json!({"site": "north"})));
    let key = first["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap();
    let strings = fs::read_to_string(&out).unwrap();
    assert_eq!(strings.lines().count(), 150, "of those that came about");
    let expected = format!("HostName=localhost;DeviceId=gw1;SharedAccessKey={key}");
    assert_eq!(strings.lines().next(), Some(expected.as_str()));
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run.stdout.contains(key) && !run.stderr.contains(key));

    fs::write(&list, "{\"deviceId\":\"gw1\"}\n{\"deviceId\":\"gw 2\"}\n").unwrap();
    hub.run(&arguments).ends(2, &["--from ", "line 2: \"gw 2\" is not a device id"]);
    assert_eq!(hub.requests().len(), 2, "nothing of a bad file is created");
}

#[test]
fn each_form_of_a_list_creates_the_devices_that_it_names() {
    let hub = bulk();
    let arguments = ["device", "create", "--from", "-", "-o", "json"];
    let utf_16 =
        |text: &str| [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for list in [
        b"[{\"deviceId\":\"gw1\"},{\"deviceId\":\"gw2\"}]".to_vec(),
        b"[\"gw1\",\"gw2\"]\n".to_vec(),
        b"gw1\ngw2\n".to_vec(),
        b"\xef\xbb\xbfdeviceId,auth\r\ngw1,sas\r\n\r\ngw2,\r\n".to_vec(),
        utf_16("deviceId\r\ngw1\r\ngw2\r\n"),
    ] {
        let run = hub.run_on(&list, &arguments);
        run.ends(0, &[]);
        assert_eq!(run.json()["created"], json!(["gw1", "gw2"]), "{}", String::from_utf8_lossy(&list));
        let changes = hub.requests().pop().unwrap().body;
        assert_eq!((&changes[0]["id"], &changes[1]["id"]), (&json!("gw1"), &json!("gw2")));
    }
    let run = hub.run_on("gw1", &["device", "create", "--from", "-"]);
    run.ends(0, &[]);
    assert_eq!(run.stdout, "created 1 devices\n");
    let before = hub.requests().len();
    for (list, why) in [
        ("", "--from -: it names no device"),
        ("[]", "--from -: it names no device"),
        ("deviceId,auth\n", "--from -: it names no device"),
        ("gw1\ngw2\r\ngw1\n", "line 3: gw1 stands there already, on line 1"),
        ("\"gw1\"\n", "quotes stand around gw1"),
        ("device_id\ngw1\n", "line 1 seems to name columns"),
        ("gw1,north\ngw2,south\n", "line 1: \"gw1,north\" has a comma"),
        ("deviceId\na;b\n", "line 2: a device called a;b could never connect"),
    ] {
        hub.run_on(list, &arguments).ends(2, &[why]);
    }
    assert_eq!(hub.requests().len(), before, "nothing of a bad file is created");

    let silent =
        FakeHub::start(|_, _| HttpResponse::ok(json!({"isSuccessful": false, "errors": []})).status(400));
    let run = silent.run_on("gw1\n", &["device", "create", "--from", "-"]);
    run.ends(1, &["the hub says that not all of it was done, and not of which"]);
}

#[test]
fn an_id_that_could_never_connect_is_not_created() {
    let hub = registry();
    for (id, why) in [
        ("a;b", "ends a part of a connection string"),
        ("a#b", "wildcards in the topics"),
        ("a+b", "wildcards"),
    ] {
        hub.run(&["device", "create", id]).ends(2, &[why]);
        hub.run(&["device", "show", id]).ends(0, &[]);
    }
    assert!(hub.requests().iter().all(|request| request.method == "GET"), "who has one can get rid of it");
}

/// A registry with the devices `gw1`, `gw2` and `gw3`, of which the last is not
/// found by its id any more.
fn registry_of_three() -> FakeHub {
    FakeHub::start(|request, _| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/devices/query") => {
            HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}, {"deviceId": "gw3"}]))
        }
        ("POST", "/devices") => {
            let error = json!({"deviceId": "gw3", "errorCode": 404001, "errorStatus": "gw3"});
            HttpResponse::ok(json!({"isSuccessful": false, "errors": [error], "warnings": []})).status(400)
        }
        (_, "/devices/gw3") => HttpResponse::classic(404, "DeviceNotFound"),
        (_, path) => HttpResponse::ok(json!({
            "deviceId": path.rsplit('/').next(), "etag": "x", "status": "enabled",
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": OLD_PRIMARY, "secondaryKey": KEY}},
        })),
    })
}

#[test]
fn many_identities_are_changed_at_once() {
    let hub = registry_of_three();
    let all = ["--where", "tags.site = 'north'"];
    for command in ["delete", "disable", "enable", "renew-key"] {
        let arguments = [&["device", command], &all[..]].concat();
        hub.run(&arguments).ends(2, &[command, "nobody to ask, stdin is no terminal; give --yes"]);
    }
    assert!(hub.lines().iter().all(|line| line == "POST /devices/query"), "nothing is changed");

    let sorted = |value: &Value| {
        let mut ids: Vec<String> =
            value.as_array().unwrap().iter().map(|id| id.as_str().unwrap().into()).collect();
        ids.sort();
        ids
    };
    for (command, word) in [("disable", "disabled"), ("enable", "enabled"), ("delete", "deleted")] {
        let run = hub.run(&[&["device", command, "--yes", "-o", "json"], &all[..]].concat());
        run.ends(7, &["iotdm-ctl: gw3: no such device"]);
        let result = run.json();
        assert_eq!(sorted(&result[word]), ["gw1", "gw2"], "{command}");
        assert_eq!(result["errors"][0]["deviceId"], "gw3");
        assert_eq!(result["errors"].as_array().unwrap().len(), 1);
    }
    let deleted = hub.requests().pop().unwrap();
    assert_eq!(deleted.line(), "POST /devices");
    assert_eq!(deleted.body[2], json!({"id": "gw3", "importMode": "delete"}));

    let out = hub.path("out");
    let list = hub.path("list");
    fs::write(&list, "DEVICE,CONNECTION\ngw1,Connected\ngw2,-\ngw1,Connected\n").unwrap();
    let (list, out_file) = (list.to_str().unwrap(), out.to_str().unwrap());
    let run = hub.run(&["device", "renew-key", "--from", list, "--yes", "--out", out_file]);
    run.ends(0, &["wrote "]);
    assert!(run.stdout.ends_with("2 devices renewed\n"), "{run:#?}");
    let strings = fs::read_to_string(&out).unwrap();
    let ids: Vec<&str> = strings.lines().map(|line| line.split([';', '=']).nth(3).unwrap()).collect();
    assert_eq!(ids, ["gw1", "gw2"], "each once, in the order of the file");

    let run = hub.run(&["device", "disable", "gw1", "gw2"]);
    run.ends(0, &[]);
    assert!(
        run.stdout.ends_with("2 devices disabled\n"),
        "no question about devices that were named: {run:#?}"
    );
    hub.run(&["device", "delete", "gw3", "gw3", "--yes"]).ends(5, &["gw3: no such device"]);
    let refusing = FakeHub::start(|_, _| HttpResponse::classic(401, "IotHubUnauthorizedAccess"));
    refusing.run(&["device", "enable", "gw1", "gw2"]).ends(8, &["gw1: not authorised"]);
}

#[test]
fn a_second_renewal_is_asked_about() {
    let identity = std::sync::Mutex::new(json!({
        "deviceId": "gw1", "etag": "x",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": OLD_PRIMARY, "secondaryKey": KEY}},
    }));
    let hub = FakeHub::start(move |request, _| {
        let mut identity = identity.lock().unwrap();
        if request.method == "PUT" {
            *identity = request.body.clone();
        }
        HttpResponse::ok(identity.clone())
    });
    let puts = || hub.requests().iter().filter(|request| request.method == "PUT").count();
    let renew = |more: &[&str]| hub.run(&[&["device", "renew-key", "gw1"], more].concat());
    renew(&[]).ends(0, &[]);
    for way in [&[][..], &["--key", "secondary"]] {
        renew(way).ends(2, &["gw1: its key was renewed before", "locked out", "give --yes"]);
    }
    assert_eq!(puts(), 1, "the old key is still there");
    renew(&["--key", "primary"]).ends(0, &[]);
    renew(&[]).ends(2, &["its key was renewed before"]);
    let asked = |keys| on_terminal(hub.command(&["device", "renew-key", "gw1"]), keys);
    let no = asked("n\n");
    assert!(no.code == 1 && no.screen.contains("Renew the key of gw1 again?"), "{no:?}");
    assert_eq!(puts(), 2);
    assert_eq!(asked("y\n").code, 0);
    renew(&["--yes"]).ends(0, &[]);
    assert_eq!(puts(), 4);
}

#[test]
fn enabling_disabling_and_renewing_change_the_identity_that_was_read() {
    let hub = registry();
    let put = |arguments: &[&str]| {
        hub.run(&[&["device"], arguments].concat()).ends(0, &[]);
        let sent = hub.requests().pop().unwrap();
        assert_eq!((sent.line().as_str(), sent.header("if-match")), ("PUT /devices/gw1", Some("\"x\"")));
        sent.body
    };
    let disabled = put(&["disable", "gw1", "--reason", "stolen"]);
    assert_eq!((&disabled["status"], &disabled["statusReason"]), (&json!("disabled"), &json!("stolen")));
    assert_eq!(put(&["enable", "gw1"])["status"], "enabled");
    let keys = |identity: Value| {
        let keys = &identity["authentication"]["symmetricKey"];
        [&keys["primaryKey"], &keys["secondaryKey"]].map(|key| key.as_str().unwrap().to_owned())
    };
    let out = hub.path("gw1");
    let [primary, secondary] = keys(put(&["renew-key", "gw1", "--out", out.to_str().unwrap()]));
    assert_eq!(secondary, OLD_PRIMARY, "the device goes on with it");
    assert!(primary != OLD_PRIMARY && primary != KEY);
    assert!(fs::read_to_string(&out).unwrap().ends_with(&format!("SharedAccessKey={primary}\n")));
    let [primary, secondary] = keys(put(&["renew-key", "gw1", "--key", "secondary"]));
    assert!(primary == OLD_PRIMARY && secondary != KEY);
    let [primary, secondary] = keys(put(&["renew-key", "gw1", "--key", "primary"]));
    assert!(primary != OLD_PRIMARY && secondary == KEY);

    let certified =
        FakeHub::start(|_, _| HttpResponse::ok(json!({"authentication": {"type": "selfSigned"}})));
    certified.run(&["device", "renew-key", "gw1"]).ends(1, &["the hub shows no key"]);
    assert_eq!(certified.lines(), ["GET /devices/gw1"]);
}

#[test]
fn a_group_key_is_derived_without_a_hub() {
    let folder = tempfile::tempdir().unwrap();
    let group = folder.path().join("group");
    let key = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
    fs::write(&group, format!("{key}\n")).unwrap();
    let derive = |id: &str| {
        let arguments = ["device", "derive-key", id, "--group-key-file", group.to_str().unwrap()];
        Ran::from(ctl(&arguments).output().unwrap())
    };
    let run = derive("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");
    run.ends(0, &[]);
    assert_eq!(run.stdout, "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=\n");
    fs::write(&group, "not a key").unwrap();
    let run = derive("gw1");
    run.ends(2, &["--group-key-file ", "not valid base64"]);
    assert!(!run.stderr.contains("not a key"), "{run:#?}");
}
