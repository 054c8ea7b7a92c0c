//! Each way for a device to prove who it is, over each transport, with and
//! without a proxy.

use std::fs;
use std::path::{Path, PathBuf};

use iotdm_tests::{Daemon, Hub, proxy, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

const PROXY_USER: &str = "gateway:p@ss word";
const PROXY_USER_ENCODED: &str = "gateway:p%40ss%20word";

/// A CA of devices, and their certificates in files.
struct Certificates {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = named("devices of the test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let certificates = Certificates { dir: tempfile::tempdir().unwrap(), ca };
        fs::write(certificates.file("ca.pem"), certificates.ca.pem()).unwrap();
        certificates
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a certificate for `device` and its key; the lines that name them.
    fn write(&self, device: &str, by_ca: bool) -> String {
        let key = KeyPair::generate().unwrap();
        let params = named(device);
        let certificate =
            if by_ca { params.signed_by(&key, &self.ca).unwrap() } else { params.self_signed(&key).unwrap() };
        fs::write(self.file("device.pem"), certificate.pem()).unwrap();
        fs::write(self.file("device.key"), key.serialize_pem()).unwrap();
        let (certificate, key) = (self.file("device.pem"), self.file("device.key"));
        format!("hub.certificate_file = {certificate:?}\nhub.private_key_file = {key:?}\n")
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn text(file: &Path) -> &str {
    file.to_str().unwrap()
}

/// Ways to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Key,
    Thumbprint,
    Ca,
    EnrolledKey,
    GroupKey,
    EnrolledCertificate,
    GroupCertificate,
    ModuleKey,
    ModuleThumbprint,
    ModuleCa,
}

impl How {
    /// The options with which `iotdm-ctl` means the daemon: with the credential of a
    /// module, it is that module.
    fn options(self) -> &'static [&'static str] {
        match self {
            How::ModuleKey | How::ModuleThumbprint | How::ModuleCa => &["--module", "iotdm"],
            _ => &[],
        }
    }
}

/// Prepares the hub for `gw1` proving itself in this way, and the daemon with
/// it; the lines of its configuration.
fn prepare(hub: &Hub, certificates: &Certificates, how: How, port: u16, daemon: &Daemon) -> String {
    let provisioning = |scope: &str, more: &str| {
        daemon.forget_connection_string();
        format!(
            "[provisioning]\nid_scope = {:?}\nregistration_id = \"gw1\"\nglobal_endpoint = \"localhost:{port}\"\n{more}",
            scope.trim()
        )
    };
    let of_module = |more: &[&str]| {
        let create = ["device", "create", "gw1", "--module", "iotdm"];
        let (file, gateway) = (daemon.state_dir().with_file_name("module"), format!("localhost:{port}"));
        let out = ["--gateway", gateway.as_str(), "--out", text(&file)];
        let ran = hub.ctl(&[&create[..], &out, more].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        daemon.write_connection_string(&fs::read_to_string(&file).unwrap());
    };
    let by_certificate = |kind: &str, more: &[&str]| {
        let create = ["device", "create", "gw1", "--auth", kind];
        assert_eq!(hub.ctl(&["device", "delete", "gw1", "--yes"]).code, 0);
        let ran = hub.ctl(&[&create, more].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        let string = format!("HostName=localhost;DeviceId=gw1;x509=true;GatewayHostName=localhost:{port}");
        daemon.write_connection_string(&string);
    };
    match how {
        How::Key => {
            let string = hub.device_connection_string();
            let (rest, _) = string.split_once(";GatewayHostName=").unwrap();
            daemon.write_connection_string(&format!("{rest};GatewayHostName=localhost:{port}"));
            String::new()
        }
        How::Thumbprint => {
            let lines = certificates.write("anything", false);
            let file = certificates.file("device.pem");
            by_certificate("x509-thumbprint", &["--certificate", text(&file)]);
            lines
        }
        How::Ca => {
            by_certificate("x509-ca", &[]);
            certificates.write("gw1", true)
        }
        How::EnrolledKey => {
            let key = certificates.file("device.key");
            let scope = hub.emulator(&["enrol", "gw1", "--out", text(&key)]);
            provisioning(&scope, &format!("symmetric_key_file = {key:?}\n"))
        }
        How::GroupKey => {
            let (group, key) = (certificates.file("group.key"), certificates.file("derived.key"));
            let scope = hub.emulator(&["enrol", "--group", "fleet", "--out", text(&group)]);
            let derive =
                ["device", "derive-key", "gw1", "--group-key-file", text(&group), "--out", text(&key)];
            assert_eq!(hub.ctl(&derive).code, 0);
            provisioning(&scope, &format!("symmetric_key_file = {key:?}\n"))
        }
        How::EnrolledCertificate => {
            let lines = certificates.write("gw1", false);
            let file = certificates.file("device.pem");
            let scope = hub.emulator(&["enrol", "gw1", "--certificate", text(&file)]);
            format!("{lines}{}", provisioning(&scope, ""))
        }
        How::GroupCertificate => {
            let lines = certificates.write("gw1", true);
            let file = certificates.file("ca.pem");
            let scope = hub.emulator(&["enrol", "--group", "line", "--certificate", text(&file)]);
            format!("{lines}{}", provisioning(&scope, ""))
        }
        How::ModuleKey => {
            of_module(&[]);
            String::new()
        }
        How::ModuleThumbprint => {
            let lines = certificates.write("anything", false);
            let file = certificates.file("device.pem");
            of_module(&["--auth", "x509-thumbprint", "--certificate", text(&file)]);
            lines
        }
        How::ModuleCa => {
            of_module(&["--auth", "x509-ca"]);
            certificates.write("gw1/iotdm", true)
        }
    }
}

/// Reboots `gw1` once by each transport and proxy, on a hub of its own.
fn everywhere(how: How) {
    let certificates = Certificates::new();
    for transport in ["mqtt", "websocket"] {
        for credentials in [None, Some(""), Some(PROXY_USER)] {
            let hub = Hub::start_with(&["--x509-ca", text(&certificates.file("ca.pem"))]);
            let mut daemon = Daemon::simulating(&hub);
            let port = if transport == "mqtt" { hub.mqtt_port } else { hub.https_port };
            let proxy =
                credentials.map(|credentials| proxy(Some(credentials).filter(|user| !user.is_empty())));
            let user = credentials.filter(|user| !user.is_empty()).map(|_| format!("{PROXY_USER_ENCODED}@"));
            let through = proxy.as_ref().map(|proxy| {
                format!("hub.proxy = \"http://{}{}\"\n", user.unwrap_or_default(), proxy.address)
            });
            let lines = prepare(&hub, &certificates, how, port, &daemon);
            daemon.configure(&format!(
                "hub.transport = \"{transport}\"\n{}{lines}",
                through.unwrap_or_default()
            ));
            daemon.start();
            daemon.notified.wait_for("STATUS=connected to localhost");
            let ran = hub.ctl(&[how.options(), &["reboot", "gw1", "--interval", "1s"]].concat());
            assert_eq!(ran.code, 0, "{how:?} over {transport}: {ran:?}");
            if let Some(proxy) = &proxy {
                proxy.asked.wait_for(&format!("CONNECT localhost:{port} HTTP/1.1"));
            }
            assert!(daemon.stop().success());
            let log = daemon.log.lines().concat();
            assert!(!log.contains("p@ss") && !log.contains("p%40ss"), "{log}");
        }
    }
}

#[test]
fn a_shared_access_key() {
    everywhere(How::Key);
}

#[test]
fn a_certificate_whose_thumbprint_the_hub_has() {
    everywhere(How::Thumbprint);
}

#[test]
fn a_certificate_of_a_ca_that_the_hub_knows() {
    everywhere(How::Ca);
}

#[test]
fn an_enrolment_with_a_key() {
    everywhere(How::EnrolledKey);
}

#[test]
fn a_group_whose_key_never_comes_to_the_device() {
    everywhere(How::GroupKey);
}

#[test]
fn an_enrolment_with_a_certificate() {
    everywhere(How::EnrolledCertificate);
}

#[test]
fn a_group_of_certificates_of_one_ca() {
    everywhere(How::GroupCertificate);
}

#[test]
fn a_modules_key() {
    everywhere(How::ModuleKey);
}

#[test]
fn a_modules_certificate_whose_thumbprint_the_hub_has() {
    everywhere(How::ModuleThumbprint);
}

#[test]
fn a_modules_certificate_of_a_ca_that_the_hub_knows() {
    everywhere(How::ModuleCa);
}

#[test]
fn a_renewed_certificate_is_taken_up_without_a_restart() {
    let certificates = Certificates::new();
    let hub = Hub::start_with(&["--x509-ca", text(&certificates.file("ca.pem"))]);
    let mut daemon = Daemon::simulating(&hub);
    let lines = prepare(&hub, &certificates, How::Thumbprint, hub.mqtt_port, &daemon);
    daemon.configure(&lines);
    daemon.start_connected(&hub);

    // The hub is told of the new certificate, which drops nothing; then the link ends.
    certificates.write("the next", false);
    let file = certificates.file("device.pem");
    assert_eq!(hub.ctl(&["device", "delete", "gw1", "--yes"]).code, 0);
    let create = ["device", "create", "gw1", "--auth", "x509-thumbprint", "--certificate", text(&file)];
    assert_eq!(hub.ctl(&create).code, 0);
    daemon.log.wait_for_nth("connected to localhost as gw1", 2);
    wait_until("a call gets through", || hub.invoke("rebootDevice", r#"{"check":true}"#).0 == 200);
}

#[test]
fn an_assigned_hub_is_known_without_the_service() {
    let certificates = Certificates::new();
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let lines = prepare(&hub, &certificates, How::EnrolledKey, hub.mqtt_port, &daemon);
    daemon.configure(&lines);
    daemon.start();
    daemon.log.wait_for(&format!("assigned to localhost:{} as gw1", hub.mqtt_port));
    daemon.notified.wait_for("STATUS=connected to localhost");
    assert!(daemon.stop().success());

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let elsewhere = lines.replace(&format!("localhost:{}", hub.mqtt_port), &nobody.to_string());
    daemon.configure(&elsewhere);
    daemon.start();
    daemon.notified.wait_for("STATUS=connected to localhost");
    assert!(daemon.stop().success());

    // The service does not know this enrolment, and the daemon says what to check.
    daemon.configure(&lines.replace("\"gw1\"", "\"gw2\""));
    daemon.start();
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(
        status.contains("the provisioning service localhost") && status.contains("refused gw2"),
        "{status}"
    );
    assert!(status.contains("check provisioning.id_scope, the key in "), "{status}");
}

#[test]
fn the_model_is_said_to_the_hub() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.configure("hub.model_id = \"dtmi:com:example:Gateway;1\"\n");
    daemon.start_connected(&hub);
    assert_eq!(hub.twin()["modelId"], "dtmi:com:example:Gateway;1");
}

#[test]
fn what_is_wrong_with_a_certificate_or_a_proxy_is_said() {
    let certificates = Certificates::new();
    let hub = Hub::start_with(&["--x509-ca", text(&certificates.file("ca.pem"))]);
    let mut daemon = Daemon::simulating(&hub);
    let said = |daemon: &mut Daemon, lines: &str| {
        daemon.configure(lines);
        daemon.start();
        let status = daemon.notified.wait_for("STATUS=not connected");
        daemon.stop();
        status
    };
    prepare(&hub, &certificates, How::Thumbprint, hub.mqtt_port, &daemon);
    let other = certificates.write("gw1", false);
    let status = said(&mut daemon, &other);
    assert!(
        status.contains("refused gw1: check its certificate in ") && status.contains("device.pem"),
        "{status}"
    );

    let lines = prepare(&hub, &certificates, How::Thumbprint, hub.mqtt_port, &daemon);
    let proxy = proxy(Some(PROXY_USER));
    let wrong = format!("{lines}hub.proxy = \"http://gateway:wrong@{}\"\n", proxy.address);
    let status = said(&mut daemon, &wrong);
    assert!(status.contains(&format!("the proxy {} wants a user and a password", proxy.address)), "{status}");
    assert!(!daemon.log.lines().concat().contains("wrong"));

    let web = format!("{lines}hub.proxy = \"http://127.0.0.1:{}\"\n", hub.https_port);
    let status = said(&mut daemon, &web);
    assert!(status.contains("the proxy 127.0.0.1:") && status.contains("failed"), "{status}");
}
