//! `reboot`: calls `rebootDevice` and waits for what becomes of that very
//! request, for one device or for many.
//!
//! The request's id is made here, so that the outcome can be found in the twin even
//! if the reply got lost. `rebooter` takes one device to its outcome, `fleet`
//! has the order of many, `journal` remembers how far they are, and `scheduled`
//! leaves all of that to the hub's scheduler.

mod asked;
mod before;
mod device_outcome;
mod fleet;
mod journal;
mod outcome;
mod rebooter;
mod request;
mod scheduled;
mod summary;
mod watch;
mod which;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::bail;
use iotdm_proto::DeviceId;

pub(crate) use self::asked::asked;
use self::device_outcome::DeviceOutcome;
use self::fleet::{Rules, StopReason, roll};
use self::journal::{Journal, Past, Plan};
use self::rebooter::Rebooter;
use self::request::{RunRequest, Way};
use crate::cli::{FleetArgs, RebootArgs, WaitArgs, WhichArgs};
use crate::error::{Usage, or_interrupt};
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::journals;
use crate::output::{Format, Output, say};
use crate::progress::Progress;
use crate::prompt::confirm;

/// One invocation of the command: what is to be done for which devices, and what
/// an earlier invocation has done already.
struct Run {
    request: RunRequest,
    way: Way,
    rules: Rules,
    devices: Vec<DeviceId>,
    /// Where it is written down how far the run is. A run for one device, and a dry
    /// run, has none.
    journal: Option<Journal>,
    past: Past,
}

/// Reboots the devices. `state_home` is the folder in which journals are kept.
pub async fn run(
    hub: &HubClient,
    output: Output,
    args: RebootArgs,
    state_home: Option<PathBuf>,
) -> anyhow::Result<Exit> {
    let one = args.which.devices.len() == 1;
    let named = !args.which.devices.is_empty();
    if !one {
        hub.be_patient();
    }
    let run = match &args.which.resume {
        Some(path) => resume(hub, path, &args.fleet)?,
        None => {
            let way = match args.request.when_online {
                true => Way::Twin { deadline: args.request.deadline },
                false => Way::Method,
            };
            if args.fleet.job {
                scheduled::check_id(args.request.id.as_ref())?;
            }
            let check = args.request.check || args.fleet.dry_run;
            let request = RunRequest::new(args.request, check)?;
            let begin = begin(hub, (request, way), &args.which, &args.fleet, state_home.as_deref());
            or_interrupt(begin, || "interrupted: nothing was sent".to_owned()).await?
        }
    };
    if !one {
        hub.no_faster_than(run.rules.max_per_second);
    }
    if run.devices.is_empty() {
        say(format_args!("iotdm-ctl: no device is selected, nothing was sent"));
        match output.format() {
            Format::Text => {}
            Format::Csv => summary::print_csv(output, &[])?,
            Format::Json | Format::Jsonl => output.array(&[] as &[DeviceOutcome])?,
        }
        return Ok(Exit::NoSuchDevice);
    }
    if args.fleet.job {
        let condition = args.which.condition.as_deref();
        return scheduled::run(hub, output, &run.request, &run.devices, condition, &args.waiting).await;
    }
    let (outcomes, stop) = reboot(hub, output, &args.waiting, &run, named).await?;
    if output.format() == Format::Json {
        match outcomes.as_slice() {
            [only] if one => output.json(only)?,
            several => output.array(several)?,
        }
    }
    if output.format() == Format::Csv {
        summary::print_csv(output, &outcomes)?;
    }
    if !one && output.is_text() {
        summary::print(output, &outcomes)?;
    }
    if let Some(stop) = stop {
        say(format_args!("iotdm-ctl: stopped: {}", stop.sentence(&run.rules)));
    }
    if let Some(journal) = run.journal.filter(|_| outcomes.iter().any(DeviceOutcome::can_be_resumed)) {
        say(format_args!("to go on: {}", journal.how_to_resume()));
    }
    Ok(summary::exit(&outcomes, stop))
}

