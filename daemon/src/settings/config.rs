//! The configuration: `agentd.toml`, then `agentd.toml.d/*.toml` in name
//! order, merged key by key.
//!
//! Each file is first read by itself, so that a mistake is reported with its
//! file and line; then the merged values are read once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use iotdm_core::decide::guard::Guards;
use iotdm_core::decide::windows::Window;
use iotdm_proto::Endpoint;
use iotdm_proto::model::MODEL_ID;
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::connection::dial::Transport;
use crate::connection::proxy::Proxy;
use crate::host::log::Level;

/// The host of Azure's provisioning service, for all regions. Source: "Communicate
/// with your DPS using the MQTT protocol".
const GLOBAL_ENDPOINT: &str = "global.azure-devices-provisioning.net";

/// The whole configuration, with defaults for what is not given.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[hub]`
    pub hub: HubConfig,
    /// `[provisioning]`
    pub provisioning: ProvisioningConfig,
    /// `[reboot]`
    pub reboot: RebootConfig,
    /// `[health]`
    pub health: HealthConfig,
    /// `[preflight]`
    pub preflight: PreflightConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
    /// `[log]`
    pub log: LogConfig,
    /// The file that the value of `hub.proxy` came from: it may hold a password.
    #[serde(skip)]
    pub proxy_file: Option<PathBuf>,
}

/// Which hub, and how it is connected to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// The file with the connection string, instead of the systemd credential.
    pub connection_string_file: Option<PathBuf>,
    /// The PEM file with the device's certificate, where it has one instead of
    /// a key.
    pub certificate_file: Option<PathBuf>,
    /// The PEM file with the certificate's key.
    pub private_key_file: Option<PathBuf>,
    /// A PEM file of CAs that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What carries MQTT.
    pub transport: Transport,
    /// The proxy on the way to the hub.
    pub proxy: Option<Proxy>,
    /// How often an idle connection is shown to be alive: 1 to 1177 s, since
    /// the hub waits 1.5 times as long but never above 1767 s.
    #[serde(deserialize_with = "keep_alive")]
    pub keep_alive: Duration,
    /// For how long a token is valid: 5 s to 365 days. Each token is renewed before
    /// its end.
    #[serde(deserialize_with = "sas_ttl")]
    pub sas_ttl: Duration,
    /// The digital twin model that the device says it follows, if any: by default the
    /// daemon's own.
    #[serde(deserialize_with = "model_id")]
    pub model_id: Option<String>,
}

/// The device provisioning service, which tells a device its hub.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProvisioningConfig {
    /// The service's instance; without it, no service is asked.
    #[serde(deserialize_with = "id_scope")]
    pub id_scope: Option<String>,
    /// The device's name for itself; by default the host's name.
    pub registration_id: Option<String>,
    /// Where the service is.
    #[serde(deserialize_with = "endpoint")]
    pub global_endpoint: Endpoint,
    /// The file with the device's key, in base64; without it, the hub's
    /// certificate is shown.
    pub symmetric_key_file: Option<PathBuf>,
}

/// How the machine is rebooted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RebootConfig {
    /// What carries the reboot out.
    pub backend: BackendKind,
    /// How long a simulated reboot takes: up to a minute.
    #[serde(deserialize_with = "simulate_duration")]
    pub simulate_duration: Duration,
    /// Whether an operator may pass over block inhibitors.
    pub allow_inhibitor_override: bool,
    /// Whether an operator may pass over preflight checks that object.
    pub allow_preflight_override: bool,
    /// How many requested reboots may begin within an hour: 1 to 60. Whatever it is, at
    /// most 30 requests are granted within an hour.
    #[serde(deserialize_with = "max_per_hour")]
    pub max_per_hour: usize,
    /// How long the machine stays up before it is rebooted on request: up to a
    /// day.
    #[serde(deserialize_with = "min_uptime")]
    pub min_uptime: Duration,
    /// In which spans of local time the machine may be rebooted; none is always.
    #[serde(deserialize_with = "windows")]
    pub windows: Vec<Window>,
    /// How long before a window's end nothing begins any more: up to a day.
    #[serde(deserialize_with = "window_reserve")]
    pub window_reserve: Duration,
    /// Over how much of a window, from its opening, the devices begin that have waited
    /// for it: up to a day.
    #[serde(deserialize_with = "window_spread")]
    pub window_spread: Duration,
    /// Whether the daemon itself asks for a reboot where the machine needs one.
    pub when_required: WhenRequired,
    /// How long to wait for the hub to acknowledge what a reboot waits for:
    /// 100 ms to 5 minutes.
    #[serde(deserialize_with = "ack_timeout")]
    pub ack_timeout: Duration,
    /// How long the machine may take to go down: 1 s to an hour.
    #[serde(deserialize_with = "down_timeout")]
    pub down_timeout: Duration,
}

