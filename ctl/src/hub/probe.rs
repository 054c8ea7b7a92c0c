//! Trying what the hub lets us do.

use reqwest::Method;
use reqwest::header::IF_MATCH;
use serde_json::json;
use uuid::Uuid;

use super::{Hub, Request, clock_ahead, quoted};
use crate::hub_error::HubError;
use crate::refusal::{Kind, Refusal};

/// A right of a shared access policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To use twins, queries, methods and jobs.
    Service,
    /// To read identities.
    RegistryRead,
    /// To change them.
    RegistryWrite,
}

/// What came of trying a right.
#[derive(Debug)]
pub struct Probed {
    /// Why not, if it is not allowed.
    pub refusal: Option<Box<Refusal>>,
    /// How far our clock is ahead of the hub's, in seconds.
    pub clock_ahead: Option<i64>,
}

impl Hub {
    /// Whether the hub lets us use `right`, by a request that changes nothing.
    pub async fn probe(&self, right: Right) -> Result<Probed, HubError> {
        let body = json!({"query": "SELECT deviceId FROM devices"});
        let mut request = match right {
            Right::Service => Request::new(Method::POST, "/devices/query".to_owned()),
            Right::RegistryRead => Request::new(Method::GET, "/statistics/devices".to_owned()),
            // There is no such device; who may not delete does not learn that.
            Right::RegistryWrite => Request::new(Method::DELETE, format!("/devices/{}", Uuid::new_v4())),
        };
        match right {
            Right::Service => {
                request.body = Some(&body);
                request.headers.push(("x-ms-max-item-count", "1".to_owned()));
            }
            Right::RegistryRead => {}
            Right::RegistryWrite => request.headers.push((IF_MATCH.as_str(), quoted("*"))),
        }
        match self.send(&request).await {
            Ok(answer) => Ok(Probed { refusal: None, clock_ahead: clock_ahead(&answer.headers) }),
            Err(HubError::Refused(refusal)) => {
                let clock_ahead = refusal.clock_ahead;
                let expected = right == Right::RegistryWrite && refusal.kind() == Kind::NoSuchDevice;
                Ok(Probed { refusal: (!expected).then_some(refusal), clock_ahead })
            }
            Err(error) => Err(error),
        }
    }
}
