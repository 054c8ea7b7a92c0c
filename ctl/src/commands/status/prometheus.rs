//! `status -o prometheus`: the devices as numbers, in the text format that
//! Prometheus and node_exporter's textfile collector read.
//!
//! Source: Prometheus, "Exposition formats", text-based format.

use std::io;

use iotdm_proto::Time;
use iotdm_proto::health::HealthState;
use serde_json::Value;

use super::row::DeviceStatus;
use crate::output::{Output, printable};

/// A measured value of a device, of which there may be several with labels of their
/// own.
type Samples = Vec<(Vec<(&'static str, String)>, f64)>;

/// One metric: its name, what it tells, its kind, and its samples of a device.
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    of: fn(&DeviceStatus) -> Samples,
}

const METRICS: [Metric; 11] = [
    Metric {
        name: "iotdm_device_connected",
        help: "Whether the hub says that the device is connected.",
        kind: "gauge",
        of: |status| one(Some(f64::from(u8::from(status.is_connected())))),
    },
    Metric {
        name: "iotdm_device_last_reboot_timestamp_seconds",
        help: "When the running kernel booted after a reboot that the agent has seen.",
        kind: "gauge",
        of: |status| one(seconds(status.reported.reboot_time.as_ref())),
    },
    Metric {
        name: "iotdm_device_reboot_pending",
        help: "Whether a reboot is asked for that has no outcome yet.",
        kind: "gauge",
        of: |status| {
            let known = status.reported.known_status();
            let is_pending = status.is_wished_for() || known.is_some_and(|known| !known.is_final());
            one(status.reported.agent.is_some().then(|| f64::from(u8::from(is_pending))))
        },
    },
    Metric {
        name: "iotdm_device_reboot_status",
        help: "How far the newest request is, or what became of it: 1 for the status it has.",
        kind: "gauge",
        of: |status| {
            let word = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            let (state, code) = (word(status.reported.status()), word(status.reported.error_code()));
            match state.is_empty() {
                true => Vec::new(),
                false => vec![(vec![("status", state), ("error", code)], 1.0)],
            }
        },
    },
    Metric {
        name: "iotdm_device_reboot_required",
        help: "Whether the device says that it needs a reboot.",
        kind: "gauge",
        of: |status| {
            one(status.required().and_then(Value::as_bool).map(|required| f64::from(u8::from(required))))
        },
    },
    Metric {
        name: "iotdm_device_health",
        help: "How the device is by its service manager: 1 for the state it is in, else 0.",
        kind: "gauge",
        of: |status| {
            let state = status.health();
            let known = state.map(|_| HealthState::ALL).unwrap_or_default().iter();
            let sample = |known: &HealthState| {
                let is_it = state == Some(known.as_str());
                (vec![("state", known.as_str().to_owned())], f64::from(u8::from(is_it)))
            };
            known.map(sample).collect()
        },
    },
    Metric {
        name: "iotdm_device_failed_units",
        help: "How many units of the device are wrong.",
        kind: "gauge",
        of: |status| {
            let told = status.health().map(|_| status.reported.failed_count());
            one(told.and_then(|count| u32::try_from(count).ok()).map(f64::from))
        },
    },
    Metric {
        name: "iotdm_device_boots",
        help: "How many boots the agent has seen since it was installed.",
        kind: "gauge",
        of: |status| one(of_boot(status, "count")),
    },
    Metric {
        name: "iotdm_device_unclean_boots",
        help: "How many of them followed no orderly shutdown.",
        kind: "gauge",
        of: |status| one(of_boot(status, "uncleanCount")),
    },
    Metric {
        name: "iotdm_device_boot_info",
        help: "Why the device booted last.",
        kind: "gauge",
        of: |status| {
            let word = |key: &str| status.reported.boot.as_ref()?.get(key)?.as_str().map(str::to_owned);
            match word("cause") {
                Some(cause) => {
                    vec![(vec![("cause", cause), ("detail", word("detail").unwrap_or_default())], 1.0)]
                }
                None => Vec::new(),
            }
        },
    },
    Metric {
        name: "iotdm_device_agent_info",
        help: "Which version of the agent the device runs.",
        kind: "gauge",
        of: |status| match status.reported.agent_version().and_then(Value::as_str) {
            Some(version) => vec![(vec![("version", version.to_owned())], 1.0)],
            None => Vec::new(),
        },
    },
];

/// Prints the devices as numbers. A metric of which no device tells is left out.
pub(super) fn print(output: Output, statuses: &[DeviceStatus]) -> io::Result<()> {
    let mut lines = Vec::new();
    for Metric { name, help, kind, of } in METRICS {
        let mut samples = statuses.iter().flat_map(|status| {
            of(status).into_iter().map(move |(labels, value)| {
                let device = [("device", status.device().to_owned())];
                let labels = device
                    .into_iter()
                    .chain(labels)
                    .map(|(name, value)| format!("{name}=\"{}\"", escaped(&value)));
                format!("{name}{{{}}} {value}", labels.collect::<Vec<_>>().join(","))
            })
        });
        if let Some(first) = samples.next() {
            lines.extend([format!("# HELP {name} {help}"), format!("# TYPE {name} {kind}"), first]);
            lines.extend(samples);
        }
    }
    lines.iter().try_for_each(|line| output.line(format_args!("{line}")))
}

/// A sample without labels of its own, if there is a value.
fn one(value: Option<f64>) -> Samples {
    value.into_iter().map(|value| (Vec::new(), value)).collect()
}

/// A number that the device tells of its running boot.
fn of_boot(status: &DeviceStatus, key: &str) -> Option<f64> {
    status.reported.boot.as_ref()?.get(key)?.as_f64()
}

/// An instant in seconds since 1970.
fn seconds(instant: Option<&Value>) -> Option<f64> {
    let instant: Time = instant?.as_str()?.parse().ok()?;
    Some(instant.since(Time::from_unix_millis(0)).as_secs_f64())
}

/// A label's value as the format has it: a device can write anything there. Of the
/// escapes that text for terminals has, the format knows none.
fn escaped(value: &str) -> String {
    printable(value).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_ends_where_it_should() {
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\\\u000ab\\\\");
        assert_eq!(escaped("\u{1b}[2J"), "\\\\u001b[2J");
    }

    #[test]
    fn an_instant_in_seconds() {
        assert_eq!(seconds(Some(&Value::from("1970-01-01T00:01:00.500Z"))), Some(60.5));
        assert_eq!(seconds(Some(&Value::from("soon"))), None);
    }

    #[test]
    fn each_metric_has_the_form_that_is_asked_for() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        for Metric { name, help, .. } in METRICS {
            assert!(
                name.starts_with("iotdm_device_") && !name.ends_with("_total") && help.ends_with('.'),
                "{name}"
            );
        }
    }
}