/// What carries out a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// systemd's login manager.
    Logind,
    /// Nothing: the reboot is pretended.
    Simulate,
}

/// Whether the daemon itself asks for a reboot where the machine needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenRequired {
    /// The need is only reported.
    Off,
    /// In the next window.
    Window,
}

/// What counts as healthy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// The units that have to be active.
    #[serde(deserialize_with = "units")]
    pub units: Vec<String>,
    /// The units whose failure does not matter.
    #[serde(deserialize_with = "units")]
    pub ignore_units: Vec<String>,
    /// How long a boot may take to finish: 1 s to a day.
    #[serde(deserialize_with = "wait")]
    pub wait: Duration,
}

/// The checks of whether the machine would come back from a reboot.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreflightConfig {
    /// How long all checks together may take: 3 to 60 whole seconds, of which each
    /// has a third.
    #[serde(deserialize_with = "preflight_timeout")]
    pub timeout: Duration,
}

/// The daemon's numbers, for monitoring.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether they are written to a file in the runtime directory.
    pub textfile: bool,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: Level,
}

impl Default for HubConfig {
    fn default() -> Self {
        HubConfig {
            connection_string_file: None,
            certificate_file: None,
            private_key_file: None,
            ca_file: None,
            transport: Transport::Mqtt,
            proxy: None,
            keep_alive: Duration::from_secs(4 * 60),
            sas_ttl: Duration::from_secs(60 * 60),
            model_id: Some(MODEL_ID.to_owned()),
        }
    }
}

impl Default for ProvisioningConfig {
    fn default() -> Self {
        // The constant is a host name, as a test sees.
        #[allow(clippy::expect_used)]
        let global_endpoint = GLOBAL_ENDPOINT.parse().expect("a host name");
        ProvisioningConfig {
            id_scope: None,
            registration_id: None,
            global_endpoint,
            symmetric_key_file: None,
        }
    }
}

impl Default for RebootConfig {
    fn default() -> Self {
        RebootConfig {
            backend: BackendKind::Logind,
            simulate_duration: Duration::from_secs(20),
            allow_inhibitor_override: false,
            allow_preflight_override: false,
            max_per_hour: 6,
            min_uptime: Duration::ZERO,
            windows: Vec::new(),
            window_reserve: Duration::from_secs(10 * 60),
            window_spread: Duration::from_secs(30 * 60),
            when_required: WhenRequired::Off,
            ack_timeout: Duration::from_secs(5),
            down_timeout: Duration::from_secs(5 * 60),
        }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig { units: Vec::new(), ignore_units: Vec::new(), wait: Duration::from_secs(5 * 60) }
    }
}

impl Default for PreflightConfig {
    fn default() -> Self {
        PreflightConfig { timeout: Duration::from_secs(15) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: Level::Info }
    }
}

