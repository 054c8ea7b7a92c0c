//! `reboot`: calls `rebootDevice` and waits for what becomes of that very
//! request, for one device or for many.
//!
//! The request's id is made here, so that the outcome can be found in the twin even
//! if the reply got lost. `rebooter` takes one device to its outcome, `fleet`
//! has the order of many, `journal` remembers how far they are, and `scheduled`
//! leaves all of that to the hub's scheduler.

mod asked;
mod before;
mod configuration;
mod deadline;
mod device_outcome;
mod fleet;
mod gate;
mod health;
mod journal;
mod kept;
mod outcome;
mod places;
mod rebooter;
mod report;
mod request;
mod results;
mod rules;
mod scheduled;
mod soak;
mod summary;
mod watch;
mod which;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use iotdm_proto::report::RebootStatus;
use iotdm_proto::{DeviceId, RequestId, Time};
use tokio::sync;
use tokio::time::Instant;

pub(crate) use self::asked::{asked, module_of_journal};
use self::configuration::Asked;
use self::device_outcome::{DeviceOutcome, OutcomeClass};
use self::fleet::{Beginning, Gone, Open, Standing, Start, StopReason, Work, roll};
use self::gate::Gate;
use self::health::{Judge, Verdict};
use self::journal::{Journal, Past, Plan};
use self::kept::{Kept, Outcomes};
use self::outcome::Outcome;
use self::rebooter::Rebooter;
use self::request::{RunRequest, Way, new_id};
use self::results::Results;
use self::rules::Rules;
use self::which::{Known, Selection};
use crate::cli::{AsConfigurationArgs, FleetArgs, RebootArgs, ReportArgs, Until, WaitArgs, WhichArgs};
use crate::error::{Usage, or_interrupt};
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::journals;
use crate::output::{Format, Output, say};
use crate::progress::Progress;
use crate::prompt::confirm;
use crate::reported::Reported;

