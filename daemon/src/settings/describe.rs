//! What `--check-config` prints.

use std::time::Duration;

use iotdm_core::decide::windows::Window;
use iotdm_proto::reply::IfItHangs;
use jiff::SignedDuration;

use super::Settings;
use super::config::{
    BackendKind, Config, HealthConfig, HubConfig, LogConfig, MetricsConfig, ProvisioningConfig, RebootConfig,
    WhenRequired,
};
use crate::connection::dial::Transport;
use crate::connection::identity::{Proof, Source};

/// What would be used, a setting to a line.
pub fn describe(settings: &Settings) -> String {
    let Settings { config, credentials, state_dir, runtime_dir: _ } = settings;
    // Every key by its name, so that a new one is not forgotten here. Where the
    // device's name, its hub and its secrets come from is seen from the credentials.
    let Config { hub, provisioning, reboot, health, preflight, metrics, log, proxy_file: _ } = config;
    let (MetricsConfig { textfile }, LogConfig { level }) = (metrics, log);
    let HealthConfig { units, ignore_units, wait } = health;
    let HubConfig {
        connection_string_file: _,
        certificate_file: _,
        private_key_file: _,
        ca_file,
        transport,
        proxy,
        keep_alive,
        sas_ttl,
        model_id,
    } = hub;
    let ProvisioningConfig { id_scope: _, registration_id: _, global_endpoint: _, symmetric_key_file: _ } =
        provisioning;
    let RebootConfig {
        backend,
        simulate_duration,
        allow_inhibitor_override,
        allow_preflight_override,
        max_per_hour,
        min_uptime,
        windows,
        window_reserve,
        window_spread,
        when_required,
        ack_timeout,
        down_timeout,
    } = reboot;
    let mut of_module = String::new();
    let (who, where_to) = match &credentials.source {
        Source::Fixed(login) => {
            if let Some(module) = &login.id.module {
                of_module = format!("module           {module}\n");
            }
            let gateway = login.gateway.as_ref().map(|gateway| format!(" through {gateway}"));
            (login.id.device.to_string(), format!("{}{}", login.hub, gateway.unwrap_or_default()))
        }
        Source::Provisioned(enrolment) => (
            format!("registered as {}", enrolment.registration_id),
            format!("as {} assigns for {}", enrolment.endpoint, enrolment.id_scope),
        ),
    };
    let proof = match credentials.source.proof() {
        Proof::Key { origin, .. } => {
            format!("shared access key (hidden) from {}", origin.file.display())
        }
        Proof::Certificate(files) => {
            format!(
                "certificate {}, key (hidden) from {}",
                files.certificate.display(),
                files.private_key.display()
            )
        }
    };
    let cas = ca_file.as_ref().map(|file| format!(", and those in {}", file.display())).unwrap_or_default();
    let transport = match transport {
        Transport::Mqtt => "MQTT over TLS",
        Transport::WebSocket => "MQTT over WebSocket",
    };
    let proxy = proxy.as_ref().map_or_else(String::new, |proxy| {
        let hidden = if proxy.has_credentials() { " (with user and password, hidden)" } else { "" };
        format!(" through the proxy {proxy}{hidden}")
    });
    let model = model_id.as_deref().unwrap_or("none");
    let backend = match backend {
        BackendKind::Logind => "logind".to_owned(),
        BackendKind::Simulate => format!("simulate, down for {}", spelled(*simulate_duration)),
    };
    let overrides = match (allow_inhibitor_override, allow_preflight_override) {
        (false, false) => "not allowed",
        (true, false) => "of inhibitors allowed",
        (false, true) => "of preflight checks allowed",
        (true, true) => "of inhibitors and preflight checks allowed",
    };
    let windows: Vec<String> = windows.iter().map(Window::to_string).collect();
    let windows = if windows.is_empty() { "always".to_owned() } else { windows.join("; ") };
    let when_required = match when_required {
        WhenRequired::Off => "off, a need is only reported",
        WhenRequired::Window => "window, a reboot is asked for in the next",
    };
    let level = format!("{level:?}").to_lowercase();
    let warnings: String =
        credentials.warnings.iter().map(|warning| format!("warning          {warning}\n")).collect();
    format!(
        "hub              {where_to}\n\
         device           {who}\n{of_module}\
         authentication   {proof}\n\
         transport        {transport}{proxy}\n\
         trusted CAs      the system's{cas}\n\
         keep_alive       {}\n\
         sas_ttl          {}\n\
         model            {model}\n\
         backend          {backend}\n\
         overrides        {overrides}\n\
         max_per_hour     {max_per_hour}\n\
         min_uptime       {}\n\
         windows          {windows}\n\
         window_reserve   {}\n\
         window_spread    {}\n\
         when_required    {when_required}\n\
         ack_timeout      {}\n\
         down_timeout     {}\n\
         health.units     {}\n\
         ignore_units     {}\n\
         health.wait      {}\n\
         preflight        {}\n\
         textfile         {textfile}\n\
         log level        {level}\n\
         state directory  {}\n{warnings}",
        spelled(*keep_alive),
        spelled(*sas_ttl),
        spelled(*min_uptime),
        spelled(*window_reserve),
        spelled(*window_spread),
        spelled(*ack_timeout),
        spelled(*down_timeout),
        listed(units),
        listed(ignore_units),
        spelled(*wait),
        spelled(preflight.timeout),
        state_dir.display(),
    )
}

