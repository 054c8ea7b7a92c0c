//! `reboot`: calls `rebootDevice` and waits for what becomes of that very
//! request, for one device or for many.
//!
//! The request's id is made here, so the outcome can be found in the twin even
//! if the reply got lost. [`device`] takes one device to its end, [`fleet`]
//! has the order of many, [`journal`] remembers how far they are.

mod device;
mod ending;
mod fleet;
mod journal;
mod request;
mod scheduled;
mod summary;
mod which;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use iotdm_proto::DeviceId;

use self::device::Run;
pub use self::device::{no_wish, refusal, wished_id};
use self::ending::Ending;
use self::fleet::{Rules, Stop, Went, roll};
use self::journal::{Journal, Past, Plan};
use self::request::{Request, Way};
use crate::cli::{FleetArgs, RebootArgs, WaitArgs, WhichArgs};
use crate::error::{Exit, Usage, or_interrupt};
use crate::hub::Hub;
use crate::output::{Format, Output, say};
use crate::progress::Progress;
use crate::prompt::confirm;
use crate::values;

/// What is to be done for which devices, and what has been.
struct Job {
    request: Request,
    way: Way,
    rules: Rules,
    devices: Vec<DeviceId>,
    journal: Option<Journal>,
    past: Past,
}

/// Reboots the devices. `state_home` is where journals are kept.
pub async fn run(
    hub: &Hub,
    output: Output,
    args: RebootArgs,
    state_home: Option<PathBuf>,
) -> anyhow::Result<Exit> {
    let one = args.which.devices.len() == 1;
    let named = !args.which.devices.is_empty();
    if !one {
        hub.be_patient();
    }
    let job = match &args.which.resume {
        Some(path) => resume(hub, path, &args.fleet)?,
        None => {
            let check = args.request.check || args.fleet.dry_run;
            let way = match args.request.when_online {
                true => Way::Twin { deadline: args.request.deadline },
                false => Way::Method,
            };
            let request = Request { check, ..Request::new(args.request) };
            let begin = begin(hub, (request, way), &args.which, &args.fleet, state_home.as_deref());
            or_interrupt(begin, || "interrupted: nothing was sent".to_owned()).await?
        }
    };
    if !one {
        hub.no_faster_than(job.rules.max_per_second);
    }
    if job.devices.is_empty() {
        say(format_args!("iotdm-ctl: no device is selected, nothing was sent"));
        if !output.is_text() {
            output.array(&[] as &[Ending])?;
        }
        return Ok(Exit::NoSuchDevice);
    }
    if args.fleet.job {
        let condition = args.which.condition.as_deref();
        return scheduled::run(hub, output, &job.request, &job.devices, condition, &args.waiting).await;
    }
    let (endings, stop) = work(hub, output, &args.waiting, &job, named).await?;
    if output.format() == Format::Json {
        match endings.as_slice() {
            [only] if one => output.json(only)?,
            several => output.array(several)?,
        }
    }
    if !one && output.is_text() {
        summary::print(output, &endings)?;
    }
    if let Some(stop) = stop {
        say(format_args!("iotdm-ctl: stopped: {}", stop.sentence(&job.rules)));
    }
    if let Some(journal) = job.journal.filter(|_| endings.iter().any(Ending::can_be_resumed)) {
        say(format_args!("to go on: iotdm-ctl reboot --resume {}", journal.path().display()));
    }
    Ok(summary::exit(&endings, stop))
}

/// Selects the devices, asks about them where they were not named, and writes
/// the plan.
async fn begin(
    hub: &Hub,
    (request, way): (Request, Way),
    which: &WhichArgs,
    fleet: &FleetArgs,
    state_home: Option<&Path>,
) -> anyhow::Result<Job> {
    let devices = which::devices(hub, which).await?;
    let rules = rules(fleet, Rules::default());
    let mut job = Job { request, way, rules, devices, journal: None, past: Past::default() };
    if job.devices.is_empty() || job.request.check {
        return Ok(job);
    }
    let named = !which.devices.is_empty();
    if !named && !fleet.yes && !confirm("reboot", which::question(hub, &job.devices)).await? {
        bail!("nothing was sent");
    }
    if which.devices.len() != 1 && !fleet.job {
        let plan = Plan::new(hub.endpoint().to_string(), job.request.clone(), way, rules, &job.devices);
        let journal = Journal::create(state_home, plan)?;
        say(format_args!("journal {}", journal.path().display()));
        job.journal = Some(journal);
    }
    Ok(job)
}

