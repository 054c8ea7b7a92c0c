//! The hub says no: refusals in IoT Hub's numbers and shapes.
//!
//! An HTTP response has one of three shapes: the classic one, one for method calls
//! ([`HubRefusal::into_nested_response`]), and a flat one for modules, which is
//! also what a device gets. The service explains little; what the emulator knows
//! beyond that stands in the header `x-emulator-reason` and in the log. Source of the numbers and names: "Troubleshoot Azure IoT Hub error
//! codes" and "Troubleshoot Azure IoT Hub Device Provisioning Service" in
//! Microsoft's documentation, and the .NET SDK's `IotHubServiceErrorCode`; of the
//! bodies: the REST reference and what public issues quote.

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use iotdm_proto::Time;
use iotdm_proto::twin::TwinError;
use serde_json::{Value, json};
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::random;

/// IoT Hub's number for what went wrong, of which the first three digits are the
/// HTTP status. A variant's name is the name that IoT Hub has for the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// A request of a kind that the hub does not have.
    GenericBadRequest = 400_000,
    /// A request that makes no sense for its target.
    InvalidOperation = 400_003,
    /// A value that is not allowed.
    ArgumentInvalid = 400_004,
    /// A value that is missing.
    ArgumentNull = 400_005,
    /// An identity that is in one request twice.
    DeviceDefinedMultipleTimes = 400_011,
    /// Another connection of the device took over. Microsoft's table names
    /// no HTTP status for it; 400 follows from the number, unverified.
    ConnectionForcefullyClosedOnNewConnection = 400_027,
    /// A token by which the provisioning service does not let a device register.
    GenericUnauthorized = 401_000,
    /// A certificate by which it does not. Its number and name are not told: the
    /// service calls it by those of [`ErrorCode::IotHubUnauthorizedAccess`].
    InvalidCertificate = 401_900,
    /// No token, or one that does not verify.
    IotHubUnauthorizedAccess = 401_002,
    /// A token that has ended or is for something else.
    IotHubUnauthorized = 401_003,
    /// As many messages wait for the device as may.
    DeviceMaximumQueueDepthExceeded = 403_004,
    /// No such device.
    DeviceNotFound = 404_001,
    /// No such module.
    ModuleNotFound = 404_010,
    /// No such configuration.
    ConfigurationNotFound = 404_301,
    /// No such job.
    JobNotFound = 404_002,
    /// There is nothing of that name.
    GenericNotFound = 404_000,
    /// The provisioning service has no such enrolment.
    EnrollmentNotFound = 404_201,
    /// The provisioning service has no such registration.
    DeviceRegistrationNotFound = 404_202,
    /// The provisioning service has no such operation.
    AsyncOperationNotFound = 404_203,
    /// The provisioning service has no such group.
    EnrollmentGroupNotFound = 404_204,
    /// The device is not connected, or does not listen for methods.
    DeviceNotOnline = 404_103,
    /// The device's connection ended before it answered.
    DeviceConnectionClosedRemotely = 404_104,
    /// A method that the path does not have.
    GenericMethodNotAllowed = 405_000,
    /// It is too late, or too early, for the operation.
    OperationNotAllowedInCurrentState = 405_001,
    /// The device exists.
    DeviceAlreadyExists = 409_001,
    /// The configuration exists.
    ConfigurationAlreadyExists = 409_401,
    /// The job exists.
    JobAlreadyExists = 409_104,
    /// The module exists.
    ModuleAlreadyExistsOnDevice = 409_301,
    /// `If-Match`, or a twin's version, does not fit.
    PreconditionFailed = 412_001,
    /// A body beyond its limit.
    MessageTooLarge = 413_001,
    /// More in one request than is allowed.
    TooManyDevices = 413_002,
    /// Too many requests.
    ThrottlingException = 429_001,
    /// The emulator itself failed.
    ServerError = 500_001,
    /// IoT Hub has this, the emulator does not. No number of IoT Hub's.
    NotEmulated = 501_000,
    /// The device did not answer in time.
    GatewayTimeout = 504_101,
}