impl Config {
    /// Reads `file`, if it is there or `required`, and then the drop-ins in
    /// `file` + `.d`.
    pub fn load(file: &Path, required: bool) -> anyhow::Result<Self> {
        let mut merged = Table::new();
        let mut files = drop_ins(file)?;
        files.insert(0, file.to_owned());
        let (mut proxy_file, mut when_required) = (None, None);
        for path in files {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound && path == file && !required => {
                    continue;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            };
            let table = parse(&path, &text)?;
            if table.get("hub").is_some_and(|hub| hub.get("proxy").is_some()) {
                proxy_file = Some(path.clone());
            }
            if table.get("reboot").is_some_and(|reboot| reboot.get("when_required").is_some()) {
                when_required = Some(format!("{}:{}: ", path.display(), line_of(&text, "when_required")));
            }
            merge(&mut merged, table);
        }
        let config =
            Config::deserialize(Value::Table(merged)).context("the merged configuration is not valid")?;
        let RebootConfig { when_required: wanted, windows, .. } = &config.reboot;
        ensure!(
            *wanted == WhenRequired::Off || !windows.is_empty(),
            "{}reboot.when_required is \"window\", but reboot.windows has no window: set one, or when_required = \
             \"off\"",
            when_required.unwrap_or_default()
        );
        Ok(Config { proxy_file, ..config })
    }
}

/// The drop-ins of `file`, in name order.
fn drop_ins(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut dir = file.to_owned().into_os_string();
    dir.push(".d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.with_context(|| format!("cannot read {}", dir.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

/// Reads one file; an error names it, the line and the key.
fn parse(path: &Path, text: &str) -> anyhow::Result<Table> {
    let checked = toml::from_str::<Config>(text);
    checked.and_then(|_| toml::from_str(text)).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.get(..at).map_or(0, |before| before.matches('\n').count());
        let source = text.lines().nth(line).unwrap_or_default();
        let key = source.split_once('=').map_or("", |(key, _)| key.trim());
        let message = error.message();
        // In `hub.keep_alive`, the last part is what a message would have.
        let last = key.rsplit('.').next().unwrap_or_default();
        let named = if message.contains(last) { String::new() } else { format!("{key}: ") };
        anyhow!("{}:{}: {named}{message}", path.display(), line + 1)
    })
}

/// The number of the line on which the `key`, which the text has, is set.
fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        line.split('#').next().and_then(|line| line.split_once('=')).is_some_and(|(set, _)| set.contains(key))
    };
    text.lines().position(sets).map_or(1, |line| line + 1)
}

/// Puts the values of `other` over those of `target`, table by table.
fn merge(target: &mut Table, other: Table) {
    for (key, value) in other {
        match (target.get_mut(&key), value) {
            (Some(Value::Table(target)), Value::Table(other)) => merge(target, other),
            (_, value) => {
                target.insert(key, value);
            }
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    let wrong = || serde::de::Error::custom(format!("{text:?} is not a duration such as 5s, 10m or 1h"));
    parsed.ok_or_else(wrong)
}

/// A duration from `least` to `most` seconds.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D, least: f64, most: f64) -> Result<Duration, D::Error> {
    let value = duration(deserializer)?;
    let seconds = value.as_secs_f64();
    if (least..=most).contains(&seconds) {
        return Ok(value);
    }
    Err(serde::de::Error::custom(format!("must be from {least} s to {most} s, not {seconds} s")))
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A model's name, or an empty text for none. Source: "Digital Twins Definition
/// Language", DTMI.
fn model_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_:;.".contains(&b);
    if text.len() <= 128 && text.starts_with("dtmi:") && text.bytes().all(fits) {
        return Ok(Some(text));
    }
    Err(serde::de::Error::custom(format!(
        "{text:?} is not a model such as dtmi:com:example:Gateway;1, nor \"\" for none"
    )))
}

/// An id scope, which the service makes of letters, digits and hyphens.
fn id_scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(Some(text));
    }
    Err(serde::de::Error::custom(format!("{text:?} is not an id scope such as 0ne00000000")))
}

fn preflight_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_secs(bounded(deserializer, 3.0, 60.0)?.as_secs()))
}

fn keep_alive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let keep_alive = bounded(deserializer, 1.0, 1177.0)?;
    if keep_alive.subsec_nanos() == 0 {
        return Ok(keep_alive);
    }
    // CONNECT tells the hub whole seconds.
    Err(serde::de::Error::custom("must be in whole seconds"))
}

fn sas_ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 5.0, 365.0 * 24.0 * 60.0 * 60.0)
}

