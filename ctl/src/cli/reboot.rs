//! The arguments of `reboot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use iotdm_proto::request::OnPreflight;
use iotdm_proto::request::{Operator, Reason, WAIT_SECONDS};
use iotdm_proto::{DeviceId, OnInhibitor, RequestId, Time};
use serde::{Deserialize, Serialize};

use super::call_timeouts::CallTimeouts;
use crate::values::{MaxFailures, TwinPath};
use crate::{device_ids, journals, values};

const REBOOT_HELP: &str = "\
The request carries an id, so that its outcome is told from every other reboot's,
even when the reply gets lost. Giving the --id of an earlier request again causes
no second reboot. A device whose rebootDevice does not know ids counts as rebooted
when its reported rebootTime changes.

With --when-online the request is a wish in the device's twin, which the device finds
when it connects; a new wish takes the place of an older one. It is taken out of the
twin once its outcome is known, or by iotdm-ctl cancel.

Several devices are rebooted a few at a time, --canary ones first: if one of them
is not back as it should be, no other is touched. What is asked of whom is written
to a journal in $XDG_STATE_HOME/iotdm/reboots (~/.local/state/iotdm/reboots) before
it is sent. After Ctrl-C or a crash, --resume FILE waits for what was sent and goes
on with the rest, under the same rules, and reboots no device twice. Devices that
were offline are asked then; those that failed only with --retry-failed.

Devices that --where selects are rebooted with care: one canary, and a stop once more
than a tenth of them, and at least two, have failed. --canary 0 and --max-failures all
lift that. A device whose outcome is not known in time keeps its place in its group
(--per), of which no other is then started. When the hub itself goes away, it is
waited for, up to 10 minutes, and its devices get 2 minutes to connect again.

A device that reports its health is waited for until it is healthy again: its boot has
finished, and no unit is wrong that was not when it accepted the request. Units that had
failed before are named, and counted only by --until healthy=strict. One that has to be
active (health.units of the device's configuration) always counts. A device that comes back
unhealthy or without an orderly shutdown has failed, and keeps its place in its group
until --resume finds it healthy. With --soak the canaries are
watched for so long after that: one that turns unhealthy, boots again or goes away
has failed, too.

With --if-required a device that does not need a reboot is left alone. Its outcome is
notNeeded, which is no failure; the next device is the canary then.

Where the daemon is a module of the device (--module NAME, or module in ctl.toml), the
module is called, and its twin read. --where, --per and --order-by are about the device's
twin all the same, where the tags are, and --where-module is about the module's. A run's
journal knows the module. --job is for devices alone, as the hub's jobs are.

With --job the hub calls the devices, also when this program is gone. It is followed
until each has replied, and an outcome of accepted says no more than that.

With --as-configuration the request is a wish of an automatic device configuration of
the hub's, which reaches each device that --where selects, now or later, once: all at
once, without canaries, so give a --deadline. It is followed until all that it targets
are accounted for, and stays in force until iotdm-ctl configuration delete. Devices
whose agent does not know --on-preflight or --if-required are left out by its target
condition. With --module it is one of modules, which --where-module selects: the hub
looks at the module's twin alone. It needs the right to write the registry as well, as a policy with registryReadWrite has it.

Examples:
  iotdm-ctl reboot gw1 --reason 'kernel update'
  iotdm-ctl reboot gw1 --at 2026-11-30T02:00:00Z --on-inhibitor wait --no-wait
  iotdm-ctl reboot gw1 --when-online --deadline 2026-12-01T00:00:00Z --no-wait
  iotdm-ctl reboot --where \"tags.site = 'north'\" --dry-run
  iotdm-ctl reboot --where \"tags.site = 'north'\" --canary 5 --max-in-flight 50 --max-failures 10
  iotdm-ctl reboot --where \"tags.site != ''\" --at-most 1 --per tags.site --max-in-flight 50
  iotdm-ctl reboot --where \"tags.site = 'north'\" --if-required --canary 2 --soak 10m
  iotdm-ctl reboot --devices-from gateways.txt --yes -o jsonl
  iotdm-ctl reboot --module iotdm --where \"tags.site = 'north'\"
  iotdm-ctl reboot --where \"tags.ring = 'all'\" --as-configuration kernel-2026-12 --deadline 2026-12-24T00:00:00Z

With -o json, one DEVICE gives an object and several an array; jsonl gives a line
for each as it ends. Keys: device, id, outcome (accepted, checked, completed,
unclean, unhealthy, failed, cancelled, notNeeded, refused, offline, noSuchDevice,
timedOut, notAuthorized, throttled, error, notStarted), and where they apply: reply
{status, payload}, rebootTime, reboot, boot, health and rebootRequired (as the device
reports them), seconds (from the call to the outcome), error, note (what else there is
to know, such as units that had failed before).

It needs the right to connect as a service, as the policy \"service\" has it.";

/// `reboot`
#[derive(Debug, Args)]
#[command(after_help = REBOOT_HELP)]
#[command(group(ArgGroup::new("which").args(["devices", "condition", "where_module", "devices_from", "resume"]).required(true).multiple(true)))]
#[command(group(ArgGroup::new("by_twin").args(["when_online", "as_configuration"])))]
pub struct RebootArgs {
    /// Which devices.
    #[command(flatten)]
    pub which: WhichArgs,
    /// What is asked of the devices.
    #[command(flatten)]
    pub request: RequestArgs,
    /// How long to wait for what.
    #[command(flatten)]
    pub waiting: WaitArgs,
    /// How to go through many devices.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Whether the hub is to do it, by a configuration.
    #[command(flatten)]
    pub configuration: AsConfigurationArgs,
}

/// Which devices to reboot.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// The devices
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer(), conflicts_with_all = ["condition", "where_module", "devices_from", "resume"])]
    pub devices: Vec<DeviceId>,
    /// The devices that this condition of the query language selects
    #[arg(long = "where", value_name = "CONDITION", help_heading = FLEET)]
    pub condition: Option<String>,
    /// With --module: the devices of whose module this condition holds; with --where,
    /// only those of which that holds as well
    #[arg(long, value_name = "CONDITION", help_heading = FLEET)]
    pub where_module: Option<String>,
    /// The devices named in this file, or on stdin (-), one on a line
    #[arg(long, value_name = "FILE", help_heading = FLEET, conflicts_with_all = ["condition", "where_module", "resume"])]
    pub devices_from: Option<PathBuf>,
    /// Go on with the run that wrote this journal
    #[arg(long, value_name = "FILE", add = journals::completer(), help_heading = FLEET, conflicts_with_all = ["condition", "where_module", "reason", "operator", "id", "delay", "at", "on_inhibitor", "on_preflight", "wait_seconds", "check", "dry_run", "when_online", "deadline", "if_required"])]
    pub resume: Option<PathBuf>,
}

