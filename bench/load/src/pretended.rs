//! A hub of any number of pretended devices, in one process and with no state but
//! which of them were called: what a fleet costs `iotdm-ctl`, without what it costs
//! the emulator.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use iotdm_tests::{Client, Server};
use serde_json::{Value, json};

/// How many rows a page of a query has at most, as IoT Hub's.
const ROWS: usize = 100;

struct Devices {
    /// The id of the request that each device was called with.
    called: Vec<Mutex<Option<Box<str>>>>,
    count: AtomicUsize,
}

/// Serves the devices d0, d1 and so on until it is killed. The directory gets the CA and
/// the service's connection string. Says when all were called, and whenever one is called
/// a second time.
pub fn serve(data: &Path, count: usize) {
    let called = (0..count).map(|_| Mutex::default()).collect();
    let devices = Arc::new(Devices { called, count: AtomicUsize::default() });
    let server = Server::start(|_| {}, move |client| devices.talk(client));
    std::fs::create_dir_all(data).unwrap();
    std::fs::copy(server.ca_file(), data.join("ca.pem")).unwrap();
    let string = format!(
        "HostName=localhost:{};SharedAccessKeyName=service;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==\n",
        server.port
    );
    let path = data.join("service-connection-string");
    std::fs::write(&path, string).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    println!("ready");
    loop {
        std::thread::park();
    }
}

impl Devices {
    /// Answers the requests of a connection until the client ends it.
    fn talk(&self, client: Client) {
        let mut client = BufReader::new(client);
        while let Some((path, continuation, body)) = read(&mut client) {
            let (answer, next) = self.answer(&path, continuation, &body);
            let body = answer.to_string();
            let next = next.map_or_else(String::new, |next| format!("x-ms-continuation: {next}\r\n"));
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{next}Content-Length: {}\r\n\r\n",
                body.len()
            );
            let client = client.get_mut();
            if client.write_all((head + &body).as_bytes()).and_then(|()| client.flush()).is_err() {
                return;
            }
        }
    }

    /// The body of the answer, and where the next page begins.
    fn answer(&self, path: &str, continuation: usize, body: &[u8]) -> (Value, Option<usize>) {
        if path == "/devices/query" {
            let end = (continuation + ROWS).min(self.called.len());
            let row = |n| json!({"deviceId": format!("d{n}"), "agent": agent()});
            return ((continuation..end).map(row).collect(), (end < self.called.len()).then_some(end));
        }
        let (device, is_call) = match path.trim_start_matches("/twins/").split_once('/') {
            Some((device, "methods")) => (device, true),
            _ => (path.trim_start_matches("/twins/"), false),
        };
        let number: usize = device.trim_start_matches('d').parse().unwrap();
        let mut called = self.called[number].lock().unwrap();
        if !is_call {
            let mut reported = json!({"agent": agent(), "$version": 1});
            if let Some(id) = &*called {
                reported["rebootTime"] = json!("2026-11-22T18:36:07.412Z");
                reported["reboot"] = json!({"id": id, "status": "completed", "bootId": "two"});
                reported["boot"] = json!({"bootId": "two", "cause": "requested", "clock": "synchronized"});
            }
            let properties = json!({"desired": {"$version": 1}, "reported": reported});
            let twin = json!({"deviceId": device, "etag": "AAA=", "connectionState": "Connected", "properties": properties});
            return (twin, None);
        }
        let call: Value = serde_json::from_slice(body).unwrap();
        let id = call["payload"]["id"].as_str().unwrap();
        let is_dry_run = call["payload"]["check"] == true;
        if !is_dry_run {
            if called.replace(id.into()).is_some() {
                println!("{device} was called twice");
            }
            if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.called.len() {
                println!("all were called");
            }
        }
        let status = if is_dry_run { "checked" } else { "accepted" };
        (
            json!({"status": 200, "payload": {"id": id, "status": status, "bootId": "one", "ignored": []}}),
            None,
        )
    }
}

fn agent() -> Value {
    json!({"version": "1.0.0", "methods": ["rebootDevice", "cancelReboot", "getRebootStatus"]})
}

/// The path of the next request, where its page begins if it asks for one, and its body.
fn read(client: &mut BufReader<Client>) -> Option<(String, usize, Vec<u8>)> {
    let (mut line, mut continuation, mut length) = (String::new(), 0, 0);
    client.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split(' ').nth(1)?;
    let path = target.split('?').next()?.to_owned();
    loop {
        line.clear();
        client.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "x-ms-continuation" => continuation = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).ok()?;
    Some((path, continuation, body))
}
