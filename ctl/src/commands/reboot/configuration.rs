//! `reboot --as-configuration`: the request becomes a wish of one of the hub's
//! automatic device configurations, which reaches each device that the condition
//! selects, now or later, also when this program is gone.
//!
//! Source: "Automatic device and module management using the Azure CLI".

use std::time::Duration;

use anyhow::{Context as _, bail};
use iotdm_proto::Time;
use iotdm_proto::report::{Feature, RebootStatus};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::deadline::read_until;
use super::request::RunRequest;
use super::results::Results;
use crate::cli::WaitArgs;
use crate::commands::selection::{Conditions, in_a_question, selected};
use crate::error::or_interrupt;
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, HubError, RefusalKind, check_length, literal};
use crate::output::{Format, arguments, say};
use crate::prompt::confirm;

/// The configuration that is to be made.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its name.
    pub(super) name: String,
    /// Which devices it is for, now and later; or which modules, by their own twins.
    pub(super) condition: String,
    /// The higher one wins where two set the same.
    pub(super) priority: u32,
    /// From when on its wish is not carried out any more.
    pub(super) deadline: Option<Time>,
    /// Do not ask first.
    pub(super) yes: bool,
}

/// How an agent reports the id and the status of its newest request, and the id of
/// the wish that it took up last.
const ID: &str = "properties.reported.reboot.id";
const STATUS: &str = "properties.reported.reboot.status";
const LAST_WISH: &str = "properties.reported.agent.lastWish";

/// Creates the configuration and, if it is to be waited for, follows its metrics
/// until each device that it targets is accounted for.
pub(super) async fn run(
    hub: &HubClient,
    results: &Results,
    request: &RunRequest,
    asked: Asked,
    waiting: &WaitArgs,
) -> anyhow::Result<Exit> {
    let name = asked.name.as_str();
    let not_yet = || "interrupted: nothing was sent".to_owned();
    let Some((targeted, body)) = or_interrupt(prepare(hub, request, &asked), not_yet).await? else {
        bail!("nothing was sent");
    };
    let mut made = match hub.create_configuration(name, &body).await {
        Err(HubError::Refused(refusal)) if refusal.kind() == RefusalKind::Exists => {
            let how = format!("iotdm-ctl configuration delete {}", arguments([name]));
            let refused = HubError::Refused(refusal);
            return Err(refused)
                .context(format!("configuration {name}: choose another name, or first {how}"));
        }
        made => made.with_context(|| format!("configuration {name}"))?,
    };
    say(format_args!("configuration {name} was created, its wish is {}", request.id()));
    let stays = format!(
        "it stays in force, also for devices that come later, until iotdm-ctl configuration delete {}",
        arguments([name])
    );
    let mut exit = Exit::Done;
    if !waiting.no_wait {
        let stopped = || format!("interrupted: stopped waiting for configuration {name}; {stays}");
        let deadline = Instant::now() + request.until_due() + waiting.wait_timeout(false);
        let following = follow(hub, name, targeted > 0, (deadline, waiting.interval));
        let followed = or_interrupt(following, stopped).await;
        if followed.as_ref().is_err_and(|error| exit_of(error) != Exit::Interrupted) {
            say(format_args!("iotdm-ctl: configuration {name} is followed no longer; {stays}"));
        }
        let followed = followed?;
        exit = followed.exit();
        if exit == Exit::TimedOut {
            say(format_args!(
                "iotdm-ctl: configuration {name} has not reached all in time; on Azure the hub counts every 5 minutes"
            ));
        }
        made = followed.configuration;
    }
    results.print(|output| match output.format() {
        Format::Text if waiting.no_wait => output.line(format_args!("{name}: created, id {}", request.id())),
        Format::Text | Format::Csv | Format::Prometheus => {
            output.line(format_args!("{name}: {}", Counts::of(&made)))
        }
        Format::Json | Format::Jsonl => output.json(&made),
    });
    say(format_args!("{stays}"));
    Ok(results.exit(exit))
}

/// How many devices the condition selects now, and the configuration; nothing if that
/// is not to be made.
async fn prepare(
    hub: &HubClient,
    request: &RunRequest,
    asked: &Asked,
) -> anyhow::Result<Option<(usize, Value)>> {
    // By itself first: what is put around it must not make sense of half a condition.
    let mut devices = selected(hub, conditions(hub, &asked.condition)).await?;
    let features = request.restraints();
    let condition = target(&asked.condition, &features);
    let scope = Scope::of(hub);
    let target_condition = scope.target(&condition);
    check_length(&target_condition).context("--where")?;
    if !features.is_empty() {
        let all = devices.len();
        devices = selected(hub, conditions(hub, &condition)).await?;
        if devices.len() < all {
            let words: Vec<&str> = features.iter().map(|(_, key)| *key).collect();
            say(format_args!(
                "iotdm-ctl: {} of {all} devices are left out: agent too old for {}",
                all - devices.len(),
                words.join(", ")
            ));
        }
    }
    let now = match devices.is_empty() {
        true => format!("no device of hub {}", hub.endpoint()),
        false => format!("{}, all at once,", in_a_question(hub, &devices)),
    };
    let question = format!(
        "Create configuration {}, which reboots {now} and each device that comes to match the condition later?",
        asked.name
    );
    if !asked.yes && !confirm("reboot", question).await? {
        return Ok(None);
    }
    Ok(Some((devices.len(), configuration(&scope, request, asked, &target_condition))))
}

