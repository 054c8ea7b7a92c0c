//! The arguments of `query` and `status`.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use iotdm_proto::DeviceId;

use crate::{device_ids, values};

const QUERY_HELP: &str = "\
Examples:
  iotdm-ctl query \"SELECT deviceId, connectionState FROM devices\"
  iotdm-ctl query \"SELECT * FROM devices WHERE tags.site = 'north'\" -o jsonl
  iotdm-ctl query \"SELECT * FROM devices\" --top 10
  iotdm-ctl query --ready-made unclean -o csv

Text and -o csv are tables; of whole twins they have the main columns, -o json has
everything. -o jsonl and csv are written page by page as they come.

With --module NAME (or module in ctl.toml) a query FROM devices is made one over the
modules of that name: FROM devices.modules WHERE moduleId = 'NAME' AND (...).

Ready-made:
  last-reboots    when each device was last booted and by what, and its newest
                  request with its reason
  unclean         whose last boot followed no orderly shutdown
  never-reported  which devices have never reported an agent
  waiting         whose reboot waits for an inhibitor or a window
  scheduled       whose reboot is to come, and when
  wishes          in whose twin a wish for a reboot stands, and what became of it
  needs-reboot    which devices say that they need a reboot, and why
  unhealthy       on which devices something is wrong, and what
  crashing        which devices booted after a panic or a watchdog's reset, or
                  three times or more without an orderly shutdown
  agents          how many devices have which version of the agent";

/// `query`
#[derive(Debug, Args)]
#[command(after_help = QUERY_HELP)]
#[command(group(ArgGroup::new("what").args(["sql", "ready_made"]).required(true)))]
pub struct QueryArgs {
    /// The query, in IoT Hub's query language
    pub sql: Option<String>,
    /// A query for a common question
    #[arg(long, value_name = "NAME")]
    pub ready_made: Option<ReadyMade>,
    /// At most so many rows
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub top: Option<usize>,
}

/// `--ready-made`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadyMade {
    /// When each device was last booted and by what, and its newest request
    LastReboots,
    /// Whose last boot followed no orderly shutdown
    Unclean,
    /// Which devices have never reported an agent
    NeverReported,
    /// Whose reboot waits for an inhibitor or a window
    Waiting,
    /// Whose reboot is to come, and when
    Scheduled,
    /// In whose twin a wish for a reboot stands, and what became of it
    Wishes,
    /// Which devices say that they need a reboot, and why
    NeedsReboot,
    /// On which devices something is wrong, and what
    Unhealthy,
    /// Which devices booted after a panic or a watchdog's reset, or three times or more
    /// without an orderly shutdown
    Crashing,
    /// How many devices have which version of the agent
    Agents,
}

impl ReadyMade {
    /// The query in IoT Hub's query language. A test holds its paths against the
    /// daemon's report.
    pub fn sql(self) -> &'static str {
        match self {
            ReadyMade::LastReboots => {
                "SELECT deviceId, properties.reported.rebootTime AS rebootTime, \
                 properties.reported.boot.cause AS cause, properties.reported.reboot.status AS newestRequest, \
                 properties.reported.reboot.reason AS reason \
                 FROM devices WHERE IS_DEFINED(properties.reported.rebootTime)"
            }
            ReadyMade::Unclean => {
                "SELECT deviceId, properties.reported.boot.bootTime AS bootTime, connectionState FROM devices \
                 WHERE properties.reported.boot.cause = 'unclean'"
            }
            ReadyMade::NeverReported => {
                "SELECT deviceId, status, connectionState, lastActivityTime FROM devices \
                 WHERE NOT IS_DEFINED(properties.reported.agent)"
            }
            ReadyMade::Waiting => {
                "SELECT deviceId, properties.reported.reboot.id AS id, \
                 properties.reported.reboot.requestedAt AS requestedAt, \
                 properties.reported.reboot.reason AS reason FROM devices \
                 WHERE properties.reported.reboot.status = 'waiting'"
            }
            ReadyMade::Scheduled => {
                "SELECT deviceId, properties.reported.reboot.id AS id, \
                 properties.reported.reboot.notBefore AS notBefore, \
                 properties.reported.reboot.reason AS reason FROM devices \
                 WHERE properties.reported.reboot.status = 'scheduled'"
            }
            // The query language compares no path with another one, so that what
            // became of the wish stands beside it.
            ReadyMade::Wishes => {
                "SELECT deviceId, connectionState, properties.desired.reboot.id AS wish, \
                 properties.desired.reboot.notBefore AS notBefore, properties.desired.reboot.deadline AS deadline, \
                 properties.reported.reboot.id AS newest, properties.reported.reboot.status AS status FROM devices \
                 WHERE IS_DEFINED(properties.desired.reboot.id)"
            }
            ReadyMade::NeedsReboot => {
                "SELECT deviceId, connectionState, properties.reported.rebootRequired.since AS since, \
                 properties.reported.rebootRequired.reasonCount AS reasonCount, \
                 properties.reported.rebootRequired.reasons AS reasons FROM devices \
                 WHERE properties.reported.rebootRequired.required = true"
            }
            ReadyMade::Unhealthy => {
                "SELECT deviceId, connectionState, properties.reported.health.state AS health, \
                 properties.reported.health.since AS since, \
                 properties.reported.health.failedCount AS failedCount, \
                 properties.reported.health.failedUnits AS failedUnits FROM devices \
                 WHERE properties.reported.health.state IN ['degraded', 'maintenance']"
            }
            ReadyMade::Crashing => {
                "SELECT deviceId, connectionState, properties.reported.boot.bootTime AS bootTime, \
                 properties.reported.boot.cause AS cause, properties.reported.boot.detail AS detail, \
                 properties.reported.boot.count AS boots, properties.reported.boot.uncleanCount AS unclean \
                 FROM devices WHERE IS_DEFINED(properties.reported.boot.detail) \
                 OR properties.reported.boot.uncleanCount >= 3"
            }
            ReadyMade::Agents => {
                "SELECT properties.reported.agent.version AS version, COUNT() AS devices FROM devices \
                 GROUP BY properties.reported.agent.version"
            }
        }
    }
}