/// One invocation of the command: what is to be done for which devices, and what
/// an earlier invocation has done already.
struct Run {
    request: RunRequest,
    way: Way,
    rules: Rules,
    selection: Selection,
    /// Where it is written down how far the run is. A run for one device, and a dry
    /// run, has none.
    journal: Option<Journal>,
    past: Past,
    /// The devices that an earlier invocation found unhealthy and that are so still.
    unwell: BTreeSet<DeviceId>,
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
    if args.fleet.at_most.is_some() && args.fleet.per.is_none() && args.which.resume.is_none() {
        return Err(Usage("--at-most: say of what with --per, such as --per tags.site".to_owned()).into());
    }
    if args.fleet.report.is_some() && one {
        return Err(Usage("--report: a run for one device keeps no journal to make it of".to_owned()).into());
    }
    if args.fleet.retry_failed && args.which.resume.is_none() {
        return Err(Usage("--retry-failed: say of which run with --resume FILE".to_owned()).into());
    }
    if args.fleet.job && hub.module().is_some() {
        let message = "--job: IoT Hub's jobs are for devices, not for modules of them: leave out --job, or give \
                       --module '' where the daemon is the device itself";
        return Err(Usage(message.to_owned()).into());
    }
    if let Some(asked) = as_configuration(hub, &args)? {
        if output.format() == Format::Csv {
            return Err(Usage("--output csv is not for --as-configuration".to_owned()).into());
        }
        let request = RunRequest::new(args.request, false)?;
        return configuration::run(hub, &Results::new(output), &request, asked, &args.waiting).await;
    }
    let run = match &args.which.resume {
        Some(path) => {
            let resume = resume(hub, path, &args.fleet, &args.waiting);
            or_interrupt(resume, || "interrupted: nothing was sent".to_owned()).await?
        }
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
            let how = (&args.fleet, &args.waiting);
            let begin = begin(hub, (request, way), &args.which, how, state_home.as_deref());
            or_interrupt(begin, || "interrupted: nothing was sent".to_owned()).await?
        }
    };
    if !one {
        hub.no_faster_than(run.rules.max_per_second);
    }
    let results = Results::new(output);
    if run.selection.devices.is_empty() {
        say(format_args!("iotdm-ctl: no device is selected, nothing was sent"));
        results.print(|output| match output.format() {
            Format::Text => Ok(()),
            Format::Csv => summary::print_csv(output, &[]),
            Format::Json | Format::Jsonl | Format::Prometheus => output.array(&[] as &[DeviceOutcome]),
        });
        return Ok(results.exit(Exit::NoSuchDevice));
    }
    if args.fleet.job {
        let condition = args.which.condition.as_deref();
        return scheduled::run(hub, &results, &run.request, &run.selection.devices, condition, &args.waiting)
            .await;
    }
    if run.request.is_dry_run() {
        say(format_args!("iotdm-ctl: dry run: the devices are asked what they would do, none is rebooted"));
    }
    let (outcomes, stop) = reboot(hub, &results, &args.waiting, &run, named).await?;
    let exit = summary::exit(outcomes.kinds(), stop);
    let can_be_resumed = outcomes.kinds().any(Outcome::can_be_resumed);
    match output.format() {
        Format::Json => results.print(|output| match outcomes.whole().as_slice() {
            [only] if one => output.json(only),
            several => output.array(several),
        }),
        Format::Csv => results.print(|output| summary::print_csv(output, &outcomes.whole())),
        Format::Text if !one => {
            results.print(|output| summary::print(output, run.request.is_dry_run(), outcomes.lines()));
        }
        Format::Text | Format::Jsonl | Format::Prometheus => {}
    }
    if let Some(stop) = stop {
        say(format_args!("iotdm-ctl: stopped: {}", stop.sentence(&run.rules)));
    }
    if let (Some(file), Some(journal)) = (&args.fleet.report, &run.journal) {
        // The run is over: that the report fails takes nothing from its outcome.
        let written = Journal::story(journal.path())
            .and_then(|story| fs::write(file, report::html(&story)).map_err(anyhow::Error::from));
        match written {
            Ok(()) => say(format_args!("report {}", file.display())),
            Err(error) => say(format_args!("iotdm-ctl: --report {}: {error:#}", file.display())),
        }
    }
    if let Some(journal) = run.journal.filter(|_| can_be_resumed) {
        say(format_args!("to go on: {}", journal.how_to_resume()));
    }
    Ok(results.exit(exit))
}

/// The configuration that the hub is to do it by, if any. What has to be given with
/// what is not left to clap, which asks for nothing that something else excludes.
fn as_configuration(hub: &HubClient, args: &RebootArgs) -> Result<Option<Asked>, Usage> {
    let AsConfigurationArgs { as_configuration, priority } = &args.configuration;
    let Some(name) = as_configuration.clone() else {
        return match priority {
            Some(_) => {
                Err(Usage("--priority: it is of a configuration, say which with --as-configuration".into()))
            }
            None => Ok(None),
        };
    };
    let (device, module) = (args.which.condition.clone(), args.which.where_module.clone());
    let refuse = |why: &str| Err(Usage(format!("--as-configuration: {why}")));
    let condition = match (hub.module(), device, module) {
        (None, Some(condition), None) => condition,
        (None, ..) => return refuse("a configuration selects devices by a condition, give --where"),
        (Some(_), None, Some(condition)) => condition,
        (Some(_), ..) => {
            return refuse("the hub selects modules by their own twins, give --where-module and no --where");
        }
    };
    Ok(Some(Asked {
        name,
        condition,
        priority: priority.unwrap_or_default(),
        deadline: args.request.deadline,
        yes: args.fleet.yes,
    }))
}

/// Prints the report of the run that wrote a journal.
pub fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let story = Journal::story(&args.journal)?;
    io::stdout().lock().write_all(report::html(&story).as_bytes())?;
    Ok(())
}