/// What is asked of each device.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// Why; goes to the device's journal and twin
    #[arg(long)]
    pub reason: Option<Reason>,
    /// Who asks; goes to the device's journal and twin [default: user and host]
    #[arg(long, value_name = "NAME")]
    pub operator: Option<Operator>,
    /// The id of the request [default: a new UUID]
    #[arg(long)]
    pub id: Option<RequestId>,
    /// Reboot so much later, at most 7 days
    #[arg(long, value_name = "DURATION", value_parser = values::delay)]
    pub delay: Option<Duration>,
    /// Reboot at this time (RFC 3339), within 7 days
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    pub at: Option<Time>,
    /// What to do when a program on the device inhibits shutdown
    #[arg(long, value_name = "WHAT", value_parser = values::on_inhibitor())]
    pub on_inhibitor: Option<OnInhibitor>,
    /// What to do when a preflight check on the device objects
    #[arg(long, value_name = "WHAT", value_parser = values::on_preflight(), conflicts_with = "job")]
    pub on_preflight: Option<OnPreflight>,
    /// How long the device waits for the inhibitor or the checks, in seconds
    /// [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(WAIT_SECONDS))]
    pub wait_seconds: Option<u64>,
    /// Reboot only a device that says that it needs a reboot
    #[arg(long)]
    pub if_required: bool,
    /// Ask what would happen, and change nothing
    #[arg(long)]
    pub check: bool,
    /// Leave the request in the twin, for a device that is offline now
    #[arg(long, conflicts_with_all = ["check", "dry_run", "connect_timeout", "response_timeout"])]
    pub when_online: bool,
    /// With --when-online or --as-configuration: do not reboot after this time (RFC 3339)
    #[arg(long, value_name = "TIME", requires = "by_twin")]
    pub deadline: Option<Time>,
}

