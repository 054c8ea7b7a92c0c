//! Tries what the hub lets us do and what its tier has, by HTTP requests that
//! change nothing.

use iotdm_proto::MethodName;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, clock_ahead};
use super::pages::PAGE_SIZE;
use super::refusal::{HubRefusal, RefusalKind};
use super::throttle::Throttle;

/// Something to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The right to use twins, queries, methods and jobs.
    Service,
    /// The right to read identities.
    RegistryRead,
    /// The right to change identities.
    RegistryWrite,
    /// Whether the tier has direct methods; a basic tier has none.
    Methods,
    /// Whether the tier has jobs.
    Jobs,
}

/// What came of a try.
#[derive(Debug)]
pub struct Probed {
    /// The hub's refusal, if what was tried is not allowed.
    pub refusal: Option<Box<HubRefusal>>,
    /// How far our clock is ahead of the hub's, in seconds.
    pub clock_ahead: Option<i64>,
    /// How many devices are registered, and how many of them disabled. Known
    /// only of [`Probe::RegistryRead`].
    pub devices: Option<(u64, u64)>,
}

impl HubClient {
    /// Whether the hub lets us do something.
    pub async fn probe(&self, probe: Probe) -> Result<Probed, HubError> {
        // A device that does not exist. To a caller without the right the hub
        // says so, and not that the device is missing.
        let nobody = Uuid::new_v4();
        let query = json!({"query": "SELECT deviceId FROM devices"});
        let call = json!({"methodName": MethodName::GetRebootStatus, "responseTimeoutInSeconds": 5});
        let of = |throttle, method, path: &str| HttpRequest::new(throttle, method, path.to_owned());
        let one_row = |request: HttpRequest<'static>| request.header(PAGE_SIZE, "1".to_owned());
        let mut request = match probe {
            Probe::Service => one_row(of(Throttle::Queries, Method::POST, "/devices/query")).body(&query),
            Probe::RegistryRead => of(Throttle::Others, Method::GET, "/statistics/devices"),
            Probe::RegistryWrite => {
                of(Throttle::Others, Method::DELETE, &format!("/devices/{nobody}")).if_match("*")
            }
            Probe::Methods => {
                of(Throttle::MethodCalls, Method::POST, &format!("/twins/{nobody}/methods")).body(&call)
            }
            Probe::Jobs => one_row(of(Throttle::Others, Method::GET, "/jobs/v2/query")),
        };
        request.repeatable = true;
        match self.send(&request).await {
            Ok(response) => Ok(Probed {
                refusal: None,
                clock_ahead: clock_ahead(&response.headers),
                devices: serde_json::from_str(&response.body).ok().as_ref().and_then(device_counts),
            }),
            Err(HubError::Refused(refusal)) => {
                let about_nobody = matches!(probe, Probe::RegistryWrite | Probe::Methods);
                let expected = about_nobody && refusal.kind() == RefusalKind::NoSuchDevice;
                let clock_ahead = refusal.clock_ahead;
                Ok(Probed { refusal: (!expected).then_some(refusal), clock_ahead, devices: None })
            }
            Err(error) => Err(error),
        }
    }
}

/// The counts of all and of disabled devices in the registry's statistics.
fn device_counts(statistics: &Value) -> Option<(u64, u64)> {
    let count = |key: &str| statistics.get(key).and_then(Value::as_u64);
    Some((count("totalDeviceCount")?, count("disabledDeviceCount").unwrap_or_default()))
}