fn simulate_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 0.0, 60.0)
}

fn max_per_hour<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let value = i64::deserialize(deserializer)?;
    let wrong =
        || serde::de::Error::custom(format!("must be from 1 to {}, not {value}", Guards::MAX_PER_HOUR));
    let count = usize::try_from(value).ok().filter(|count| (1..=Guards::MAX_PER_HOUR).contains(count));
    count.ok_or_else(wrong)
}

fn min_uptime<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 0.0, 24.0 * 60.0 * 60.0)
}

fn window_reserve<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 0.0, 24.0 * 60.0 * 60.0)
}

fn window_spread<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 0.0, 24.0 * 60.0 * 60.0)
}

/// A list of windows, or a single one.
fn windows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Window>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(list) => list.into_iter().map(window).collect(),
        single => Ok(vec![window(single)?]),
    }
}

fn window<E: serde::de::Error>(value: Value) -> Result<Window, E> {
    let text = value.as_str().ok_or_else(|| E::custom(format!("{value} is not a window in quotes")))?;
    text.parse().map_err(E::custom)
}

/// A list of units, or a single one.
fn units<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(list) => list.into_iter().map(unit).collect(),
        single => Ok(vec![unit(single)?]),
    }
}

/// A unit's name, with its kind. Source: systemd.unit(5).
fn unit<E: serde::de::Error>(value: Value) -> Result<String, E> {
    const KINDS: [&str; 11] = [
        "service",
        "socket",
        "device",
        "mount",
        "automount",
        "swap",
        "target",
        "path",
        "timer",
        "slice",
        "scope",
    ];
    let fits = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let is_unit = |text: &str| {
        let kind = text.rsplit_once('.').filter(|(name, _)| !name.is_empty() && !name.ends_with('@'));
        text.len() < 256 && text.bytes().all(fits) && kind.is_some_and(|(_, kind)| KINDS.contains(&kind))
    };
    let text = value.as_str().filter(|text| is_unit(text));
    text.map(str::to_owned).ok_or_else(|| {
        E::custom(format!("{value} is not a unit's whole name such as \"gateway-app.service\""))
    })
}

fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 1.0, 24.0 * 60.0 * 60.0)
}

fn ack_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 0.1, 300.0)
}