/// The hub's refusal of a request.
#[derive(Debug, Clone)]
pub struct HubRefusal {
    /// Which kind of refusal it is.
    pub code: ErrorCode,
    /// What the service says of it.
    pub message: String,
    /// What is wrong, for people, where the service does not say it.
    reason: Option<String>,
    /// How long the hub waited for a device in vain.
    timeout: Option<Duration>,
}

/// What the service says of every request without a right.
const UNAUTHORIZED: &str = "Unauthorized";

/// What the service says of every query that it does not understand.
const BAD_REQUEST: &str = "BadRequest";

impl ErrorCode {
    /// The HTTP status that goes with the number.
    pub fn status(self) -> StatusCode {
        let status = u16::try_from(self as u32 / 1000).unwrap_or(500);
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// A refusal with this number. What the service says of requests without a
    /// right is always the same; `message` is the emulator's reason then.
    pub fn because(self, message: impl Into<String>) -> HubRefusal {
        let refusal = HubRefusal { code: self, message: message.into(), reason: None, timeout: None };
        match self {
            ErrorCode::IotHubUnauthorizedAccess => refusal.hidden_behind(UNAUTHORIZED),
            _ => refusal,
        }
    }

    /// A refusal with this number of a request that the service calls bad and
    /// nothing more.
    pub fn bad_request(self, reason: impl Into<String>) -> HubRefusal {
        self.because(reason).hidden_behind(BAD_REQUEST)
    }
}

impl HubRefusal {
    /// The refusal for a failure that the caller has no part in. What failed goes
    /// to the log alone.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed inside the emulator");
        ErrorCode::ServerError.because("the emulator failed; its log says why")
    }

    /// The refusal after the hub has waited so long for a device.
    pub fn after(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What is wrong, for people.
    pub fn reason(&self) -> &str {
        self.reason.as_ref().unwrap_or(&self.message)
    }

    /// The body that a device receives on `$iothub/twin/res/{status}`.
    pub fn to_device_body(&self) -> Value {
        json!({
            "errorCode": self.code as u32,
            "trackingId": tracking_id(),
            "message": self.message,
            "timestampUtc": Time::from(SystemTime::now()),
        })
    }

    /// The response to a method call, whose `Message` is a string that holds JSON.
    pub fn into_nested_response(self) -> Response {
        let inner = json!({
            "errorCode": self.code as u32,
            "trackingId": tracking_id(),
            "message": self.message,
            "info": match self.timeout {
                Some(timeout) => json!({ "timeout": hours(timeout) }),
                None => json!({}),
            },
            "timestampUtc": Time::from(SystemTime::now()),
        });
        self.respond(json!({ "Message": inner.to_string(), "ExceptionMessage": "" }))
    }

    fn respond(&self, body: Value) -> Response {
        let name = format!("{:?}", self.code);
        let mut response = (self.code.status(), Json(body)).into_response();
        if let Ok(name) = HeaderValue::from_str(&name) {
            response.headers_mut().insert("iothub-errorcode", name);
        }
        // For routes of another service, which say the same in other words.
        response.extensions_mut().insert(self.clone());
        if let Some(reason) = &self.reason {
            tracing::debug!(%reason, "refused");
            if let Ok(reason) = HeaderValue::from_str(&reason.escape_default().to_string()) {
                response.headers_mut().insert("x-emulator-reason", reason);
            }
        }
        response
    }

    fn hidden_behind(self, message: &str) -> Self {
        HubRefusal { reason: Some(self.message), message: message.to_owned(), ..self }
    }
}

impl fmt::Display for HubRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.reason())
    }
}

impl std::error::Error for HubRefusal {}

