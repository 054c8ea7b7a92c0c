//! A hub of canned answers at the wire: real TLS and HTTP/1.1, one thread per
//! connection, and a closure that answers.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use iotdm_proto::SecretKey;
use iotdm_proto::sas::SasToken;
pub use iotdm_tests::Ran;
use iotdm_tests::{Client, Server};
use serde_json::{Value, json};

/// The policy key of every fake hub.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

pub struct FakeHub {
    server: Server,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// The body as it came, and as JSON.
    pub text: String,
    pub body: Value,
}

/// What the hub answers.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    hang_up: bool,
    /// Whether the body is sent again and again, without an end.
    endless: bool,
}

impl FakeHub {
    /// A hub named `localhost` that answers with `answer`, which also gets
    /// how many requests came before.
    pub fn start(answer: impl Fn(&HttpRequest, usize) -> HttpResponse + Send + Sync + 'static) -> Self {
        Self::start_as("localhost", answer)
    }

    /// A hub whose certificate is for `name`, though it is reached as
    /// `localhost`.
    pub fn start_as(
        name: &str,
        answer: impl Fn(&HttpRequest, usize) -> HttpResponse + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        let server = Server::named(name, move |client| serve(client, &log, &*answer));
        let path = server.path("connection-string");
        let host = format!("localhost:{}", server.port);
        let connection_string =
            format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={KEY}\n");
        fs::write(&path, connection_string).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        FakeHub { server, requests }
    }

    /// `iotdm-ctl` with `arguments`, this hub's connection string and CA, and
    /// a state directory of its own in an otherwise empty environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ctl(arguments);
        command.arg("--connection-string-file").arg(self.path("connection-string"));
        command.arg("--ca-file").arg(self.path("ca.pem"));
        command.env("XDG_STATE_HOME", self.path("state"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Runs it with `text` on stdin.
    pub fn run_on(&self, text: impl AsRef<[u8]>, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that refuses its command line reads nothing.
        let _ = child.stdin.take().unwrap().write_all(text.as_ref());
        Ran::from(child.wait_with_output().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.server.path(name)
    }

    pub fn connection_string(&self) -> String {
        fs::read_to_string(self.path("connection-string")).unwrap()
    }

    pub fn requests(&self) -> Vec<HttpRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests as `METHOD /path`.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(HttpRequest::line).collect()
    }
}

impl HttpRequest {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether this is a direct method call.
    pub fn is_call(&self) -> bool {
        self.path.ends_with("/methods")
    }

    /// The id that our `reboot` sent.
    pub fn reboot_id(&self) -> Value {
        self.body["payload"]["id"].clone()
    }

    /// Whether the token is signed with the hub's key for the hub's name.
    pub fn is_signed(&self) -> bool {
        let key: SecretKey = KEY.parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let token: SasToken = self.header("authorization").unwrap().parse().unwrap();
        token.policy() == Some("service") && token.verify(&key, now, self.header("host").unwrap()).is_ok()
    }
}

impl HttpResponse {
    pub fn ok(body: Value) -> Self {
        HttpResponse::text(&body.to_string())
    }

    /// A body as it is.
    pub fn text(body: &str) -> Self {
        HttpResponse {
            status: 200,
            headers: Vec::new(),
            body: body.to_owned(),
            hang_up: false,
            endless: false,
        }
    }

    pub fn twin(reported: Value) -> Self {
        HttpResponse::ok(json!({
            "deviceId": "gw1", "etag": "AAA=", "version": 7, "connectionState": "Connected",
            "properties": {"desired": {"$version": 3}, "reported": reported},
        }))
    }

    pub fn reply(status: i64, payload: Value) -> Self {
        HttpResponse::ok(json!({"status": status, "payload": payload}))
    }

    /// The form of most errors: `Message` with `ErrorCode:NAME;text`, and the
    /// header.
    pub fn classic(status: u16, name: &str) -> Self {
        let body =
            json!({"Message": format!("ErrorCode:{name};canned"), "ExceptionMessage": "Tracking ID:0"});
        HttpResponse {
            status,
            headers: vec![("iothub-errorcode", name.into())],
            body: body.to_string(),
            hang_up: false,
            endless: false,
        }
    }

    /// The form of method errors: `Message` holds JSON text; no header here.
    pub fn nested(status: u16, number: u32) -> Self {
        let message = json!({"errorCode": number, "trackingId": "0", "message": "canned"}).to_string();
        let body = json!({"Message": message, "ExceptionMessage": ""});
        HttpResponse { status, headers: Vec::new(), body: body.to_string(), hang_up: false, endless: false }
    }

    /// The connection breaks in place of an answer.
    pub fn hang_up() -> Self {
        HttpResponse { status: 0, headers: Vec::new(), body: String::new(), hang_up: true, endless: false }
    }

    pub fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// `iotdm-ctl` with `arguments` and an empty environment.
pub fn ctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotdm-ctl"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// One request per connection. A client that does not like the certificate
/// ends it early, which is for the tests to see on the client's side.
fn serve(
    mut client: Client,
    log: &Mutex<Vec<HttpRequest>>,
    answer: &dyn Fn(&HttpRequest, usize) -> HttpResponse,
) {
    let Some(request) = read(&mut client) else { return };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let answer = answer(&request, before);
    if answer.hang_up {
        return;
    }
    let mut head = format!(
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
        answer.status,
        if answer.endless { usize::MAX / 2 } else { answer.body.len() }
    );
    for (name, value) in answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // A client that was interrupted meanwhile reads no answer.
    let _ = write!(client, "{head}\r\n{}", answer.body);
    while answer.endless && client.write_all(answer.body.as_bytes()).is_ok() {}
    client.close();
}

fn read(client: &mut Client) -> Option<HttpRequest> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let (path, query) = (path.to_owned(), query.to_owned());
    let request = HttpRequest { method, path, query, headers, text: String::new(), body: Value::Null };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let text = String::from_utf8(body).unwrap();
    Some(HttpRequest { body: serde_json::from_str(&text).unwrap_or_default(), text, ..request })
}

/// How a run on a terminal ended, and all that came to the terminal.
#[derive(Debug)]
pub struct Screen {
    pub code: i32,
    pub screen: String,
}

/// Runs on a terminal of 40 columns, on which somebody types `keys`.
pub fn on_terminal(command: Command, keys: &str) -> Screen {
    on_terminal_of(40, command, keys)
}

/// Runs on a terminal of so many columns and 24 lines.
pub fn on_terminal_of(columns: u16, mut command: Command, keys: &str) -> Screen {
    let size = nix::pty::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().unwrap();
    // The program's ends of the terminal, of which none may stay open here.
    drop((command, pty.slave));
    let mut terminal = fs::File::from(pty.master);
    terminal.write_all(keys.as_bytes()).unwrap();
    let mut screen = Vec::new();
    // Reading ends with an error once the program has closed its ends.
    let _ = terminal.read_to_end(&mut screen);
    let code = child.wait().unwrap().code().expect("ended by a signal");
    Screen { code, screen: String::from_utf8_lossy(&screen).into_owned() }
}
