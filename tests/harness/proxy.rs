//! An HTTP proxy that connects where it is told to, if the client may.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::spawn;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Transcript;
use crate::relay::pass_on;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where the proxy listens.
    pub address: SocketAddr,
    /// The first line of each request.
    pub asked: Transcript,
}

/// Starts a proxy that wants these credentials, `user:password`, or none.
pub fn proxy(credentials: Option<&str>) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Transcript::default();
    let wanted = credentials.map(|credentials| format!("Basic {}", STANDARD.encode(credentials)));
    let writer = asked.clone();
    spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (writer, wanted) = (writer.clone(), wanted.clone());
            spawn(move || serve(client, &writer, wanted.as_deref()));
        }
    });
    Proxy { address, asked }
}

fn serve(mut client: TcpStream, asked: &Transcript, wanted: Option<&str>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    asked.push(head[0].clone());
    let target = head[0].strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let server = match target {
        _ if wanted.is_some_and(|wanted| !head.iter().any(|line| is_credentials(line, wanted))) => {
            Err("407 Proxy Authentication Required")
        }
        Some(target) => TcpStream::connect(target).map_err(|_| "502 Bad Gateway"),
        None => Err("405 Method Not Allowed"),
    };
    match server {
        Err(status) => {
            let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        }
        Ok(server) => {
            let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n");
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            spawn(move || pass_on(from, to));
            pass_on(server, client);
        }
    }
}

/// Whether a header's line has these credentials.
fn is_credentials(line: &str, wanted: &str) -> bool {
    let header = line.split_once(": ");
    header.is_some_and(|(name, value)| name.eq_ignore_ascii_case("Proxy-Authorization") && value == wanted)
}
