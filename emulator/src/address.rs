//! What the hub is called and where it listens, as its clients write it.

/// The standard port of MQTT over TLS, which SDKs use unless told otherwise,
/// so that connection strings need not mention it.
pub const MQTT_PORT: u16 = 8883;

/// The standard port of HTTPS and of WebSockets, which connection strings
/// need not mention either.
pub const HTTPS_PORT: u16 = 443;

/// The hub's name and its two ports.
#[derive(Debug, Clone)]
pub struct Address {
    /// The host name, as it stands in connection strings.
    pub host: String,
    /// The other names that clients may use.
    pub others: Vec<String>,
    /// The port of MQTT over TLS.
    pub mqtt_port: u16,
    /// The port of the REST interface and of MQTT over WebSocket.
    pub https_port: u16,
}

impl Address {
    /// Where devices connect: the host, with the port unless that is the
    /// standard one. A device that came over a WebSocket finds the WebSocket
    /// there again.
    pub fn for_devices(&self, over_websocket: bool) -> String {
        if over_websocket { self.for_services() } else { self.with_port(self.mqtt_port, MQTT_PORT) }
    }

    /// Where services connect, in the same form.
    pub fn for_services(&self) -> String {
        self.with_port(self.https_port, HTTPS_PORT)
    }

    /// Whether `host`, with or without a port, names this hub.
    pub fn is(&self, host: &str) -> bool {
        self.resources("").iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// The ways in which clients write the resource of a SAS token: a name of the
    /// hub alone, or with either port, each followed by `path` (`/twins/gw1`).
    pub fn resources(&self, path: &str) -> Vec<String> {
        self.each_resource(path).collect()
    }

    /// The same, each made when it is looked at: most often one of the first is meant.
    pub fn each_resource(&self, path: &str) -> impl Iterator<Item = String> {
        let Address { host, others, mqtt_port, https_port } = self;
        let ports = [None, Some(*https_port), Some(*mqtt_port)];
        let of = move |host| {
            ports.into_iter().map(move |port| match port {
                None => [host, path].concat(),
                Some(port) => format!("{host}:{port}{path}"),
            })
        };
        std::iter::once(host).chain(others).map(String::as_str).flat_map(of)
    }

    fn with_port(&self, port: u16, standard: u16) -> String {
        if port == standard { self.host.clone() } else { format!("{}:{port}", self.host) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_unless_it_is_the_standard_one() {
        let address = |mqtt_port, https_port| Address {
            host: "h".into(),
            others: vec!["other".into()],
            mqtt_port,
            https_port,
        };
        let standard = address(MQTT_PORT, HTTPS_PORT);
        assert_eq!((standard.for_devices(false), standard.for_services()), ("h".into(), "h".into()));
        let other = address(1, 2);
        assert_eq!((other.for_devices(false), other.for_devices(true)), ("h:1".into(), "h:2".into()));
        assert!(other.is("OTHER:1") && other.is("other") && !other.is("another"));
        assert!(other.is("H") && other.is("h:1") && other.is("h:2") && !other.is("h:3"));
    }
}