/// Begins a new run: selects the devices, asks about them where they were not
/// named, and writes the plan into a new journal.
async fn begin(
    hub: &HubClient,
    (request, way): (RunRequest, Way),
    which: &WhichArgs,
    (fleet, waiting): (&FleetArgs, &WaitArgs),
    state_home: Option<&Path>,
) -> anyhow::Result<Run> {
    let selection = which::devices(hub, which, fleet).await?;
    // A dry run harms no device that nobody has looked at.
    let rules = match (which.condition.is_some() || which.where_module.is_some()) && !request.is_dry_run() {
        true => Rules::with_care(selection.devices.len()),
        false => Rules::default(),
    };
    let rules = rules.overruled_by(fleet);
    if !request.is_dry_run() {
        check(&rules, fleet, waiting)?;
    }
    let (past, unwell) = (Past::default(), BTreeSet::new());
    let mut run = Run { request, way, rules, selection, journal: None, past, unwell };
    let devices = &run.selection.devices;
    if devices.is_empty() || run.request.is_dry_run() {
        return Ok(run);
    }
    let named = !which.devices.is_empty();
    if !named && !fleet.yes && !confirm("reboot", which::question(hub, devices)).await? {
        bail!("nothing was sent");
    }
    if which.devices.len() != 1 && !fleet.job {
        if let Some(state_home) = state_home {
            journals::remove_old(state_home, SystemTime::now());
        }
        let where_to = (hub.endpoint().to_string(), hub.module().cloned());
        let plan = Plan::new(where_to, run.request.clone(), way, run.rules.clone(), &mut run.selection);
        let journal = Journal::create(state_home, &plan)?;
        plan.give_back(&mut run.selection);
        say(format_args!("journal {}", journal.path().display()));
        run.journal = Some(journal);
    }
    Ok(run)
}

/// Refuses rules, of the command line or of a journal, that cannot be kept so.
fn check(rules: &Rules, fleet: &FleetArgs, waiting: &WaitArgs) -> Result<(), Usage> {
    let needs_the_outcome = match rules {
        Rules { at_most: Some(_), .. } => {
            Some("a place in a group (--at-most) is free once the device is back")
        }
        Rules { soak: Some(_), canary: 1.., .. } => Some("canaries are watched (--soak) once they are back"),
        Rules { until: Some(Until::Healthy | Until::Strict), .. } => {
            Some("that a device is healthy (--until) is known once it is back")
        }
        _ => None,
    };
    if let Some(why) = needs_the_outcome.filter(|_| waiting.no_wait) {
        return Err(Usage(format!("--no-wait: {why}")));
    }
    // A journal's --soak says nothing where its run goes on without canaries.
    if fleet.soak.is_some() && rules.canary == 0 {
        let message = "--soak: it is canaries that are watched; say how many with --canary N";
        return Err(Usage(message.to_owned()));
    }
    Ok(())
}

/// Takes up what an earlier run has left. Rules on the command line go before
/// those of the journal.
async fn resume(hub: &HubClient, path: &Path, fleet: &FleetArgs, waiting: &WaitArgs) -> anyhow::Result<Run> {
    let (journal, plan, mut past) = Journal::resume(path)?;
    let here = hub.endpoint().to_string();
    if plan.hub != here {
        let what = format!("it is about hub {}, but {here} is given", plan.hub);
        return Err(Usage(format!("--resume {}: {what}", path.display())).into());
    }
    let rules = plan.rules.overruled_by(fleet);
    if rules.at_most.is_some() && plan.groups.is_empty() {
        let message = format!("--resume {}: the run has no groups for --at-most", path.display());
        return Err(Usage(message).into());
    }
    check(&rules, fleet, waiting)?;
    if fleet.retry_failed {
        let run_id = plan.request.id();
        let again = to_retry(hub, &plan.devices, &past, run_id).await?;
        if !again.is_empty() {
            let id = new_id()?;
            journal.retry(&id, &again)?;
            say(format_args!("{} devices are asked again, id {id}", again.len()));
            again.into_iter().for_each(|device| past.ask_anew(device, &id));
        }
    }
    let selection = Selection {
        devices: plan.devices,
        groups: plan.groups,
        offline: plan.offline.into_iter().collect::<BTreeSet<_>>(),
        known: Known::default(),
    };
    let unwell = match rules.at_most {
        Some(_) => still_unwell(hub, &past, rules.until).await?,
        None => BTreeSet::new(),
    };
    Ok(Run { request: plan.request, way: plan.way, rules, selection, journal: Some(journal), past, unwell })
}

