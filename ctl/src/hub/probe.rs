//! Trying what the hub lets us do, and what its tier has.

use reqwest::Method;
use reqwest::header::IF_MATCH;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Hub, Request, clock_ahead, quoted};
use crate::hub_error::HubError;
use crate::refusal::{Kind, Refusal};

/// Something to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The right to use twins, queries, methods and jobs.
    Service,
    /// The right to read identities.
    RegistryRead,
    /// The right to change them.
    RegistryWrite,
    /// Whether the tier has direct methods; a basic one has none.
    Methods,
    /// Whether the tier has jobs.
    Jobs,
}

/// What came of a try.
#[derive(Debug)]
pub struct Probed {
    /// Why not, if it is not allowed.
    pub refusal: Option<Box<Refusal>>,
    /// How far our clock is ahead of the hub's, in seconds.
    pub clock_ahead: Option<i64>,
    /// How many devices are registered, and how many of them disabled, as the
    /// right to read the registry shows.
    pub devices: Option<(u64, u64)>,
}

impl Hub {
    /// Whether the hub lets us, by a request that changes nothing.
    pub async fn probe(&self, probe: Probe) -> Result<Probed, HubError> {
        // There is no such device; who may not does not learn that.
        let nobody = Uuid::new_v4();
        let query = json!({"query": "SELECT deviceId FROM devices"});
        let call = json!({"methodName": "getRebootStatus", "responseTimeoutInSeconds": 5});
        let (method, path, body) = match probe {
            Probe::Service => (Method::POST, "/devices/query".to_owned(), Some(&query)),
            Probe::RegistryRead => (Method::GET, "/statistics/devices".to_owned(), None),
            Probe::RegistryWrite => (Method::DELETE, format!("/devices/{nobody}"), None),
            Probe::Methods => (Method::POST, format!("/twins/{nobody}/methods"), Some(&call)),
            Probe::Jobs => (Method::GET, "/jobs/v2/query".to_owned(), None),
        };
        let mut request = Request::new(method, path);
        request.body = body;
        request.repeatable = true;
        match probe {
            Probe::Service | Probe::Jobs => request.headers.push(("x-ms-max-item-count", "1".to_owned())),
            Probe::RegistryWrite => request.headers.push((IF_MATCH.as_str(), quoted("*"))),
            Probe::RegistryRead | Probe::Methods => {}
        }
        match self.send(&request).await {
            Ok(answer) => Ok(Probed {
                refusal: None,
                clock_ahead: clock_ahead(&answer.headers),
                devices: serde_json::from_str(&answer.body).ok().as_ref().and_then(devices),
            }),
            Err(HubError::Refused(refusal)) => {
                let about_nobody = matches!(probe, Probe::RegistryWrite | Probe::Methods);
                let expected = about_nobody && refusal.kind() == Kind::NoSuchDevice;
                let clock_ahead = refusal.clock_ahead;
                Ok(Probed { refusal: (!expected).then_some(refusal), clock_ahead, devices: None })
            }
            Err(error) => Err(error),
        }
    }
}

/// Of the registry's statistics.
fn devices(statistics: &Value) -> Option<(u64, u64)> {
    let count = |key: &str| statistics.get(key).and_then(Value::as_u64);
    Some((count("totalDeviceCount")?, count("disabledDeviceCount").unwrap_or_default()))
}
