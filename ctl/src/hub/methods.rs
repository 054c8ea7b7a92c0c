//! Direct methods.

use std::pin::pin;
use std::time::Duration;

use iotdm_proto::DeviceId;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout};

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, RESPONSE_LIMIT, identity_path};
use super::throttle::Throttle;
use crate::reply::MethodReply;

/// A call of a direct method, as the hub takes it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodCall {
    /// The method's name.
    pub method_name: String,
    /// The method's argument; absent if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// How long the hub waits for the device's reply, in seconds: 5 to 300, and no
    /// less than for the device to connect.
    pub response_timeout_in_seconds: u64,
    /// How long the hub waits for the device to connect, in seconds: 0 to 300.
    pub connect_timeout_in_seconds: u64,
}

/// The longest of either timeout.
///
/// Source: IoT Hub developer guide, "Understand and invoke direct methods".
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a call counts as one that has just begun.
const BEGINNING: Duration = Duration::from_millis(100);

/// The turn of a call, or of a change of a twin, which may go out now.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(super) at: Instant,
    /// A call's place among those that have just begun.
    pub(super) place: Option<SemaphorePermit<'a>>,
}

impl MethodCall {
    /// A call of `method`. The timeouts, in whole seconds, are how long the hub
    /// waits for the device's reply and, before that, for the device to connect.
    /// The hub counts both in the first and refuses one that is shorter than the
    /// second; such a one becomes their sum, as far as the hub takes it.
    pub fn new(
        method: &(impl ToString + ?Sized),
        payload: Option<Value>,
        response_timeout: Duration,
        connect_timeout: Duration,
    ) -> Self {
        let response_timeout = match response_timeout <= connect_timeout {
            true => (response_timeout + connect_timeout).min(LONGEST_TIMEOUT),
            false => response_timeout,
        };
        MethodCall {
            method_name: method.to_string(),
            payload,
            response_timeout_in_seconds: response_timeout.as_secs(),
            connect_timeout_in_seconds: connect_timeout.as_secs(),
        }
    }
}

impl HubClient {
    /// Calls a direct method of a device, or of the module of it that is meant, and waits
    /// for the reply.
    pub async fn invoke(&self, device: &DeviceId, call: &MethodCall) -> Result<MethodReply, HubError> {
        self.invoke_in_turn(device, call, None).await
    }

    /// Waits until the next call may go out, which [`HubClient::invoke_in_turn`]
    /// then sends at once.
    ///
    /// Only some calls begin at the same time. Most devices reply soon, so that a few
    /// connections carry the calls to all of them; one that takes its time is out of the
    /// way of the others after a moment.
    pub async fn turn_to_call(&self) -> Turn<'_> {
        let place = self.calls.acquire().await.ok();
        Turn { at: self.paces.of(Throttle::MethodCalls).turn().await, place }
    }

    /// Calls a direct method as [`HubClient::invoke`] does, in a turn that has
    /// been waited for with [`HubClient::turn_to_call`], or else in the next one.
    pub async fn invoke_in_turn(
        &self,
        device: &DeviceId,
        call: &MethodCall,
        turn: Option<Turn<'_>>,
    ) -> Result<MethodReply, HubError> {
        let body = json!(call);
        let path = format!("{}/methods", identity_path("twins", &self.identity(device)));
        let mut request = HttpRequest::new(Throttle::MethodCalls, Method::POST, path).body(&body);
        let Turn { at, place } = match turn {
            Some(turn) => turn,
            None => self.turn_to_call().await,
        };
        request.turn = Some(at);
        let seconds = call.response_timeout_in_seconds + call.connect_timeout_in_seconds;
        request.limit = Duration::from_secs(seconds) + RESPONSE_LIMIT;
        let mut sending = pin!(self.json(request));
        let sent = match timeout(BEGINNING, &mut sending).await {
            Ok(sent) => sent,
            Err(_) => {
                drop(place);
                sending.await
            }
        };
        match sent {
            Err(HubError::NoAnswer { host, seconds, .. }) => {
                Err(HubError::NoAnswer { host, seconds, method: true })
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{Credential, Policy};
    use crate::target::Target;

    #[test]
    fn a_call_without_payload_has_no_payload_key() {
        let call = MethodCall::new("m", None, Duration::from_secs(60), Duration::ZERO);
        let expected =
            json!({"methodName": "m", "responseTimeoutInSeconds": 60, "connectTimeoutInSeconds": 0});
        assert_eq!(serde_json::to_value(call).unwrap(), expected);
    }

    #[test]
    fn the_response_timeout_is_no_shorter_than_the_connect_timeout() {
        for (response, connect, sent) in
            [(60, 0, 60), (60, 30, 60), (60, 60, 120), (60, 120, 180), (5, 300, 300), (300, 300, 300)]
        {
            let seconds = Duration::from_secs;
            let call = MethodCall::new("m", None, seconds(response), seconds(connect));
            assert_eq!(
                (call.response_timeout_in_seconds, call.connect_timeout_in_seconds),
                (sent, connect),
                "{response} {connect}"
            );
        }
    }
    /// Also a call that is made again, without a turn of its own.
    #[test]
    fn no_call_begins_without_a_place() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // A port that nobody listens at: a call that goes out fails at once.
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let endpoint = format!("127.0.0.1:{port}").parse().unwrap();
            let credential = Credential::Policy(Policy::new("p".into(), "a2V5".parse().unwrap()));
            let target = Target { endpoint, credential, ca_file: None, module: None };
            let hub = HubClient::new(target).unwrap();
            let places = hub.calls.available_permits();
            let all = hub.calls.acquire_many(places.try_into().unwrap()).await.unwrap();
            let call = MethodCall::new("m", None, Duration::from_secs(5), Duration::ZERO);
            let device = "gw1".parse().unwrap();
            let mut ended = pin!(hub.invoke(&device, &call));
            assert!(timeout(BEGINNING, &mut ended).await.is_err(), "a call began without a place");
            drop(all);
            assert!(matches!(ended.await, Err(HubError::Unreachable { .. })));
        });
    }
}