/// Takes up what an earlier run has left.
fn resume(hub: &Hub, path: &Path, fleet: &FleetArgs) -> anyhow::Result<Job> {
    let (journal, plan, past) = Journal::resume(path)?;
    let refuse = |what: String| Usage(format!("--resume {}: {what}", path.display()));
    let here = hub.endpoint().to_string();
    if plan.hub != here {
        return Err(refuse(format!("it is about hub {}, but {here} is given", plan.hub)).into());
    }
    let devices = plan.devices.iter().map(|id| values::device_id(id)).collect::<Result<Vec<_>, _>>();
    Ok(Job {
        request: plan.request,
        way: plan.way,
        rules: rules(fleet, plan.rules),
        devices: devices.map_err(refuse)?,
        journal: Some(journal),
        past,
    })
}

fn rules(args: &FleetArgs, otherwise: Rules) -> Rules {
    Rules {
        max_in_flight: args.max_in_flight.unwrap_or(otherwise.max_in_flight),
        canary: args.canary.unwrap_or(otherwise.canary),
        max_failures: args.max_failures.or(otherwise.max_failures),
        max_per_second: args.max_per_second.unwrap_or(otherwise.max_per_second),
    }
}

/// Takes the devices to their ends, and returns those in the devices' order.
async fn work(
    hub: &Hub,
    output: Output,
    waiting: &WaitArgs,
    job: &Job,
    replies: bool,
) -> anyhow::Result<(Vec<Ending>, Option<Stop>)> {
    let open: Vec<&DeviceId> =
        job.devices.iter().filter(|device| !job.past.ended.contains_key(device.as_str())).collect();
    let of_canaries = |device: &&&DeviceId| job.devices.iter().take(job.rules.canary).any(|c| c == **device);
    let rules = Rules { canary: open.iter().take(job.rules.canary).filter(of_canaries).count(), ..job.rules };
    let run = Run {
        hub,
        output,
        progress: Progress::new(open.len()),
        request: &job.request,
        way: job.way,
        waiting,
        replies,
        journal: job.journal.as_ref(),
        in_force: RefCell::default(),
    };
    let endings = RefCell::new(job.past.ended.clone());
    let one = |device: &DeviceId| {
        let (run, endings, sent, device) =
            (&run, &endings, job.past.sent.get(device.as_str()), device.clone());
        async move {
            let ending = run.one(&device, sent).await?;
            let went = ending.went();
            if output.format() == Format::Jsonl {
                run.progress.aside(|| output.json(&ending))?;
            }
            let kept = if output.format() == Format::Json { ending } else { ending.brief() };
            endings.borrow_mut().insert(device.to_string(), kept);
            Ok(went)
        }
    };
    let rolling = roll(open.into_iter().map(one), &rules);
    let stop = or_interrupt(rolling, || run.what_stays()).await?;
    drop(run);
    let mut ended: BTreeMap<String, Ending> = endings.into_inner();
    let ending = |device: &DeviceId| {
        ended.remove(device.as_str()).unwrap_or_else(|| Ending::not_started(device, &job.request.id))
    };
    Ok((job.devices.iter().map(ending).collect(), stop))
}

impl Run<'_> {
    /// What is the case when Ctrl-C ends the waiting.
    fn what_stays(&self) -> String {
        let in_force = self.in_force.borrow();
        let mut sentence = match in_force.len() {
            0 => "interrupted: stopped waiting; no request is in force".to_owned(),
            several @ 6.. => format!(
                "interrupted: stopped waiting; the request {} stays in force on {several} devices, see iotdm-ctl \
                 status --where \"properties.reported.reboot.id = '{0}'\"",
                self.request.id
            ),
            _ => format!(
                "interrupted: stopped waiting; the request {} stays in force, see iotdm-ctl status {}",
                self.request.id,
                in_force.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(" ")
            ),
        };
        if let Some(journal) = self.journal {
            sentence.push_str(&format!("; to go on: iotdm-ctl reboot --resume {}", journal.path().display()));
        }
        sentence
    }
}

impl Ending {
    fn went(&self) -> Went {
        match self.outcome.exit() {
            Exit::Done => Went::Well,
            _ if self.hubs_fault => Went::HubsFault,
            _ => Went::Badly,
        }
    }
}
