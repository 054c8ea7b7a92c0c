//! The provisioning service says no: one flat JSON object, unlike the hub's
//! refusals, with an id that support can look for.
//!
//! A device that may not register is not told why; the log has it. Source:
//! conversations with the service that others recorded and quoted, 2019 to 2022.

use std::time::SystemTime;

use iotdm_proto::Time;
use serde_json::{Value, json};

use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};

/// How the client came to the service, which numbers and words depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By MQTT, over TCP or a WebSocket.
    Mqtt,
    /// By HTTPS.
    Https,
}

/// The body of the answer to a refused request, and the id in it.
pub fn body(refusal: &HubRefusal, way: Way) -> (Value, String) {
    let id = tracking_id();
    let (number, message) = match (refusal.code, way) {
        // A token that does not fit.
        (ErrorCode::GenericUnauthorized, Way::Mqtt) => (refusal.code as u32, "Unauthorized"),
        (ErrorCode::GenericUnauthorized, Way::Https) => {
            (ErrorCode::IotHubUnauthorizedAccess as u32, "Unauthorized")
        }
        // A certificate that does not fit.
        (ErrorCode::InvalidCertificate, Way::Mqtt) => {
            (ErrorCode::IotHubUnauthorizedAccess as u32, "Invalid certificate.")
        }
        (ErrorCode::InvalidCertificate, Way::Https) => {
            (ErrorCode::IotHubUnauthorizedAccess as u32, "Invalid certificate")
        }
        (code, _) => (code as u32, refusal.message.as_str()),
    };
    let body = json!({
        "errorCode": number,
        "trackingId": id,
        "message": message,
        "timestampUtc": Time::from(SystemTime::now()),
    });
    (body, id)
}

/// A new id in the service's form, which is a GUID.
fn tracking_id() -> String {
    random::guid().unwrap_or_else(|_| "00000000-0000-0000-0000-000000000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_learns_as_much_as_the_service_says() {
        for (code, way, number, message) in [
            (ErrorCode::GenericUnauthorized, Way::Mqtt, 401_000, "Unauthorized"),
            (ErrorCode::GenericUnauthorized, Way::Https, 401_002, "Unauthorized"),
            (ErrorCode::InvalidCertificate, Way::Mqtt, 401_002, "Invalid certificate."),
            (ErrorCode::InvalidCertificate, Way::Https, 401_002, "Invalid certificate"),
            (ErrorCode::EnrollmentNotFound, Way::Https, 404_201, "why"),
        ] {
            let (body, id) = body(&code.because("why"), way);
            assert_eq!((&body["errorCode"], &body["message"]), (&json!(number), &json!(message)));
            assert_eq!(body["trackingId"], id);
            assert_eq!(code.status().as_u16(), (number / 1000) as u16);
            assert_eq!(body.as_object().unwrap().len(), 4);
        }
    }
}
