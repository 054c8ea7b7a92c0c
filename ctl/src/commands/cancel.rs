//! `cancel`: withdraws reboots that have not begun: wishes from the twins, requests
//! from the devices.

use std::cell::{Cell, RefCell};

use anyhow::Context as _;
use clap::ValueEnum;
use futures_util::{StreamExt as _, stream};
use iotdm_proto::reply::{GRANTED, Granted};
use iotdm_proto::report::{RebootStatus, RequestedBy};
use iotdm_proto::request::CancelRequest;
use iotdm_proto::{DeviceId, ErrorCode, MethodName, RequestId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{CallTimeouts, CancelArgs};
use crate::commands::reboot;
use crate::commands::selection::{Conditions, each_once, selected};
use crate::device_file;
use crate::error::or_interrupt;
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, HubError, MethodCall};
use crate::output::{Format, Output, say};
use crate::reply::MethodReply;
use crate::twin::{Twin, without_wish};

/// How many devices are asked at once.
const AT_ONCE: usize = 10;
/// How many devices are called in a second: what a hub of one unit S1 takes.
const PER_SECOND: u32 = 40;

/// What a twin says about reboots to come.
#[derive(Debug, PartialEq, Eq)]
struct Pending<'a> {
    /// The id of a wish of which the device has reported no outcome.
    wish: Option<&'a str>,
    /// Whether the wish has begun, so that it is too late to take it back.
    wish_has_begun: bool,
    /// Whether the device reports that a request other than the wish is to come.
    other_request: bool,
}

/// The answer to a cancellation.
struct Answered {
    /// The device's reply, or the same for a wish.
    reply: MethodReply,
    /// Whether the twin told, and the device was not asked.
    by_the_twin: bool,
}

/// What came of a cancellation on one of several devices.
///
/// `ValueEnum` gives the full list, against which a test holds the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
#[value(rename_all = "camelCase")]
enum Kind {
    Cancelled,
    NothingPending,
    TooLate,
    Refused,
    Offline,
    NoSuchDevice,
    TimedOut,
    NotAuthorized,
    Throttled,
    Error,
}