/// The condition as one of devices, or of modules where those are meant.
fn conditions<'a>(hub: &HubClient, condition: &'a str) -> Conditions<'a> {
    match hub.module() {
        None => Conditions { device: Some(condition), module: None },
        Some(_) => Conditions { device: None, module: Some(condition) },
    }
}

/// Whose twins a configuration is about: those of devices, or of the modules of a name.
struct Scope(Option<String>);

impl Scope {
    fn of(hub: &HubClient) -> Self {
        Scope(hub.module().map(|module| literal(module.as_str())))
    }

    /// The hub's words for what the condition selects.
    fn target(&self, condition: &str) -> String {
        match &self.0 {
            None => condition.to_owned(),
            Some(name) => format!("FROM devices.modules WHERE moduleId = {name} AND ({condition})"),
        }
    }

    /// Where the wish stands in a configuration.
    fn content(&self) -> &'static str {
        if self.0.is_some() { "moduleContent" } else { "deviceContent" }
    }

    /// How a query for some of them begins.
    fn select(&self) -> &'static str {
        match self.0 {
            None => "SELECT deviceId FROM devices",
            Some(_) => "SELECT deviceId, moduleId FROM devices.modules",
        }
    }
}

/// The target condition: that of the command line, and that the agent knows each key
/// of the wish which restrains the reboot. An older one would reboot all the same.
fn target(condition: &str, restraints: &[(Feature, &'static str)]) -> String {
    let known = |(feature, _): &(Feature, _)| {
        format!(" AND ARRAY_CONTAINS(properties.reported.agent.features, '{feature}')")
    };
    match restraints {
        [] => condition.to_owned(),
        restraints => format!("({condition}){}", restraints.iter().map(known).collect::<String>()),
    }
}

/// The configuration as the hub takes it.
fn configuration(scope: &Scope, request: &RunRequest, asked: &Asked, condition: &str) -> Value {
    let wish = request.whole_wish(asked.deadline);
    json!({
        "id": asked.name,
        "labels": {"createdBy": "iotdm-ctl"},
        "content": {scope.content(): {"properties.desired.reboot": wish}},
        "targetCondition": condition,
        "priority": asked.priority,
        "metrics": {"queries": queries(scope.select(), &asked.name, request)},
    })
}

/// The queries by which the hub counts what became of the wish.
fn queries(select: &str, name: &str, request: &RunRequest) -> Map<String, Value> {
    let id = literal(request.id().as_str());
    let finals = RebootStatus::ALL.iter().filter(|status| status.is_final());
    let finals: Vec<String> = finals.map(|status| format!("'{status}'")).collect();
    let finals = finals.join(", ");
    let ours = format!("{ID} = {id}");
    let others = format!("(NOT IS_DEFINED({ID}) OR {ID} != {id})");
    let not_taken_up = format!("(NOT IS_DEFINED({LAST_WISH}) OR {LAST_WISH} != {id})");
    let mut conditions = vec![
        ("completed", format!("{ours} AND {STATUS} = 'completed'")),
        ("failed", format!("{ours} AND {STATUS} IN ['failed', 'cancelled']")),
        ("pending", format!("(({ours} AND {STATUS} NIN [{finals}]) OR ({others} AND {not_taken_up}))")),
        ("superseded", format!("{others} AND {LAST_WISH} = {id}")),
    ];
    if request.is_only_if_required() {
        conditions.push(("notNeeded", format!("{ours} AND {STATUS} = 'notNeeded'")));
    }
    let query = |condition: &str| {
        format!("{select} WHERE configurations.[[{name}]].status = 'Applied' AND {condition}")
    };
    conditions.into_iter().map(|(metric, condition)| (metric.to_owned(), query(&condition).into())).collect()
}

/// A configuration that was followed, with its counts at the end.
struct Followed {
    configuration: Value,
    is_over: bool,
}

impl Followed {
    fn exit(&self) -> Exit {
        let counts = Counts::of(&self.configuration);
        match (self.is_over, counts.failed + counts.superseded) {
            (false, _) => Exit::TimedOut,
            (true, 0) => Exit::Done,
            (true, _) => Exit::RebootFailed,
        }
    }
}

/// Follows a configuration until all that it targets is accounted for or the deadline is
/// over; it is looked at once in an interval. `some` tells that there was something to
/// target when it was made. A hub that has trouble is asked again until the deadline.
async fn follow(
    hub: &HubClient,
    name: &str,
    some: bool,
    (deadline, interval): (Instant, Duration),
) -> anyhow::Result<Followed> {
    let (mut last, what) = (String::new(), format!("configuration {name}"));
    loop {
        let next = Instant::now() + interval;
        let read = async || hub.configuration(name).await;
        let configuration = read_until(deadline, interval, &what, read).await.context(what.clone())?;
        let counts = Counts::of(&configuration);
        let now = counts.to_string();
        if now != last {
            say(format_args!("configuration {name}: {now}"));
            last = now;
        }
        let is_over = counts.are_complete(some);
        if is_over || Instant::now() >= deadline {
            return Ok(Followed { configuration, is_over });
        }
        sleep_until(next.min(deadline)).await;
    }
}

/// What a configuration's metrics have counted. What the hub has not counted yet is
/// not there.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    targeted: Option<u64>,
    applied: Option<u64>,
    completed: u64,
    failed: u64,
    pending: Option<u64>,
    superseded: u64,
    not_needed: u64,
}

impl Counts {
    fn of(configuration: &Value) -> Self {
        let of = |place: &str, metric: &str| {
            configuration.get(place)?.get("results")?.get(metric).and_then(Value::as_u64)
        };
        let own = |metric: &str| of("metrics", metric).unwrap_or_default();
        Counts {
            targeted: of("systemMetrics", "targetedCount"),
            applied: of("systemMetrics", "appliedCount"),
            completed: own("completed"),
            failed: own("failed"),
            pending: of("metrics", "pending"),
            superseded: own("superseded"),
            not_needed: own("notNeeded"),
        }
    }

    /// Whether the outcome is known of every device that is targeted. The hub does
    /// not count everything at the same time, so that the sums have to agree. `some`
    /// tells that there is something to target.
    fn are_complete(&self, some: bool) -> bool {
        let ended = self.completed + self.failed + self.superseded + self.not_needed;
        self.targeted == Some(ended)
            && self.applied == Some(ended)
            && self.pending == Some(0)
            && (ended > 0 || !some)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(targeted), Some(applied)) = (self.targeted, self.applied) else {
            return f.write_str("not counted yet");
        };
        write!(
            f,
            "{targeted} targeted, {applied} applied, {} completed, {} failed, {} pending",
            self.completed,
            self.failed,
            self.pending.unwrap_or_default()
        )?;
        for (count, words) in [(self.not_needed, "not needed"), (self.superseded, "superseded")] {
            if count > 0 {
                write!(f, ", {count} {words}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restraint_is_demanded_of_the_agent() {
        let condition = "tags.site = 'x' OR tags.site = 'y'";
        assert_eq!(target(condition, &[]), condition);
        let both = [(Feature::Preflight, "onPreflight"), (Feature::OnlyIfRequired, "onlyIfRequired")];
        assert_eq!(
            target(condition, &both),
            "(tags.site = 'x' OR tags.site = 'y') \
             AND ARRAY_CONTAINS(properties.reported.agent.features, 'preflight') \
             AND ARRAY_CONTAINS(properties.reported.agent.features, 'onlyIfRequired')"
        );
    }

    #[test]
    fn the_end_is_when_the_sums_agree() {
        let counts = |system: [u64; 2], completed: u64, failed: u64, pending: u64| {
            Counts::of(&json!({
                "systemMetrics": {"results": {"targetedCount": system[0], "appliedCount": system[1]}},
                "metrics": {"results": {"completed": completed, "failed": failed, "pending": pending}},
            }))
        };
        for (counts, some, over) in [
            (counts([2, 2], 1, 1, 0), true, true),
            (counts([2, 2], 1, 0, 1), true, false),
            (counts([3, 2], 2, 0, 0), true, false),
            // Counted before the wish was there.
            (counts([2, 2], 0, 0, 0), true, false),
            (counts([0, 0], 0, 0, 0), true, false),
            (counts([0, 0], 0, 0, 0), false, true),
            (Counts::default(), false, false),
        ] {
            assert_eq!(counts.are_complete(some), over, "{counts:?} {some}");
        }
        assert_eq!(
            counts([3, 2], 1, 0, 1).to_string(),
            "3 targeted, 2 applied, 1 completed, 0 failed, 1 pending"
        );
        assert_eq!(Counts::default().to_string(), "not counted yet");
    }
}