/// How long to wait for what.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Do not wait for the outcome
    #[arg(long)]
    pub no_wait: bool,
    /// How long the call may take.
    #[command(flatten)]
    pub timeouts: CallTimeouts,
    /// How long to wait for the outcome, from the time of the reboot on [default: 15m
    /// where it is waited until the device is healthy, else 10m]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub wait_timeout: Option<Duration>,
    /// How often to look for the outcome
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::interval)]
    pub interval: Duration,
}

/// How long to wait for an outcome, if nothing else is said.
const WAIT: Duration = Duration::from_secs(10 * 60);

/// The same where the device is to be healthy: a boot that takes long finishes
/// after the daemon has connected.
const WAIT_UNTIL_HEALTHY: Duration = Duration::from_secs(15 * 60);

impl WaitArgs {
    /// How long to wait for the outcome, which comes only once the device is healthy,
    /// or with its boot.
    pub fn wait_timeout(&self, until_healthy: bool) -> Duration {
        self.wait_timeout.unwrap_or(if until_healthy { WAIT_UNTIL_HEALTHY } else { WAIT })
    }
}

/// What makes a reboot complete (`--until`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Until {
    /// The machine has booted anew
    Booted,
    /// Nothing is wrong that was not wrong before
    Healthy,
    /// Nothing is wrong
    #[value(name = "healthy=strict")]
    #[serde(rename = "healthy=strict")]
    Strict,
}

/// The heading in the help text above the options for many devices.
const FLEET: &str = "Many devices";

/// How to go through many devices.
#[derive(Debug, Args)]
#[command(next_help_heading = FLEET)]
pub struct FleetArgs {
    /// At most so many devices are between their call and their outcome [default: 10]
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub max_in_flight: Option<usize>,
    /// Reboot the first N before all others, and stop if one fails [default: 1 with --where, else 0]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub canary: Option<usize>,
    /// Start no other once more than N devices have failed, for whatever reason [default:
    /// a tenth of them, at least 1, with --where, else all]
    #[arg(long, value_name = "N|all")]
    pub max_failures: Option<MaxFailures>,
    /// Wait until the device has booted, or until it is healthy; healthy=strict minds
    /// also units that had failed before [default: healthy where the device reports
    /// its health]
    #[arg(long, value_name = "WHAT", conflicts_with = "no_wait")]
    pub until: Option<Until>,
    /// Watch the canaries for so long before any other device is rebooted
    #[arg(long, value_name = "DURATION", value_parser = values::interval, conflicts_with = "no_wait")]
    pub soak: Option<Duration>,
    /// At most so many devices are called in a second, and two and a half times
    /// as many twins read; a hub of one unit S1 takes 40 and 100 [default: 40]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    pub max_per_second: Option<u32>,
    /// At most N devices of each group (--per) are away at once
    #[arg(long, value_name = "N", value_parser = values::at_least_one, conflicts_with_all = ["no_wait", "when_online"])]
    pub at_most: Option<usize>,
    /// What makes a group: a path in the device's twin, such as tags.site. A device
    /// that has nothing there is a group of its own
    #[arg(long, value_name = "PATH", requires = "at_most", conflicts_with = "resume")]
    pub per: Option<TwinPath>,
    /// Go through the devices in the order of what their twins have at this path
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub order_by: Option<TwinPath>,
    /// Run this shell command before each start, with the device's id in $IOTDM_DEVICE;
    /// while it fails, which is tried every 30 s, nothing is started
    #[arg(long, value_name = "COMMAND")]
    pub gate: Option<String>,
    /// How long the gate may hold a start before the run stops [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub gate_timeout: Option<Duration>,
    /// Spread the starts evenly over so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub spread: Option<Duration>,
    /// With --resume: ask those that failed, refused or were cancelled again, with a new
    /// id, unless they have booted since they failed
    #[arg(long)]
    pub retry_failed: bool,
    /// Let the hub's own scheduler call the devices, and follow its job
    #[arg(long, conflicts_with_all = ["resume", "when_online", "check", "dry_run", "max_in_flight", "canary", "max_failures", "max_per_second", "until", "soak", "at_most", "per", "order_by", "gate", "gate_timeout", "spread", "retry_failed", "report"])]
    pub job: bool,
    /// Write a report of the run to this file, as HTML
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "check"])]
    pub report: Option<PathBuf>,
    /// The same as --check: show who would refuse, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before devices that you did not name yourself are rebooted
    #[arg(long)]
    pub yes: bool,
}

