//! The proxy through which the hub is reached, if the environment names one. The
//! HTTP client heeds the same variables by the same rules; here they are asked for
//! `check` and for errors, which would otherwise blame the hub.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use iotdm_proto::Endpoint;

/// A proxy, by `$HTTPS_PROXY` or `$ALL_PROXY` without what `$NO_PROXY` excepts.
#[derive(Clone)]
pub struct Proxy {
    /// The proxy's host.
    pub host: String,
    /// The proxy's port.
    pub port: u16,
    /// Whether TLS is spoken with the proxy itself.
    pub is_tls: bool,
    /// The value of the header `Proxy-Authorization`, if the variable has
    /// credentials.
    pub authorization: Option<String>,
}

impl Proxy {
    /// The proxy that the environment names for the hub at `endpoint`.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        let found = Matcher::from_system().intercept(&format!("https://{endpoint}").parse().ok()?)?;
        let uri = found.uri();
        let is_tls = uri.scheme_str() == Some("https");
        Some(Proxy {
            host: uri.host()?.to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
            authorization: found.basic_auth().and_then(|value| Some(value.to_str().ok()?.to_owned())),
        })
    }
}

/// The proxy without its credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.is_tls { "https" } else { "http" }, self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}