/// The devices that may have been left away or unwell and have not become well since.
/// Those that failed are looked at if they have booted all the same.
async fn still_unwell(
    hub: &HubClient,
    past: &Past,
    until: Option<Until>,
) -> anyhow::Result<BTreeSet<DeviceId>> {
    let mut unwell = BTreeSet::new();
    let has_failed = |on: &DeviceOutcome| on.outcome == Outcome::Failed;
    for on in past.outcomes.values().filter(|on| has_failed(on) || on.may_be_away(false)) {
        let device = &on.device;
        let twin = match hub.twin(device).await {
            Ok(twin) => twin,
            Err(error) if Exit::from(&error) == Exit::NoSuchDevice => continue,
            Err(error) => return Err(error).with_context(|| device.to_string()),
        };
        let reported = twin.reported();
        if has_failed(on) && !reported.has_booted_since_the_request() {
            continue;
        }
        let verdict = Judge::now(&reported, until == Some(Until::Strict)).look(&reported);
        let is_well = match verdict {
            Verdict::Well(_) => true,
            Verdict::Unwell(_) => until == Some(Until::Booted),
            Verdict::NotYet(_) => reported.health.is_none(),
        };
        let is_there = twin.get("connectionState").and_then(|state| state.as_str()) != Some("Disconnected");
        if !(is_well && is_there) {
            unwell.insert(device.clone());
        }
    }
    Ok(unwell)
}

/// The devices that failed and can be asked anew. Where the earlier request is
/// still pending on the device, another would be refused, or reboot it twice; where it
/// failed and the machine has booted since, its reboot is done.
async fn to_retry(
    hub: &HubClient,
    devices: &[DeviceId],
    past: &Past,
    run_id: &RequestId,
) -> anyhow::Result<Vec<DeviceId>> {
    let failed = |device: &&DeviceId| past.outcomes.get(*device).is_some_and(DeviceOutcome::can_be_retried);
    let mut again = Vec::new();
    for device in devices.iter().filter(failed) {
        let reported = match hub.twin(device).await {
            Ok(twin) => twin.reported(),
            Err(error) if Exit::from(&error) == Exit::NoSuchDevice => Reported::default(),
            Err(error) => return Err(error).with_context(|| device.to_string()),
        };
        let earlier = past.ids.get(device).unwrap_or(run_id).as_str();
        let status = reported.known_status();
        let why = match reported.request_id() == Some(earlier) {
            true if !status.is_some_and(|status| status.is_final()) => {
                Some(format!("request {earlier} is still pending there"))
            }
            true if status == Some(RebootStatus::Failed) && reported.has_booted_since_the_request() => {
                Some("it has booted since".to_owned())
            }
            _ => None,
        };
        match why {
            Some(why) => say(format_args!("iotdm-ctl: {device}: {why}, it is not asked again")),
            None => again.push(device.clone()),
        }
    }
    Ok(again)
}

/// What [`roll`] does to the devices of a run.
struct Fleet<'a> {
    run: &'a Run,
    rebooter: Rebooter<'a>,
    gate: Option<Gate>,
    /// What is kept of the devices' outcomes so far, by their numbers.
    outcomes: RefCell<Vec<Option<Kept>>>,
}

impl Work for Fleet<'_> {
    async fn start(&self, start: Start) -> anyhow::Result<(usize, Gone)> {
        let Start { index, may_ask, is_canary } = start;
        let selection = &self.run.selection;
        let device = selection.devices.get(index).context("no device has this number")?;
        let (sent, known) = (self.run.past.sent.get(device), selection.known.of(index));
        let outcome = self.rebooter.one(device, (sent, known), may_ask, is_canary).await?;
        let may_be_away = outcome.may_be_away(selection.offline.contains(device));
        let gone = Gone { class: outcome.class(), may_be_away };
        let results = self.rebooter.results;
        if results.form().format() == Format::Jsonl {
            results.print(|output| output.json(&outcome));
        }
        if let Some(place) = self.outcomes.borrow_mut().get_mut(index) {
            *place = Some(Kept::of(outcome, results.form().format()));
        }
        Ok((index, gone))
    }

    async fn gate(&self, index: usize) -> bool {
        match (&self.gate, self.run.selection.devices.get(index)) {
            (Some(gate), Some(device)) => gate.opens_for(device).await,
            _ => true,
        }
    }

    fn stopped(&self) -> Option<StopReason> {
        self.run.journal.as_ref().filter(|journal| journal.is_broken()).map(|_| StopReason::Journal)
    }

    fn has_stopped(&self) {
        self.rebooter.has_stopped.send_replace(true);
    }
}

