//! `cancel`: withdraws a reboot that has not begun: a wish from the twin, a
//! request from the device.

use anyhow::Context as _;
use iotdm_proto::report::RebootStatus;
use serde_json::{Value, json};

use crate::cli::CancelArgs;
use crate::commands::reboot::{no_wish, refusal, wished_id};
use crate::error::Exit;
use crate::hub::{Hub, MethodCall, MethodReply};
use crate::output::{Output, say};

/// What a twin says about reboots to come.
#[derive(Debug, PartialEq, Eq)]
struct Pending<'a> {
    /// A wish that the device has not ended, by its id.
    wish: Option<&'a str>,
    /// The wish has begun, so that it is too late to take it back.
    begun: bool,
    /// Another request, of which the device reports that it is to come.
    other: bool,
}

/// Takes back the wish, or calls `cancelReboot`, and prints what came of it.
pub async fn run(hub: &Hub, output: Output, args: CancelArgs) -> anyhow::Result<Exit> {
    let device = &args.device;
    let twin = hub.twin(device).await.with_context(|| device.to_string())?;
    let pending = Pending::of(&twin);
    let wish = pending.wish.filter(|wish| args.id.as_deref().is_none_or(|id| id == *wish));
    if let Some(wish) = wish {
        if pending.begun {
            let payload =
                json!({"error": {"code": "tooLate", "message": format!("reboot {wish} has begun")}});
            if !output.is_text() {
                output.json(&MethodReply { status: 409, payload })?;
            }
            say(format_args!("iotdm-ctl: {device}: reboot {wish} has begun, it is too late to cancel it"));
            return Ok(Exit::Refused);
        }
        let etag = twin.get("etag").and_then(Value::as_str);
        hub.patch_twin(device, &no_wish(), etag).await.with_context(|| device.to_string())?;
        if !pending.other {
            let payload = json!({"id": wish, "status": "cancelled", "requestedBy": "twin"});
            if !output.is_text() {
                output.json(&MethodReply { status: 200, payload })?;
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

async fn ask_device(hub: &Hub, output: Output, args: CancelArgs) -> anyhow::Result<Exit> {
    let device = &args.device;
    let call = MethodCall {
        method_name: "cancelReboot".to_owned(),
        payload: Some(args.id.map_or_else(|| json!({}), |id| json!({ "id": id }))),
        response_timeout_in_seconds: args.response_timeout.as_secs(),
        connect_timeout_in_seconds: args.connect_timeout.as_secs(),
    };
    let reply = hub.invoke(device, &call).await.with_context(|| device.to_string())?;
    if !output.is_text() {
        output.json(&reply)?;
    }
    if reply.status >= 400 {
        say(format_args!("iotdm-ctl: {device}: {}", refusal(&reply)));
        return Ok(Exit::Refused);
    }
    if output.is_text() {
        let id = reply.payload.get("id").and_then(Value::as_str).unwrap_or_default();
        output.line(format_args!("{device}: reboot {id} cancelled"))?;
    }
    Ok(Exit::Done)
}

impl<'a> Pending<'a> {
    fn of(twin: &'a Value) -> Self {
        let reboot = twin.pointer("/properties/reported/reboot");
        let at = |key: &str| reboot.and_then(|reboot| reboot.get(key));
        let id = at("id").and_then(Value::as_str);
        let status: Option<RebootStatus> =
            at("status").and_then(|status| serde_json::from_value(status.clone()).ok());
        let over = status.is_some_and(RebootStatus::is_final);
        let wish = wished_id(twin).filter(|wish| !(id == Some(*wish) && over));
        let own = wish.is_some() && id == wish;
        Pending {
            wish,
            begun: own && status == Some(RebootStatus::Rebooting),
            other: !own && status.is_some() && !over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending() {
        let twin = |wish: Value, reboot: Value| json!({"properties": {"desired": {"reboot": wish}, "reported": {"reboot": reboot}}});
        let wished = || json!({"id": "w"});
        let reboot = |id: &str, status: &str| json!({"id": id, "status": status});
        for (twin, wish, begun, other) in [
            (json!({}), None, false, false),
            (twin(wished(), Value::Null), Some("w"), false, false),
            (twin(wished(), reboot("w", "scheduled")), Some("w"), false, false),
            (twin(wished(), reboot("w", "rebooting")), Some("w"), true, false),
            (twin(wished(), reboot("w", "completed")), None, false, false),
            (twin(wished(), reboot("m", "completed")), Some("w"), false, false),
            (twin(wished(), reboot("m", "waiting")), Some("w"), false, true),
            (twin(Value::Null, reboot("m", "scheduled")), None, false, true),
        ] {
            assert_eq!(Pending::of(&twin), Pending { wish, begun, other }, "{twin}");
        }
    }
}
