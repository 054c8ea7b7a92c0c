//! The texts of `env` and `trust`: what a user has to set so that other programs
//! find and trust the emulator.

use crate::data_dir::DataDir;
use crate::pki::Reach;

/// Lines for `eval`, by which our tools and the official SDKs find the hub in
/// `dir` and trust it, also as `device` if one is given. The lines hold no
/// secret: the shell reads it from its file.
pub fn environment(dir: &DataDir, device: Option<&iotdm_proto::Identity>) -> String {
    let (ca, service) = (quoted(&dir.ca()), quoted(&dir.service_connection_string()));
    let mut lines = vec![
        format!("export IOTHUB_CONNECTION_STRING=\"$(cat {service})\""),
        format!("export IOTDM_CA_FILE={ca}"),
        format!("export PROVISIONING_IDSCOPE=\"$(cat {})\"", quoted(&dir.id_scope())),
        "# These replace what the programs of this shell trust otherwise (Node adds to it):".to_owned(),
        format!("export SSL_CERT_FILE={ca}"),
        format!("export REQUESTS_CA_BUNDLE={ca}"),
        format!("export NODE_EXTRA_CA_CERTS={ca}"),
    ];
    if let Some(device) = device {
        let file = quoted(&dir.device(device));
        lines.push(format!("export IOTHUB_DEVICE_CONNECTION_STRING=\"$(cat {file})\""));
    }
    lines.join("\n")
}

/// How to trust the CA of the emulator in `dir`, which can sign as far as `reach`
/// says, for each kind of client.
pub fn trust(dir: &DataDir, reach: &Reach) -> String {
    let (ca, until) = (quoted(&dir.ca()), reach.until);
    let (reach, everything) = match reach.only() {
        Some(only) => (
            format!("It can sign for {only} alone, until {until}."),
            format!(
                "\
sudo install -m 644 {ca} /usr/local/share/ca-certificates/iotdm-emulator.crt
               sudo update-ca-certificates   (a developer's own machine only)"
            ),
        ),
        None => (
            format!("It can sign for every name, until {until}: an earlier version has made it."),
            "\
not this CA: whoever reads its key could pose as any host. For one
               that can sign for this emulator alone, stop it and remove its directory"
                .to_owned(),
        ),
    };
    format!(
        "\
The emulator's certificates come from its own CA, which nothing trusts yet:
  {ca}
{reach}

iotdm-agentd   ca_file = {path} under [hub] of agentd.toml
iotdm-ctl      export IOTDM_CA_FILE={ca}
curl           curl --cacert {ca} …
Python         export REQUESTS_CA_BUNDLE={ca}          (azure-iot-hub)
               server_verification_cert=open(…).read()  (azure-iot-device)
Node           export NODE_EXTRA_CA_CERTS={ca}
.NET           export SSL_CERT_FILE={ca}
Java           keytool -importcert -noprompt -alias iotdm-emulator -file {ca} \\
                 -keystore trust.jks -storepass changeit
               java -Djavax.net.ssl.trustStore=trust.jks …
everything     {everything}

Some clients know the standard ports only, 8883 and 443. An ordinary user may
listen on 443 after: sudo sysctl net.ipv4.ip_unprivileged_port_start=443",
        path = toml(&dir.ca()),
    )
}

/// A path as a string of TOML.
fn toml(path: &std::path::Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', r"\\").replace('"', "\\\""))
}

/// A path in the quotes of a shell.
fn quoted(path: &std::path::Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::now;
    use crate::pki::Permitted;

    #[test]
    fn a_shell_takes_the_lines_whatever_the_directory_is_called() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::create(&parent.path().join("it's a $(hub)")).unwrap();
        dir.write(&dir.service_connection_string(), "HostName=h;SharedAccessKey=a\n").unwrap();
        dir.write(&dir.id_scope(), "0ne\n").unwrap();
        let id = "gw1".parse().unwrap();
        dir.write(&dir.device(&id), "DeviceId=gw1\n").unwrap();
        let script = format!(
            "{}\nprintf '%s|%s|%s' \"$IOTHUB_CONNECTION_STRING\" \"$IOTDM_CA_FILE\" \"$IOTHUB_DEVICE_CONNECTION_STRING\"",
            environment(&dir, Some(&id))
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let expected = format!("HostName=h;SharedAccessKey=a|{}|DeviceId=gw1", dir.ca().display());
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_secret_is_in_the_advice_itself() {
        let dir = DataDir::named(Path::new("/d")).unwrap();
        let text = environment(&dir, None);
        assert!(!text.contains("SharedAccessKey") && text.contains("'/d/ca.pem'"), "{text}");
    }

    #[test]
    fn a_ca_that_can_sign_for_everything_is_for_no_system_store() {
        let dir = DataDir::named(Path::new(r#"/it's "a" \"#)).unwrap();
        let reach = |permitted: Option<Vec<Permitted>>| Reach { permitted, until: now() };
        let narrow = trust(&dir, &reach(Some(vec![Permitted::Name("localhost".into())])));
        assert!(
            narrow.contains("update-ca-certificates") && narrow.contains("for localhost alone"),
            "{narrow}"
        );
        let wide = trust(&dir, &reach(None));
        assert!(!wide.contains("update-ca-certificates") && wide.contains("not this CA"), "{wide}");
        for text in [narrow, wide] {
            assert!(text.contains(r#"curl --cacert '/it'\''s "a" \/ca.pem' "#), "{text}");
            assert!(text.contains(r#"ca_file = "/it's \"a\" \\/ca.pem" under"#), "{text}");
        }
    }
}