/// Takes the devices to their outcomes, and returns the outcomes in the devices'
/// order, with the reason if the run stopped early.
async fn reboot<'a>(
    hub: &HubClient,
    results: &Results,
    waiting: &WaitArgs,
    run: &'a Run,
    prints_replies: bool,
) -> anyhow::Result<(Outcomes<'a>, Option<StopReason>)> {
    let beginning = beginning(run);
    let rebooter = Rebooter {
        hub,
        results,
        progress: Progress::new(beginning.open.len()),
        request: &run.request,
        ids: &run.past.ids,
        way: run.way,
        waiting,
        until: run.rules.until,
        soak: run.rules.soak(),
        has_stopped: sync::watch::Sender::new(false),
        prints_replies,
        journal: run.journal.as_ref(),
        in_force: RefCell::default(),
    };
    let devices = &run.selection.devices;
    let format = results.form().format();
    let kept = |device: &DeviceId| run.past.outcomes.get(device).cloned().map(|on| Kept::of(on, format));
    let known = devices.iter().map(kept).collect();
    let gate = run.rules.gate.clone().map(|command| Gate::new(command, run.rules.gate_patience()));
    let fleet = Fleet { run, rebooter, gate, outcomes: RefCell::new(known) };
    let stop = or_interrupt(roll(&fleet, beginning, &run.rules), || fleet.rebooter.what_stays()).await?;
    // With the rebooter, the redrawn lines go before anything else is printed.
    let Fleet { rebooter, outcomes, .. } = fleet;
    drop(rebooter);
    Ok((Outcomes::new(devices, run.request.id(), outcomes.into_inner()), stop))
}

/// What is known of a run before this invocation starts anything.
fn beginning(run: &Run) -> Beginning {
    let Run { selection, past, rules, .. } = run;
    let has_groups = !selection.groups.is_empty();
    let ended = |classes: &[OutcomeClass]| {
        let is = |device: &DeviceId| {
            past.outcomes.get(device).is_some_and(|outcome| classes.contains(&outcome.class()))
        };
        let devices = selection.devices.iter().enumerate();
        devices.filter(|(_, device)| is(device)).map(|(index, _)| index).collect::<Vec<_>>()
    };
    let is_unwell = |(index, device): (usize, &DeviceId)| run.unwell.contains(device).then_some(index);
    let open = |(index, device): (usize, &DeviceId)| {
        if past.outcomes.contains_key(device) {
            return None;
        }
        let has_gone = has_groups && past.unreached.contains(device) && !selection.offline.contains(device);
        let standing = match () {
            () if past.sent.contains_key(device) => Standing::Asked,
            () if has_gone => Standing::Away,
            () => Standing::New,
        };
        Some(Open { index, standing })
    };
    let since_last = past.last_sent.map(|last| Time::from(SystemTime::now()).since(last));
    let gap = rules.gap(selection.devices.len());
    let until_next = since_last.map_or(Duration::ZERO, |since| gap.saturating_sub(since));
    Beginning {
        devices: selection.devices.len(),
        open: selection.devices.iter().enumerate().filter_map(open).collect(),
        failed: ended(&[OutcomeClass::Failure, OutcomeClass::HubFailure]),
        untouched: ended(&[OutcomeClass::Untouched]),
        held: selection.devices.iter().enumerate().filter_map(is_unwell).collect(),
        groups: which::numbered(&selection.groups),
        next_start: Instant::now() + until_next,
    }
}