fn down_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(deserializer, 1.0, 3600.0)
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    fn dir(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let file = dir.path().join("agentd.toml");
        (dir, file)
    }

    #[test]
    fn drop_ins_override_key_by_key_in_name_order() {
        let (_dir, file) = dir(&[
            ("agentd.toml", "[hub]\nkeep_alive = \"1m\"\nsas_ttl = \"2h\"\n[log]\nlevel = \"warn\"\n"),
            ("agentd.toml.d/20-b.toml", "[hub]\nkeep_alive = \"3m\"\n"),
            (
                "agentd.toml.d/10-a.toml",
                "hub.keep_alive = \"2m\"\nreboot.backend = \"simulate\"\nreboot.windows = \"Sun 01:00-02:00\"\n",
            ),
            ("agentd.toml.d/README", "not TOML at all"),
        ]);
        let config = Config::load(&file, true).unwrap();
        assert_eq!(config.hub.keep_alive, Duration::from_secs(180));
        assert_eq!(config.hub.sas_ttl, Duration::from_secs(7200));
        assert_eq!(config.reboot.backend, BackendKind::Simulate);
        assert_eq!(config.log.level, Level::Warn);
        assert_eq!(config.reboot.down_timeout, Duration::from_secs(300));
        assert_eq!(config.reboot.windows.len(), 1);
    }

    #[test]
    fn windows_and_when_they_are_used_may_stand_in_two_files() {
        let (_dir, file) = dir(&[
            ("agentd.toml", "[reboot]\nwhen_required = \"window\"\n"),
            ("agentd.toml.d/windows.toml", "[reboot]\nwindows = \"Sun 01:00-02:00\"\n"),
        ]);
        assert_eq!(Config::load(&file, true).unwrap().reboot.when_required, WhenRequired::Window);
        fs::write(file.with_extension("toml.d").join("z.toml"), "[reboot]\nwindows = []\n").unwrap();
        let error = format!("{:#}", Config::load(&file, true).unwrap_err());
        assert!(error.contains("agentd.toml:2: reboot.when_required is \"window\""), "{error}");
    }

    #[test]
    fn a_missing_file_is_the_defaults_unless_it_was_asked_for() {
        let (_dir, file) = dir(&[("agentd.toml.d/a.toml", "log.level = \"debug\"")]);
        assert_eq!(Config::load(&file, false).unwrap().log.level, Level::Debug);
        let error = format!("{:#}", Config::load(&file, true).unwrap_err());
        assert!(error.contains("agentd.toml"), "{error}");
    }

    #[test]
    fn each_mistake_names_file_line_and_key() {
        for (text, line, words) in [
            ("[hub]\nkeepalive = \"1m\"\n", 2, "keepalive"),
            ("\n[network]\n", 2, "network"),
            ("[hub]\n\nkeep_alive = 5\n", 3, "keep_alive"),
            ("[hub]\nkeep_alive = \"5 parsecs\"\n", 2, "keep_alive"),
            ("[hub]\nkeep_alive = \"20m\"\n", 2, "keep_alive: must be from 1 s to 1177 s, not 1200 s"),
            ("[hub]\nsas_ttl = \"-1h\"\n", 2, "sas_ttl"),
            ("[hub]\nsas_ttl = \"1s\"\n", 2, "sas_ttl: must be from 5 s"),
            ("[hub]\ntransport = \"amqp\"\n", 2, "transport: unknown variant `amqp`"),
            ("[hub]\nproxy = \"https://p:3128\"\n", 2, "proxy is not of the form http://"),
            ("[hub]\nproxy = \"http://u:secret@p:x\"\n", 2, "proxy is not of the form http://"),
            ("[hub]\nproxy = \"http://u:secret\"\n", 2, "proxy is not of the form http://"),
            ("[hub]\nproxy = \"http://secret@p:3128\"\n", 2, "proxy is not of the form http://"),
            ("[hub]\nkeep_alive = \"1500ms\"\n", 2, "keep_alive: must be in whole seconds"),
            ("[hub]\nmodel_id = \"Gateway\"\n", 2, "model_id: \"Gateway\" is not a model such as"),
            ("[provisioning]\nid_scope = \"\"\n", 2, "id_scope: \"\" is not an id scope"),
            ("[provisioning]\nglobal_endpoint = \"a b\"\n", 2, "global_endpoint: \"a b\" is not a host name"),
            ("[reboot]\nack_timeout = \"0s\"\n", 2, "ack_timeout: must be from 0.1 s to 300 s, not 0 s"),
            ("[reboot]\nbackend = \"kexec\"\n", 2, "backend: unknown variant `kexec`"),
            ("[reboot]\nmax_per_hour = 0\n", 2, "max_per_hour: must be from 1 to 60, not 0"),
            ("[reboot]\nmax_per_hour = \"6\"\n", 2, "max_per_hour"),
            ("[reboot]\nmin_uptime = \"25h\"\n", 2, "min_uptime: must be from 0 s to 86400 s, not 90000 s"),
            ("[reboot]\nwindows = \"at night\"\n", 2, "windows: \"at night\" is not a window such as"),
            ("[reboot]\nwindows = [\"02:00-04:00\", 5]\n", 2, "windows: 5 is not a window"),
            (
                "[reboot]\nwindow_reserve = \"25h\"\n",
                2,
                "window_reserve: must be from 0 s to 86400 s, not 90000 s",
            ),
            ("[reboot]\nwindow_spread = 30\n", 2, "window_spread: "),
            ("[reboot]\nwhen_required = \"always\"\n", 2, "when_required: unknown variant `always`"),
            (
                "[reboot]\n# Not \"off\"\nwhen_required = \"window\"\n",
                3,
                "reboot.when_required is \"window\", but reboot.windows has",
            ),
            (
                "[hub]\n\n[reboot]\nwindows = []\nwhen_required = \"window\"\n",
                5,
                "reboot.when_required is \"window\"",
            ),
            (
                "reboot = { when_required = \"window\" }\n",
                1,
                "reboot.windows has no window: set one, or when_required",
            ),
            ("[reboot\n", 1, ""),
            (
                "[health]\nunits = [\"gateway-app\"]\n",
                2,
                "units: \"gateway-app\" is not a unit's whole name such as",
            ),
            ("[health]\nunits = \"app@.service\"\n", 2, "units: \"app@.service\" is not a unit's whole name"),
            ("[health]\nignore_units = [5]\n", 2, "ignore_units: 5 is not a unit's whole name"),
            ("[health]\nwait = \"0s\"\n", 2, "wait: must be from 1 s to 86400 s, not 0 s"),
            ("[log]\nlevel = \"loud\"\n", 2, "level"),
            ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", 3, "level"),
        ] {
            let (_dir, file) = dir(&[("agentd.toml", ""), ("agentd.toml.d/50-x.toml", text)]);
            let error = format!("{:#}", Config::load(&file, true).unwrap_err());
            assert!(error.contains(&format!("50-x.toml:{line}: ")), "{text}: {error}");
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    /// Whether a line of the shipped file has a key, which is commented out.
    fn is_key(line: &str) -> bool {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(char::is_alphabetic))
    }

    /// The keys that a file lays out as the shipped one does, as `section.key`, in
    /// alphabetical order.
    fn keys_in(text: &str) -> Vec<String> {
        let mut section = "";
        let mut keys = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if is_key(line) {
                let key = line[1..].split('=').next().unwrap_or_default();
                keys.push(format!("{section}.{}", key.trim()));
            }
        }
        keys.sort();
        keys
    }

    #[test]
    fn the_shipped_file_tells_defaults_from_examples() {
        let shipped = include_str!("../../../config/agentd.toml");
        let (mut section, mut comment) = ("", String::new());
        for line in shipped.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if is_key(line) {
                let setting = format!("{section}.{}", &line[1..]);
                let is_example = toml::from_str::<Config>(&setting).unwrap() != Config::default();
                assert_eq!(comment.contains("By default"), is_example, "{setting}");
            }
            match line.strip_prefix("# ") {
                Some(words) => comment = format!("{comment} {words}"),
                None => comment.clear(),
            }
        }
    }

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agentd.toml");
        let loaded = |file: &Path| Config { proxy_file: None, ..Config::load(file, true).unwrap() };
        assert_eq!(loaded(&path), Config::default());
        let shipped = fs::read_to_string(path).unwrap();
        assert_eq!(keys_in(&shipped), keys::all(), "the file lists every key");
        let uncomment = |line: &str| if is_key(line) { line[1..].to_owned() } else { line.to_owned() };
        let text: Vec<String> = shipped.lines().map(uncomment).collect();
        let (_dir, file) = dir(&[("agentd.toml", &text.join("\n"))]);
        let uncommented = loaded(&file);
        let mut expected = Config::default();
        expected.hub.certificate_file = Some("/etc/iotdm/device.pem".into());
        expected.hub.private_key_file = Some("/etc/iotdm/device.key".into());
        expected.hub.proxy = Some("http://proxy.example:3128".parse().unwrap());
        expected.provisioning.id_scope = Some("0ne00000000".into());
        expected.provisioning.registration_id = Some("gateway1".into());
        expected.provisioning.symmetric_key_file =
            Some("/run/credentials/iotdm-agentd.service/symmetric-key".into());
        expected.hub.connection_string_file =
            Some("/run/credentials/iotdm-agentd.service/connection-string".into());
        expected.hub.ca_file = Some("/etc/ssl/certs/ca-certificates.crt".into());
        expected.reboot.windows = vec!["Mon..Fri 02:00-04:00".parse().unwrap()];
        expected.health.units = vec!["gateway-app.service".to_owned()];
        expected.health.ignore_units = vec!["apt-daily.service".to_owned()];
        assert_eq!(uncommented, expected);
    }
}
