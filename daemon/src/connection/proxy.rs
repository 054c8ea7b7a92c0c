//! HTTP proxies: a tunnel to the hub by CONNECT. Source: RFC 9110, 9.3.6.

use std::fmt;
use std::io;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iotdm_proto::Endpoint;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use zeroize::Zeroizing;

use crate::connection::outage::Outage;

/// A proxy: `http://[user:password@]host:port`. `Debug` and `Display` hide the
/// password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Proxy {
    /// Where the proxy listens.
    pub endpoint: Endpoint,
    /// `user:password`, percent-decoded.
    credentials: Option<Zeroizing<String>>,
}

/// The port where the setting names none: Squid's default, which others took over.
const DEFAULT_PORT: u16 = 3128;
/// The longest head of a response, in bytes. What says more is no proxy that answers
/// CONNECT, and has to stop somewhere.
const MAX_HEAD: usize = 8 * 1024;
/// The most header fields of a response, for the parser, which takes no more.
const MAX_HEADERS: usize = 64;

impl Proxy {
    /// The port where the proxy listens.
    pub fn port(&self) -> u16 {
        self.endpoint.port_or(DEFAULT_PORT)
    }

    /// Whether the configuration holds a password.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Has the proxy at the other end of `stream` connect to `host`.
    pub async fn tunnel<S>(&self, stream: S, host: &str, port: u16) -> Result<S, Outage>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::with_capacity(256, stream);
        let broken = |error: io::Error| Outage::unreachable(format!("the proxy {self} failed: {error}"));
        let mut request =
            Zeroizing::new(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"));
        if let Some(credentials) = &self.credentials {
            let encoded = Zeroizing::new(STANDARD.encode(credentials.as_bytes()));
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&encoded);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.get_mut().write_all(request.as_bytes()).await.map_err(broken)?;
        let head = read_head(&mut stream).await.map_err(broken)?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&head);
        let status = response.code.filter(|_| parsed.is_ok_and(|head| head.is_complete()));
        let reason = response.reason.unwrap_or_default();
        match status {
            // The hub speaks only when it is spoken to, so nothing of what it
            // says can be in the buffer yet.
            Some(200..=299) if stream.buffer().is_empty() => Ok(stream.into_inner()),
            None | Some(200..=299) => {
                let outage = Outage::refused(format!("what answers at {self} is not an HTTP proxy"));
                Err(outage.mended_by("check hub.proxy"))
            }
            Some(407) => Err(Outage::refused(format!(
                "the proxy {self} wants a user and a password ({status}{reason})",
                status = 407,
                reason = spaced(reason),
            ))
            .mended_by("give those that it takes in hub.proxy = \"http://user:password@…\"")),
            Some(status @ (502..=504 | 429)) => Err(Outage::unreachable(format!(
                "the proxy {self} cannot reach {host}:{port} ({status}{})",
                spaced(reason)
            ))),
            Some(status) => Err(Outage::refused(format!(
                "the proxy {self} does not connect to {host}:{port} ({status}{})",
                spaced(reason)
            ))
            .mended_by("allow that there")),
        }
    }
}

/// Reads a response's head, that is, everything up to the empty line; or less where
/// that is longer than [`MAX_HEAD`].
async fn read_head<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let available = stream.fill_buf().await?;
        let end = available.iter().position(|byte| *byte == b'\n').map_or(available.len(), |at| at + 1);
        head.extend(available.iter().take(end));
        stream.consume(end);
        let ended = head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n");
        if ended || head.len() > MAX_HEAD {
            return Ok(head);
        }
        if head.len() == before {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
    }
}

/// A reason phrase as it stands after its status: with a space before it, if there is
/// one at all.
fn spaced(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason}") }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "is not of the form http://[user:password@]host:port";
        // The text is not repeated, since it may hold a password.
        let rest = text.strip_prefix("http://").ok_or_else(|| format!("the proxy {form}"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, endpoint) = match rest.rsplit_once('@') {
            Some((credentials, _)) if !credentials.contains(':') => return Err(format!("the proxy {form}")),
            Some((credentials, endpoint)) => (Some(credentials), endpoint),
            None => (None, rest),
        };
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded
                .map(|text| Zeroizing::new(text.into_owned()))
                .map_err(|_| format!("the proxy's user {form}"))
        };
        let endpoint = endpoint.parse().map_err(|_| format!("the proxy {form}"))?;
        Ok(Proxy { endpoint, credentials: credentials.map(decoded).transpose()? })
    }
}

impl TryFrom<String> for Proxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.endpoint.host, self.port())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::connection::outage::Class;

    /// What comes of asking a proxy that answers so, and what it was asked.
    async fn asked(proxy: &str, answer: &[u8]) -> (Result<(), Outage>, String) {
        let proxy: Proxy = proxy.parse().unwrap();
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(answer).await.unwrap();
        let tunnelled = proxy.tunnel(near, "hub.example", 8883);
        let read = async {
            let mut request = vec![0; 4096];
            let length = far.read(&mut request).await.unwrap();
            drop(far);
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        let (tunnelled, request) = tokio::join!(tunnelled, read);
        (tunnelled.map(drop), request)
    }

    #[tokio::test]
    async fn it_is_asked_for_the_way_with_the_password_that_it_takes() {
        let (tunnelled, request) = asked("http://proxy.example:3128", b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(tunnelled.is_ok());
        assert_eq!(request, "CONNECT hub.example:8883 HTTP/1.1\r\nHost: hub.example:8883\r\n\r\n");
        let (_, request) = asked("http://a%40b:c@proxy.example", b"HTTP/1.1 200 OK\r\n\r\n").await;
        // a@b:c
        assert!(request.contains("\r\nProxy-Authorization: Basic YUBiOmM=\r\n"), "{request}");
    }

    /// What a stranger answers without end is not read without end.
    #[tokio::test]
    async fn what_is_no_answer_of_a_proxy_is_refused_and_one_that_says_nothing_is_away() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        endless.extend(b"X: y\r\n".repeat(8 * 1024 / 6));
        let one_field = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b"y".repeat(9_000)].concat();
        for (answer, class) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], Class::Refused),
            (&endless, Class::Refused),
            (&one_field, Class::Refused),
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Class::Refused),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", Class::Refused),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Class::Unreachable),
            (b"HTTP/1.1 200", Class::Unreachable),
        ] {
            let (tunnelled, _) = asked("http://proxy.example:3128", answer).await;
            let outage = tunnelled.unwrap_err();
            assert_eq!(outage.class, class, "{:?}", String::from_utf8_lossy(&answer[..20.min(answer.len())]));
        }
    }
}