/// What came of the cancellation on a device.
#[derive(Debug, Serialize)]
struct Cancellation {
    device: DeviceId,
    outcome: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<MethodReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Takes the wishes out of the twins, or calls `cancelReboot`, and prints what came
/// of it.
pub async fn run(hub: &HubClient, output: Output, args: CancelArgs) -> anyhow::Result<Exit> {
    if let ([device], true) = (args.devices.as_slice(), output.format() != Format::Csv) {
        let answered = cancel(hub, device, args.id.as_ref(), args.timeouts).await?;
        return print(output, device, &answered);
    }
    let devices = which(hub, &args).await?;
    if devices.is_empty() {
        let (why, exit) = match &args.journal {
            Some(path) => {
                (format!("{}: nothing is pending of what this run asked for", path.display()), Exit::Refused)
            }
            None => ("no device is selected".to_owned(), Exit::NoSuchDevice),
        };
        say(format_args!("iotdm-ctl: {why}, nothing was sent"));
        if !output.is_tabular() {
            output.array(&[] as &[Cancellation])?;
        }
        return Ok(exit);
    }
    hub.no_faster_than(PER_SECOND);
    many(hub, output, &devices, args.timeouts).await
}

/// The devices that the command line means, each once, with the id of the request
/// that is to be cancelled if it has to be a certain one.
async fn which(hub: &HubClient, args: &CancelArgs) -> anyhow::Result<Vec<(DeviceId, Option<RequestId>)>> {
    if let Some(path) = &args.journal {
        let asked = reboot::asked(hub, path)?;
        return Ok(asked.into_iter().map(|(device, id)| (device, Some(id))).collect());
    }
    let conditions = Conditions::given(hub, args.condition.as_ref(), args.where_module.as_ref())?;
    let devices = match (conditions, &args.devices_from) {
        (Some(conditions), _) => selected(hub, conditions).await?,
        (None, Some(path)) => device_file::devices("--devices-from", path)?,
        (None, None) => args.devices.clone(),
    };
    Ok(each_once(devices).into_iter().map(|device| (device, args.id.clone())).collect())
}

/// Cancels on many devices, prints what came of it on each, and how many of them came
/// to what.
async fn many(
    hub: &HubClient,
    output: Output,
    devices: &[(DeviceId, Option<RequestId>)],
    timeouts: CallTimeouts,
) -> anyhow::Result<Exit> {
    let (stopped, known) = (Cell::new(false), RefCell::new(Vec::new()));
    let one = async |(device, id): &(DeviceId, Option<RequestId>)| {
        if stopped.get() {
            return Cancellation::of_error(device, Kind::Error, "not asked, since the hub failed".to_owned());
        }
        let result = cancel_or_nothing(hub, device, id.as_ref(), timeouts).await;
        let hubs_own = |error: &anyhow::Error| {
            error.chain().filter_map(|cause| cause.downcast_ref()).any(HubError::is_hubs_own)
        };
        stopped.set(stopped.get() || result.as_ref().is_err_and(hubs_own));
        Cancellation::of(device, result)
    };
    let all = async {
        let mut results = stream::iter(devices).map(one).buffer_unordered(AT_ONCE);
        while let Some(cancellation) = results.next().await {
            cancellation.print(output)?;
            known.borrow_mut().push(cancellation);
        }
        Ok(())
    };
    let notice =
        || format!("interrupted: {} devices; a few more may have been asked", counts(&known.borrow()));
    or_interrupt(all, notice).await?;
    let known = known.into_inner();
    match output.format() {
        Format::Text => output.line(format_args!("{} devices: {}", known.len(), counts(&known)))?,
        Format::Json => output.array(&known)?,
        Format::Jsonl | Format::Prometheus => {}
        Format::Csv => {
            let row = |on: &Cancellation| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                vec![on.device.to_string(), on.outcome.name(), text(&on.id), text(&on.error)]
            };
            output.table(&["DEVICE", "OUTCOME", "ID", "WHY"], &known.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    Ok(exit_of_all(known.iter().map(|on| on.outcome)))
}

/// How many devices came to what, in one line.
fn counts(known: &[Cancellation]) -> String {
    let count = |kind: &Kind| known.iter().filter(|on| on.outcome == *kind).count();
    let counts =
        Kind::value_variants().iter().map(|kind| (kind, count(kind))).filter(|(_, count)| *count > 0);
    counts.map(|(kind, count)| format!("{count} {}", kind.words())).collect::<Vec<_>>().join(", ")
}

/// The exit code for several devices: that of each if they agree. A device with
/// nothing pending is as it was to be, unless that holds of all.
fn exit_of_all(kinds: impl Iterator<Item = Kind>) -> Exit {
    let kinds: Vec<Kind> = kinds.collect();
    let counts = |kind: &&Kind| **kind != Kind::NothingPending;
    let mut exits = kinds.iter().filter(counts).map(|kind| kind.exit());
    match exits.next() {
        None => Kind::NothingPending.exit(),
        Some(first) if exits.all(|exit| exit == first) => first,
        Some(_) => Exit::RebootFailed,
    }
}

/// Cancels on one of many devices. If the device is offline and its twin says that
/// nothing is to come, there is nothing to cancel.
async fn cancel_or_nothing(
    hub: &HubClient,
    device: &DeviceId,
    id: Option<&RequestId>,
    timeouts: CallTimeouts,
) -> anyhow::Result<Answered> {
    let result = cancel(hub, device, id, timeouts).await;
    if !result.as_ref().is_err_and(|error| exit_of(error) == Exit::Offline) {
        return result;
    }
    let twin = hub.twin(device).await.with_context(|| device.to_string())?;
    let pending = Pending::of(&twin);
    if pending.other_request || pending.wish.is_some() {
        return result;
    }
    let code = ErrorCode::NothingPending;
    let message = "the device is offline, and its twin says that nothing is pending";
    let payload = json!({"error": {"code": code, "message": message}});
    Ok(Answered { reply: MethodReply { status: code.status().into(), payload }, by_the_twin: true })
}

/// Cancels the pending reboot of a device, or only the request `id`.
async fn cancel(
    hub: &HubClient,
    device: &DeviceId,
    id: Option<&RequestId>,
    timeouts: CallTimeouts,
) -> anyhow::Result<Answered> {
    let twin = hub.twin(device).await.with_context(|| device.to_string())?;
    let pending = Pending::of(&twin);
    let wish = pending.wish.filter(|wish| id.is_none_or(|id| id.as_str() == *wish));
    if let Some(wish) = wish {
        if pending.wish_has_begun {
            let code = ErrorCode::TooLate;
            let payload = json!({"error": {"code": code, "message": format!("reboot {wish} has begun")}});
            return Ok(Answered {
                reply: MethodReply { status: code.status().into(), payload },
                by_the_twin: true,
            });
        }
        hub.patch_twin(device, &without_wish(), twin.etag()).await.with_context(|| device.to_string())?;
        if !pending.other_request {
            let payload = json!({"id": wish, "status": Granted::Cancelled, "requestedBy": RequestedBy::Twin});
            return Ok(Answered {
                reply: MethodReply { status: GRANTED.into(), payload },
                by_the_twin: true,
            });
        }
        say(format_args!("{device}: the wish for reboot {wish} is out of the twin"));
    }
    let payload = json!(CancelRequest { id: id.cloned() });
    let call = MethodCall::new(&MethodName::CancelReboot, Some(payload), timeouts.response, timeouts.connect);
    let reply = hub.invoke(device, &call).await.with_context(|| device.to_string())?;
    Ok(Answered { reply, by_the_twin: false })
}

/// Prints the answer of the only device of a command.
fn print(output: Output, device: &DeviceId, answered: &Answered) -> anyhow::Result<Exit> {
    if !output.is_text() {
        output.json(&answered.reply)?;
    }
    match answered.refusal() {
        Some(refusal) => {
            say(format_args!("iotdm-ctl: {device}: {refusal}"));
            Ok(Exit::Refused)
        }
        None => {
            if output.is_text() {
                output.line(format_args!("{device}: {}", answered.success()))?;
            }
            Ok(Exit::Done)
        }
    }
}

impl Answered {
    /// Why nothing was cancelled, if so, in one clause.
    fn refusal(&self) -> Option<String> {
        let text = |pointer: &str| self.reply.payload.pointer(pointer).and_then(Value::as_str);
        match (self.reply.is_refusal(), self.by_the_twin) {
            (false, _) => None,
            (true, false) => Some(self.reply.refusal()),
            (true, true) if text("/error/code") == Some(ErrorCode::TooLate.as_str()) => {
                Some(format!("{}, it is too late to cancel it", text("/error/message").unwrap_or_default()))
            }
            (true, true) => text("/error/message").map(str::to_owned),
        }
    }

    /// What was cancelled, in one clause.
    fn success(&self) -> String {
        let id = self.reply.request_id().unwrap_or_default();
        let how = if self.by_the_twin { ", the wish is out of the twin" } else { "" };
        format!("reboot {id} cancelled{how}")
    }
}

impl Cancellation {
    fn of(device: &DeviceId, result: anyhow::Result<Answered>) -> Self {
        match result {
            Ok(answered) => Cancellation {
                device: device.clone(),
                outcome: Kind::of(&answered.reply),
                id: answered.reply.request_id().map(str::to_owned),
                error: answered.refusal(),
                reply: Some(answered.reply),
            },
            Err(error) => {
                let text = format!("{error:#}");
                let text = text.strip_prefix(&format!("{device}: ")).unwrap_or(&text);
                Cancellation::of_error(device, Kind::of_error(exit_of(&error)), text.to_owned())
            }
        }
    }

    fn of_error(device: &DeviceId, outcome: Kind, error: String) -> Self {
        Cancellation { device: device.clone(), outcome, id: None, reply: None, error: Some(error) }
    }

    /// Prints what is told of each device as soon as it is known.
    fn print(&self, output: Output) -> anyhow::Result<()> {
        let device = &self.device;
        if output.format() == Format::Jsonl {
            output.json(self)?;
        }
        match &self.error {
            Some(error) => say(format_args!("iotdm-ctl: {device}: {error}")),
            None if output.is_text() => {
                output.line(format_args!(
                    "{device}: reboot {} cancelled",
                    self.id.as_deref().unwrap_or_default()
                ))?;
            }
            None => {}
        }
        Ok(())
    }
}

impl Kind {
    fn of(reply: &MethodReply) -> Self {
        let code = reply.payload.pointer("/error/code").and_then(Value::as_str);
        let is = |wanted: ErrorCode| code == Some(wanted.as_str());
        match reply.is_refusal() {
            false => Kind::Cancelled,
            true if is(ErrorCode::TooLate) => Kind::TooLate,
            true if is(ErrorCode::NothingPending) => Kind::NothingPending,
            true => Kind::Refused,
        }
    }

    /// What an error amounts to that alone would lead to the exit code `exit`.
    fn of_error(exit: Exit) -> Self {
        match exit {
            Exit::Refused => Kind::Refused,
            Exit::Offline => Kind::Offline,
            Exit::NoSuchDevice => Kind::NoSuchDevice,
            Exit::TimedOut => Kind::TimedOut,
            Exit::NotAuthorized => Kind::NotAuthorized,
            Exit::Throttled => Kind::Throttled,
            Exit::Done | Exit::Failure | Exit::Usage | Exit::RebootFailed | Exit::Interrupted => Kind::Error,
        }
    }

    fn exit(self) -> Exit {
        match self {
            Kind::Cancelled => Exit::Done,
            Kind::NothingPending | Kind::TooLate | Kind::Refused => Exit::Refused,
            Kind::Offline => Exit::Offline,
            Kind::NoSuchDevice => Exit::NoSuchDevice,
            Kind::TimedOut => Exit::TimedOut,
            Kind::NotAuthorized => Exit::NotAuthorized,
            Kind::Throttled => Exit::Throttled,
            Kind::Error => Exit::Failure,
        }
    }

    /// The kind for people.
    fn words(self) -> &'static str {
        match self {
            Kind::Cancelled => "cancelled",
            Kind::NothingPending => "nothing pending",
            Kind::TooLate => "too late",
            Kind::Refused => "refused",
            Kind::Offline => "offline",
            Kind::NoSuchDevice => "no such device",
            Kind::TimedOut => "timed out",
            Kind::NotAuthorized => "not authorised",
            Kind::Throttled => "throttled",
            Kind::Error => "failed",
        }
    }

    /// The kind for programs.
    fn name(self) -> String {
        json!(self).as_str().unwrap_or_default().to_owned()
    }
}

impl<'a> Pending<'a> {
    fn of(twin: &'a Twin) -> Self {
        let reported = twin.reported();
        let (id, status) = (reported.request_id(), reported.known_status());
        let is_over = status.is_some_and(RebootStatus::is_final);
        let wish = twin.open_wish().and_then(|_| twin.wish_id());
        let reported_is_wish = wish.is_some() && id == wish;
        Pending {
            wish,
            wish_has_begun: reported_is_wish && status == Some(RebootStatus::Rebooting),
            other_request: !reported_is_wish && status.is_some() && !is_over,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_help_names_each_outcome() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("cancel").unwrap().render_long_help().to_string();
        let (_, named) = help.split_once("outcome is ").unwrap();
        for kind in Kind::value_variants() {
            assert!(named.contains(&kind.name()), "{kind:?}");
        }
    }

    #[test]
    fn several_devices_agree_or_are_mixed() {
        use Kind::*;
        for (kinds, exit) in [
            (&[Cancelled, Cancelled][..], Exit::Done),
            (&[Cancelled, NothingPending], Exit::Done),
            (&[NothingPending, NothingPending], Exit::Refused),
            (&[TooLate, NothingPending], Exit::Refused),
            (&[Cancelled, TooLate], Exit::RebootFailed),
            (&[Offline, Offline], Exit::Offline),
        ] {
            assert_eq!(exit_of_all(kinds.iter().copied()), exit, "{kinds:?}");
        }
    }

    #[test]
    fn what_is_pending() {
        let twin = |wish: Value, reboot: Value| json!({"properties": {"desired": {"reboot": wish}, "reported": {"reboot": reboot}}});
        let wished = || json!({"id": "w"});
        let reboot = |id: &str, status: &str| json!({"id": id, "status": status});
        for (twin, wish, wish_has_begun, other_request) in [
            (json!({}), None, false, false),
            (twin(wished(), Value::Null), Some("w"), false, false),
            (twin(wished(), reboot("w", "scheduled")), Some("w"), false, false),
            (twin(wished(), reboot("w", "rebooting")), Some("w"), true, false),
            (twin(wished(), reboot("w", "completed")), None, false, false),
            (twin(wished(), reboot("m", "completed")), Some("w"), false, false),
            (twin(wished(), reboot("m", "waiting")), Some("w"), false, true),
            (twin(Value::Null, reboot("m", "scheduled")), None, false, true),
        ] {
            let twin = Twin::from(twin);
            assert_eq!(Pending::of(&twin), Pending { wish, wish_has_begun, other_request }, "{twin:?}");
        }
    }
}