/// Whether the request becomes a configuration of the hub's.
#[derive(Debug, Args)]
#[command(next_help_heading = FLEET)]
pub struct AsConfigurationArgs {
    /// Create an automatic device configuration of this name, which reaches devices
    /// that are selected later as well, and follow its metrics
    #[arg(long, value_name = "NAME", value_parser = values::configuration, conflicts_with_all = ["resume", "job", "check", "dry_run", "connect_timeout", "response_timeout", "max_in_flight", "canary", "max_failures", "max_per_second", "until", "soak", "at_most", "per", "order_by", "gate", "gate_timeout", "spread", "retry_failed", "report"])]
    pub as_configuration: Option<String>,
    /// With --as-configuration: which one wins where several set the same, the highest
    /// [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub priority: Option<u32>,
}

const REPORT_HELP: &str = "\
Example:
  iotdm-ctl report ~/.local/state/iotdm/reboots/20261123T063446-134Z-acC1QV.jsonl > run.html

One HTML file, which needs nothing else: who asked for it, when each device was called
and how long that took, in a picture by groups, and what failed and why. The run may
be under way. It needs no hub.";

/// `report`
#[derive(Debug, Args)]
#[command(after_help = REPORT_HELP)]
pub struct ReportArgs {
    /// The journal of the run
    #[arg(value_name = "JOURNAL", add = journals::completer())]
    pub journal: PathBuf,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args as _, Command, CommandFactory as _};
    use iotdm_proto::request::{DEFAULT_WAIT, MAX_AHEAD};

    use super::*;
    use crate::cli::Cli;

    fn reboot() -> Command {
        Cli::command().find_subcommand("reboot").unwrap().clone()
    }

    fn names(command: &Command) -> BTreeSet<&str> {
        command.get_arguments().map(|argument| argument.get_id().as_str()).collect()
    }

    /// The options with which `option` cannot be given, as one of the two says.
    fn conflicts_of(command: &Command, option: &str) -> BTreeSet<String> {
        let argument = |name: &str| command.get_arguments().find(|a| a.get_id() == name).unwrap();
        let of = |name: &str| command.get_arg_conflicts_with(argument(name));
        let said_here = of(option).into_iter().map(|other| other.get_id().to_string());
        let said_there = names(command)
            .into_iter()
            .filter(|name| of(name).iter().any(|other| other.get_id() == option))
            .map(str::to_owned);
        said_here.chain(said_there).collect()
    }

    #[test]
    fn a_journal_has_the_request_already() {
        let conflicts = conflicts_of(&reboot(), "resume");
        let request = RequestArgs::augment_args(Command::new("x"));
        for option in names(&request) {
            assert!(conflicts.contains(option), "--resume does not refuse {option}");
        }
    }

    #[test]
    fn a_job_heeds_no_rule_for_many_devices() {
        let conflicts = conflicts_of(&reboot(), "job");
        let fleet = FleetArgs::augment_args(Command::new("x"));
        for option in names(&fleet).into_iter().filter(|option| !["job", "yes"].contains(option)) {
            assert!(conflicts.contains(option), "--job does not refuse {option}");
        }
    }

    #[test]
    fn a_configuration_heeds_no_rule_for_many_devices() {
        let conflicts = conflicts_of(&reboot(), "as_configuration");
        let fleet = FleetArgs::augment_args(Command::new("x"));
        for option in names(&fleet).into_iter().filter(|option| *option != "yes") {
            assert!(conflicts.contains(option), "--as-configuration does not refuse {option}");
        }
    }

    #[test]
    fn the_help_gives_the_devices_limits() {
        let help = |name: &str| {
            let command = reboot();
            let argument = command.get_arguments().find(|argument| argument.get_id() == name).unwrap();
            argument.get_help().unwrap().to_string()
        };
        let days = format!("{} days", MAX_AHEAD.as_secs() / (24 * 3600));
        assert!(help("delay").contains(&days) && help("at").contains(&days));
        let default = format!("[default: {}]", DEFAULT_WAIT.as_secs());
        assert!(help("wait_seconds").contains(&default));
    }
}