const STATUS_HELP: &str = "\
Examples:
  iotdm-ctl status
  iotdm-ctl status gw1 -o json
  iotdm-ctl status --where \"tags.site = 'north' AND properties.reported.reboot.status = 'failed'\"
  iotdm-ctl status --where \"tags.site = 'north'\" --watch
  iotdm-ctl status -o prometheus > /var/lib/prometheus/node-exporter/iotdm.prom

OUTCOME is that of the newest request, with its own time where that is not the last
reboot's; a wish that its device has not taken up is shown as wished for. HEALTH names what
is wrong, and is left out where nobody tells it. A terminal that
is too narrow gets shorter times and fewer columns; elsewhere nothing is left out.

With --module NAME (or module in ctl.toml) it is about that module of each device, which
the daemon then is: its connection, and what it reports. --where is about the device's
twin all the same, where the tags are, and --where-module about the module's.

With -o json, one DEVICE gives an object, else an array. Keys: deviceId, moduleId (of a
module), connectionState, wish (in the desired properties, until its outcome is known),
and as the device reports them: rebootTime, reboot, boot, agent, health, rebootRequired,
deviceInformation. With -o csv the last column is the time of the outcome. With -o prometheus it prints numbers in Prometheus's text
format, iotdm_device_connected{device=\"gw1\"} and others, for node_exporter's textfile
collector.

--watch keeps the devices on the screen, those first that need attention (failed or
unhealthy, on the way, disconnected, with a reboot ahead or in need of one), until Ctrl-C.
Without a terminal it prints a line for each change, with -o jsonl the object. It looks
every 10 s, or more rarely where there are many devices: a hub of one unit S1 takes 20
queries in a minute, and each hundred devices take one.";

/// `status`
#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub struct StatusArgs {
    /// The devices [default: all]
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer(), conflicts_with_all = ["condition", "where_module"])]
    pub devices: Vec<DeviceId>,
    /// The devices that this condition of the query language selects
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// With --module: the devices of whose module this condition holds; with --where,
    /// only those of which that holds as well
    #[arg(long, value_name = "CONDITION")]
    pub where_module: Option<String>,
    /// Keep them on the screen
    #[arg(long)]
    pub watch: bool,
    /// With --watch: how often to look [default: 10s, or what the smallest hub takes]
    #[arg(long, value_name = "DURATION", requires = "watch", value_parser = values::interval)]
    pub interval: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use iotdm_proto::health::HealthState;
    use iotdm_proto::report::{BootCause, RebootStatus};

    use super::*;
    use crate::reported::tests::full_report;

    #[test]
    fn the_ready_made_queries_are_in_the_help_and_name_what_the_daemon_reports() {
        let reported = serde_json::to_value(full_report()).unwrap();
        for query in ReadyMade::value_variants() {
            let name = query.to_possible_value().unwrap();
            assert!(
                QUERY_HELP.contains(&format!("\n  {} ", name.get_name())),
                "{query:?} is not in the help"
            );
            let paths = query.sql().split("properties.reported.").skip(1);
            let end = |c: char| !c.is_ascii_alphanumeric() && c != '.';
            let paths: Vec<String> = paths
                .filter_map(|rest| rest.split(end).next())
                .map(|path| format!("/{}", path.replace('.', "/")))
                .collect();
            assert!(!paths.is_empty(), "{query:?}");
            for path in paths {
                assert!(reported.pointer(&path).is_some(), "{query:?}: {path}");
            }
        }
        assert!(ReadyMade::Unclean.sql().contains(&format!("cause = '{}'", BootCause::Unclean)));
        let states = [HealthState::Degraded, HealthState::Maintenance].map(|state| format!("'{state}'"));
        assert!(ReadyMade::Unhealthy.sql().contains(&format!("IN [{}]", states.join(", "))));
        assert!(ReadyMade::Scheduled.sql().contains(&format!("status = '{}'", RebootStatus::Scheduled)));
        assert!(ReadyMade::Waiting.sql().contains(&format!("status = '{}'", RebootStatus::Waiting)));
    }

    #[test]
    fn the_help_of_status_names_every_reported_key() {
        for key in iotdm_proto::report::Report::KEYS {
            assert!(STATUS_HELP.contains(key), "{key}");
        }
    }
}