/// What would end a reboot that hangs, with what an administrator should know of that.
pub fn if_it_hangs(found: IfItHangs, dangers: &[String]) -> String {
    let after = |what: &str, seconds: Option<u64>| match seconds {
        Some(seconds) => format!("{what} after {}", spelled(Duration::from_secs(seconds))),
        None => format!("no {what}"),
    };
    let warnings: String = dangers.iter().map(|danger| format!("warning          {danger}\n")).collect();
    let watchdog = after("watchdog", found.watchdog);
    let forced = after("forced reboot", found.forced_after_seconds);
    format!("if it hangs      {watchdog}, {forced}\n{warnings}")
}

fn listed(units: &[String]) -> String {
    if units.is_empty() { "none".to_owned() } else { units.join(" ") }
}

/// A duration as it may stand in the configuration, such as `4m` or `0s`.
fn spelled(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |duration| format!("{duration:#}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::super::config::Config;
    use super::super::{credentials, keys};
    use super::*;

    /// Settings by `section.key`, with the value as it stands in TOML.
    type Lines = BTreeMap<&'static str, String>;

    fn described(lines: &Lines) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agentd.toml");
        let text: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        fs::write(&file, text).unwrap();
        let config = Config::load(&file, true).unwrap();
        let credentials = credentials::load(&config, None, Path::new("/nowhere")).unwrap();
        describe(&Settings { config, credentials, state_dir: "/state".into(), runtime_dir: None })
    }

    #[test]
    fn every_key_shows() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            fs::write(dir.path().join(name), content).unwrap();
            format!("{:?}", dir.path().join(name))
        };
        let string = "HostName=h;DeviceId=gw1;SharedAccessKey=c2VjcmV0";
        let plain = || Lines::from([("hub.connection_string_file", file("string", string))]);
        let simulated = || {
            let backend = [("reboot.backend", r#""simulate""#.to_owned())];
            plain().into_iter().chain(backend).collect::<Lines>()
        };
        let windowed = || {
            let windows = [("reboot.windows", r#""Sun 01:00-02:00""#.to_owned())];
            plain().into_iter().chain(windows).collect::<Lines>()
        };
        let certified = || {
            Lines::from([
                ("hub.connection_string_file", file("x509", "HostName=h;DeviceId=gw1;x509=true")),
                ("hub.certificate_file", file("one.pem", "")),
                ("hub.private_key_file", file("one.key", "")),
            ])
        };
        let enrolled = || {
            Lines::from([
                ("provisioning.id_scope", r#""0ne1""#.to_owned()),
                ("provisioning.symmetric_key_file", file("key", "c2VjcmV0")),
            ])
        };

        // Each key, what is configured besides, and another value for the key.
        let mut keys_seen = Vec::new();
        for (key, mut lines, value) in [
            ("hub.connection_string_file", plain(), file("another-string", string)),
            ("hub.certificate_file", certified(), file("two.pem", "")),
            ("hub.private_key_file", certified(), file("two.key", "")),
            ("hub.ca_file", plain(), file("ca.pem", "")),
            ("hub.transport", plain(), r#""websocket""#.to_owned()),
            ("hub.proxy", plain(), r#""http://proxy.example:3128""#.to_owned()),
            ("hub.keep_alive", plain(), r#""5m""#.to_owned()),
            ("hub.sas_ttl", plain(), r#""2h""#.to_owned()),
            ("hub.model_id", plain(), r#""dtmi:com:example:Gateway;1""#.to_owned()),
            ("provisioning.id_scope", enrolled(), r#""0ne2""#.to_owned()),
            ("provisioning.registration_id", enrolled(), r#""another-name""#.to_owned()),
            ("provisioning.global_endpoint", enrolled(), r#""dps.example""#.to_owned()),
            ("provisioning.symmetric_key_file", enrolled(), file("another-key", "c2VjcmV0")),
            ("reboot.backend", plain(), r#""simulate""#.to_owned()),
            ("reboot.simulate_duration", simulated(), r#""7s""#.to_owned()),
            ("reboot.allow_inhibitor_override", plain(), "true".to_owned()),
            ("reboot.allow_preflight_override", plain(), "true".to_owned()),
            ("reboot.max_per_hour", plain(), "7".to_owned()),
            ("reboot.min_uptime", plain(), r#""7m""#.to_owned()),
            ("reboot.windows", plain(), r#""Sun 01:00-02:00""#.to_owned()),
            ("reboot.window_reserve", plain(), r#""7m""#.to_owned()),
            ("reboot.window_spread", plain(), r#""7m""#.to_owned()),
            ("reboot.when_required", windowed(), r#""window""#.to_owned()),
            ("reboot.ack_timeout", plain(), r#""7s""#.to_owned()),
            ("reboot.down_timeout", plain(), r#""7m""#.to_owned()),
            ("health.units", plain(), r#""gateway-app.service""#.to_owned()),
            ("health.ignore_units", plain(), r#""apt-daily.service""#.to_owned()),
            ("health.wait", plain(), r#""7m""#.to_owned()),
            ("preflight.timeout", plain(), r#""30s""#.to_owned()),
            ("metrics.textfile", plain(), "true".to_owned()),
            ("log.level", plain(), r#""debug""#.to_owned()),
        ] {
            let before = described(&lines);
            lines.insert(key, value);
            assert_ne!(described(&lines), before, "{key} does not show");
            keys_seen.push(key.to_owned());
        }
        keys_seen.sort();
        assert_eq!(keys_seen, keys::all(), "each key has its line here");
    }

    #[test]
    fn a_module_has_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("string");
        let lines = || Lines::from([("hub.connection_string_file", format!("{file:?}"))]);
        fs::write(&file, "HostName=h;DeviceId=gw1;SharedAccessKey=c2VjcmV0").unwrap();
        assert!(!described(&lines()).contains("\nmodule "));
        fs::write(&file, "HostName=h;DeviceId=gw1;ModuleId=iotdm;SharedAccessKey=c2VjcmV0").unwrap();
        let module = described(&lines());
        assert!(
            module.contains("\ndevice           gw1\nmodule           iotdm\nauthentication"),
            "{module}"
        );
    }

    #[test]
    fn what_ends_a_hang_is_said_with_its_dangers() {
        let found = IfItHangs { watchdog: None, forced_after_seconds: Some(1800) };
        assert_eq!(
            if_it_hangs(found, &["no way back".to_owned()]),
            "if it hangs      no watchdog, forced reboot after 30m\nwarning          no way back\n"
        );
        let found = IfItHangs { watchdog: Some(90), forced_after_seconds: None };
        assert_eq!(if_it_hangs(found, &[]), "if it hangs      watchdog after 1m 30s, no forced reboot\n");
    }

    #[test]
    fn durations_are_spelled_as_in_the_configuration() {
        for text in ["0s", "4m", "1h 30m", "500ms"] {
            let duration: SignedDuration = text.parse().unwrap();
            assert_eq!(spelled(duration.unsigned_abs()), text);
        }
    }
}