impl IntoResponse for HubRefusal {
    /// The response to any other request.
    fn into_response(self) -> Response {
        if matches!(self.code, ErrorCode::ModuleNotFound | ErrorCode::ModuleAlreadyExistsOnDevice) {
            return self.respond(self.to_device_body());
        }
        self.respond(json!({
            "Message": format!("ErrorCode:{:?};{}", self.code, self.message),
            "ExceptionMessage": format!("Tracking ID:{}", tracking_id()),
        }))
    }
}

impl From<TwinError> for HubRefusal {
    fn from(error: TwinError) -> Self {
        let code = match error {
            TwinError::Version { .. } => ErrorCode::PreconditionFailed,
            _ => ErrorCode::ArgumentInvalid,
        };
        code.because(error.to_string())
    }
}

impl From<random::NoRandom> for HubRefusal {
    fn from(error: random::NoRandom) -> Self {
        HubRefusal::internal(error)
    }
}

/// A duration as .NET writes it, to the second.
fn hours(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A new id as Microsoft's support asks for it:
/// `{32 hex}-G:0-TimeStamp:MM/dd/yyyy HH:mm:ss`.
fn tracking_id() -> String {
    let id = random::hex_id().unwrap_or_else(|_| "0".repeat(32));
    let now = Time::from(SystemTime::now()).to_string();
    let (date, time) = now.split_once('T').unwrap_or((&now, ""));
    let mut date = date.split('-');
    let (year, month, day) = (date.next(), date.next(), date.next());
    let [year, month, day] = [year, month, day].map(Option::unwrap_or_default);
    let time = time.split('.').next().unwrap_or_default();
    format!("{id}-G:0-TimeStamp:{month}/{day}/{year} {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_starts_with_the_status() {
        for (code, status) in [
            (ErrorCode::ArgumentInvalid, 400),
            (ErrorCode::IotHubUnauthorized, 401),
            (ErrorCode::DeviceNotOnline, 404),
            (ErrorCode::DeviceAlreadyExists, 409),
            (ErrorCode::PreconditionFailed, 412),
            (ErrorCode::MessageTooLarge, 413),
            (ErrorCode::GatewayTimeout, 504),
        ] {
            assert_eq!(code.status().as_u16(), status);
        }
    }

    #[test]
    fn a_wait_is_told_as_dotnet_writes_it() {
        for (seconds, expected) in [(0, "00:00:00"), (61, "00:01:01"), (3661, "01:01:01")] {
            assert_eq!(hours(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn the_service_explains_less_than_the_emulator() {
        let query = ErrorCode::ArgumentInvalid.bad_request("FROM is missing\n");
        let response = query.clone().into_response();
        assert_eq!(query.message, "BadRequest");
        assert_eq!(query.to_string(), "ArgumentInvalid: FROM is missing\n");
        assert_eq!(response.headers().get("x-emulator-reason").unwrap(), "FROM is missing\\n");
        assert_eq!(ErrorCode::IotHubUnauthorizedAccess.because("no token").message, "Unauthorized");
        let plain = ErrorCode::ArgumentInvalid.because("no").into_response();
        assert!(plain.headers().get("x-emulator-reason").is_none());
    }

    #[test]
    fn tracking_ids_have_the_hubs_form() {
        let id = tracking_id();
        let (hex, stamp) = id.split_once("-G:0-TimeStamp:").unwrap();
        assert_eq!(hex.len(), 32);
        assert_eq!(stamp.len(), "11/22/2026 18:36:07".len(), "{stamp}");
        assert_eq!((&stamp[2..3], &stamp[5..6], &stamp[10..11]), ("/", "/", " "));
    }

    #[test]
    fn a_stale_twin_version_is_a_failed_precondition() {
        let error = HubRefusal::from(TwinError::Version { expected: 1, current: 2 });
        assert_eq!(error.code, ErrorCode::PreconditionFailed);
        assert_eq!(HubRefusal::from(TwinError::Key { path: "a".into() }).code, ErrorCode::ArgumentInvalid);
    }
}