/// Begins a new run: selects the devices, asks about them where they were not
/// named, and writes the plan into a new journal.
async fn begin(
    hub: &HubClient,
    (request, way): (RunRequest, Way),
    which: &WhichArgs,
    fleet: &FleetArgs,
    state_home: Option<&Path>,
) -> anyhow::Result<Run> {
    let devices = which::devices(hub, which).await?;
    let rules = rules(fleet, Rules::default());
    let mut run = Run { request, way, rules, devices, journal: None, past: Past::default() };
    if run.devices.is_empty() || run.request.is_dry_run() {
        return Ok(run);
    }
    let named = !which.devices.is_empty();
    if !named && !fleet.yes && !confirm("reboot", which::question(hub, &run.devices)).await? {
        bail!("nothing was sent");
    }
    if which.devices.len() != 1 && !fleet.job {
        let plan =
            Plan::new(hub.endpoint().to_string(), run.request.clone(), way, rules, run.devices.clone());
        if let Some(state_home) = state_home {
            journals::remove_old(state_home, SystemTime::now());
        }
        let journal = Journal::create(state_home, plan)?;
        say(format_args!("journal {}", journal.path().display()));
        run.journal = Some(journal);
    }
    Ok(run)
}

/// Takes up what an earlier run has left. Rules on the command line go before
/// those of the journal.
fn resume(hub: &HubClient, path: &Path, fleet: &FleetArgs) -> anyhow::Result<Run> {
    let (journal, plan, past) = Journal::resume(path)?;
    let here = hub.endpoint().to_string();
    if plan.hub != here {
        let what = format!("it is about hub {}, but {here} is given", plan.hub);
        return Err(Usage(format!("--resume {}: {what}", path.display())).into());
    }
    Ok(Run {
        request: plan.request,
        way: plan.way,
        rules: rules(fleet, plan.rules),
        devices: plan.devices,
        journal: Some(journal),
        past,
    })
}

/// The rules of the command line, and where it gives none those of `otherwise`.
fn rules(args: &FleetArgs, otherwise: Rules) -> Rules {
    Rules {
        max_in_flight: args.max_in_flight.unwrap_or(otherwise.max_in_flight),
        canary: args.canary.unwrap_or(otherwise.canary),
        max_failures: args.max_failures.or(otherwise.max_failures),
        max_per_second: args.max_per_second.unwrap_or(otherwise.max_per_second),
    }
}

/// Takes the devices to their outcomes, and returns the outcomes in the devices'
/// order, with the reason if the run stopped early.
async fn reboot(
    hub: &HubClient,
    output: Output,
    waiting: &WaitArgs,
    run: &Run,
    prints_replies: bool,
) -> anyhow::Result<(Vec<DeviceOutcome>, Option<StopReason>)> {
    let open: Vec<&DeviceId> =
        run.devices.iter().filter(|device| !run.past.outcomes.contains_key(*device)).collect();
    // Of the run's canaries, those that are still open.
    let is_canary = |device: &&&DeviceId| run.devices.iter().take(run.rules.canary).any(|c| c == **device);
    let rules = Rules { canary: open.iter().take(run.rules.canary).filter(is_canary).count(), ..run.rules };
    let rebooter = Rebooter {
        hub,
        output,
        progress: Progress::new(open.len()),
        request: &run.request,
        way: run.way,
        waiting,
        prints_replies,
        journal: run.journal.as_ref(),
        in_force: RefCell::default(),
    };
    let outcomes = RefCell::new(run.past.outcomes.clone());
    let one = |device: &DeviceId| {
        let (rebooter, outcomes, device) = (&rebooter, &outcomes, device.clone());
        async move {
            let outcome = rebooter.one(&device, run.past.sent.get(&device)).await?;
            let class = outcome.class();
            if output.format() == Format::Jsonl {
                rebooter.progress.aside(|| output.json(&outcome))?;
            }
            // Only one JSON document at the end needs all of the outcome.
            let kept = if output.format() == Format::Json { outcome } else { outcome.brief() };
            outcomes.borrow_mut().insert(device, kept);
            Ok(class)
        }
    };
    let rolling = roll(open.into_iter().map(one), &rules);
    let stop = or_interrupt(rolling, || rebooter.what_stays()).await?;
    // The redrawn lines go before anything else is printed.
    drop(rebooter);
    let mut known = outcomes.into_inner();
    let of = |device: &DeviceId| {
        known.remove(device).unwrap_or_else(|| DeviceOutcome::not_started(device, run.request.id()))
    };
    Ok((run.devices.iter().map(of).collect(), stop))
}
