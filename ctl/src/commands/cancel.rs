//! `cancel`: withdraws a reboot that has not begun: a wish from the twin, a
//! request from the device.

use anyhow::Context as _;
use iotdm_proto::reply::{GRANTED, Granted};
use iotdm_proto::report::{RebootStatus, RequestedBy};
use iotdm_proto::request::CancelRequest;
use iotdm_proto::{ErrorCode, MethodName};
use serde_json::json;

use crate::cli::CancelArgs;
use crate::exit::Exit;
use crate::hub::{HubClient, MethodCall};
use crate::output::{Output, say};
use crate::reply::MethodReply;
use crate::twin::{Twin, without_wish};

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

/// Takes the wish out of the twin, or calls `cancelReboot`, and prints what came
/// of it.
pub async fn run(hub: &HubClient, output: Output, args: CancelArgs) -> anyhow::Result<Exit> {
    let device = &args.device;
    let twin = hub.twin(device).await.with_context(|| device.to_string())?;
    let pending = Pending::of(&twin);
    let named = args.id.as_ref().map(|id| id.as_str());
    let wish = pending.wish.filter(|wish| named.is_none_or(|id| id == *wish));
    if let Some(wish) = wish {
        if pending.wish_has_begun {
            let code = ErrorCode::TooLate;
            let payload = json!({"error": {"code": code, "message": format!("reboot {wish} has begun")}});
            if !output.is_text() {
                output.json(&MethodReply { status: code.status().into(), payload })?;
            }
            say(format_args!("iotdm-ctl: {device}: reboot {wish} has begun, it is too late to cancel it"));
            return Ok(Exit::Refused);
        }
        hub.patch_twin(device, &without_wish(), twin.etag()).await.with_context(|| device.to_string())?;
        if !pending.other_request {
            let payload = json!({"id": wish, "status": Granted::Cancelled, "requestedBy": RequestedBy::Twin});
            if !output.is_text() {
                output.json(&MethodReply { status: GRANTED.into(), payload })?;
            } else {
                output
                    .line(format_args!("{device}: reboot {wish} cancelled, the wish is out of the twin"))?;
            }
            return Ok(Exit::Done);
        }
        say(format_args!("{device}: the wish for reboot {wish} is out of the twin"));
    }
    ask_device(hub, output, args).await
}

/// Calls `cancelReboot`, and prints the device's reply.
async fn ask_device(hub: &HubClient, output: Output, args: CancelArgs) -> anyhow::Result<Exit> {
    let (device, timeouts) = (&args.device, args.timeouts);
    let payload = json!(CancelRequest { id: args.id });
    let call = MethodCall::new(&MethodName::CancelReboot, Some(payload), timeouts.response, timeouts.connect);
    let reply = hub.invoke(device, &call).await.with_context(|| device.to_string())?;
    if !output.is_text() {
        output.json(&reply)?;
    }
    if reply.is_refusal() {
        say(format_args!("iotdm-ctl: {device}: {}", reply.refusal()));
        return Ok(Exit::Refused);
    }
    if output.is_text() {
        let id = reply.request_id().unwrap_or_default();
        output.line(format_args!("{device}: reboot {id} cancelled"))?;
    }
    Ok(Exit::Done)
}

impl<'a> Pending<'a> {
    fn of(twin: &'a Twin) -> Self {
        let reported = twin.reported();
        let (id, status) = (reported.request_id(), reported.known_status());
        let is_over = status.is_some_and(RebootStatus::is_final);
        let wish = twin.wish_id().filter(|wish| !(id == Some(*wish) && is_over));
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
    use serde_json::Value;

    use super::*;

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
