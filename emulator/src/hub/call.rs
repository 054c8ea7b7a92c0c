//! Calling a direct method: from the hub to the device and back.
//!
//! A call reaches its device at most once. Source: "Understand and invoke
//! direct methods from IoT Hub".

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::Hub;
use crate::link::{CallOutcome, PendingCall};
use crate::method_call::MethodCall;
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

/// What the service says of a device that is not there, or does not listen for
/// calls. Source: issue 3442 of the .NET SDK, of 2024.
const NOT_ONLINE: &str = "The operation failed because the requested device isn't online or hasn't \
                          registered the direct method callback. To learn more, see \
                          https://aka.ms/iothub404103";

impl Hub {
    /// Calls a method of the device or module `id` and returns the reply: the
    /// device's own status, and its payload. Waits for the device to connect
    /// and subscribe, then for the reply, each for as long as the call allows.
    pub async fn call(&self, id: &Identity, call: &MethodCall) -> Result<(i64, Value), HubRefusal> {
        self.registry.read(id, |_| ())?;
        let mut pending = self.deliver_call(id, call).await?;
        match timeout(call.response_timeout, &mut pending.outcome).await {
            Ok(Ok(CallOutcome::Reply(status, payload))) => Ok((status, payload)),
            Ok(Ok(CallOutcome::Replaced)) => Err(ErrorCode::ConnectionForcefullyClosedOnNewConnection
                .because("the device opened a new connection before it answered")),
            Ok(Err(_)) => Err(ErrorCode::DeviceConnectionClosedRemotely.because(
                "the device's connection ended before it answered; it may have carried the method out",
            )),
            Err(_) => {
                self.links.forget_call(id, &pending.rid);
                Err(ErrorCode::GatewayTimeout.because("Timed out waiting for the response from device."))
            }
        }
    }

    /// Sends the call as soon as the device is connected and listens.
    async fn deliver_call(&self, id: &Identity, call: &MethodCall) -> Result<PendingCall, HubRefusal> {
        let deadline = Instant::now() + call.connect_timeout;
        let mut changes = self.links.watch();
        loop {
            let delivery = || self.faults.delivery(id);
            if let Some(pending) = self.links.call(id, &call.name, &call.payload, delivery) {
                return Ok(pending);
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(ErrorCode::DeviceNotOnline.because(NOT_ONLINE).after(call.connect_timeout));
            }
        }
    }
}
