//! What `--check-config` prints.

use iotdm_core::decide::windows::Window;

use super::Settings;
use super::config::BackendKind;
use crate::connection::dial::Transport;
use crate::connection::identity::{Proof, Source};

/// What would be used, a setting to a line.
pub fn describe(settings: &Settings) -> String {
    let Settings { config, credentials, extra_cas, state_dir } = settings;
    let (who, where_to) = match &credentials.source {
        Source::Fixed(identity) => {
            let gateway = identity.gateway.as_ref().map(|gateway| format!(" through {gateway}"));
            (identity.device_id.to_string(), format!("{}{}", identity.hub, gateway.unwrap_or_default()))
        }
        Source::Provisioned(enrolment) => (
            format!("registered as {}", enrolment.registration_id),
            format!("as {} assigns for {}", enrolment.endpoint, enrolment.id_scope),
        ),
    };
    let proof = match credentials.source.proof() {
        Proof::Key { file, .. } => format!("shared access key (hidden) from {}", file.display()),
        Proof::Certificate(files) => {
            format!(
                "certificate {}, key (hidden) from {}",
                files.certificate.display(),
                files.private_key.display()
            )
        }
    };
    let transport = match config.hub.transport {
        Transport::Mqtt => "MQTT over TLS",
        Transport::WebSocket => "MQTT over WebSocket",
    };
    let proxy = config.hub.proxy.as_ref();
    let proxy = proxy.map_or_else(String::new, |proxy| {
        let hidden = if proxy.has_credentials() { " (with user and password, hidden)" } else { "" };
        format!(" through the proxy {proxy}{hidden}")
    });
    let model = config.hub.model_id.as_deref().unwrap_or("none");
    let backend = match config.reboot.backend {
        BackendKind::Logind => "logind".to_owned(),
        BackendKind::Simulate => format!("simulate, {:?}", config.reboot.simulate_duration),
    };
    let windows: Vec<String> = config.reboot.windows.iter().map(Window::to_string).collect();
    let windows = if windows.is_empty() { "always".to_owned() } else { windows.join("; ") };
    let warnings: String =
        credentials.warnings.iter().map(|warning| format!("warning          {warning}\n")).collect();
    format!(
        "hub              {where_to}\n\
         device           {who}\n\
         authentication   {proof}\n\
         transport        {transport}{proxy}\n\
         trusted CAs      the system's, and {} of ca_file\n\
         keep_alive       {:?}\n\
         sas_ttl          {:?}\n\
         model            {model}\n\
         backend          {backend}\n\
         overrides        {}\n\
         max_per_hour     {}\n\
         min_uptime       {:?}\n\
         windows          {windows}\n\
         ack_timeout      {:?}\n\
         down_timeout     {:?}\n\
         log level        {:?}\n\
         state directory  {}\n{warnings}",
        extra_cas.len(),
        config.hub.keep_alive,
        config.hub.sas_ttl,
        if config.reboot.allow_inhibitor_override { "allowed" } else { "not allowed" },
        config.reboot.max_per_hour,
        config.reboot.min_uptime,
        config.reboot.ack_timeout,
        config.reboot.down_timeout,
        config.log.level,
        state_dir.display(),
    )
}
