//! Requests that are refused with 429 before anything else: by a fault, or
//! since the tier's allowance is used up.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use crate::error::{Code, HubError};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::throttle::Operation;

pub(super) async fn check(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match refusal(&hub, request.method(), &segments) {
        Some(error) if segments.last() == Some(&"methods") => error.into_nested_response(),
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(hub: &Hub, method: &Method, segments: &[&str]) -> Option<HubError> {
    let operation = operation(method, segments)?;
    if hub.faults.throttles(about(segments).as_ref()) {
        return Some(Code::ThrottlingException.because("a fault throttles the request"));
    }
    hub.throttle.take(operation).err()
}

/// What kind of operation a request is; `None` for what is no part of IoT Hub.
fn operation(method: &Method, segments: &[&str]) -> Option<Operation> {
    match segments {
        ["emulator" | "$iothub" | "enrollments" | "enrollmentGroups" | "registrations", ..]
        | [_, "registrations", ..] => None,
        ["devices", "query"] => Some(Operation::Query),
        ["twins", .., "methods"] => Some(Operation::Method),
        ["twins", ..] if method == Method::GET => Some(Operation::TwinRead),
        ["twins", ..] => Some(Operation::TwinUpdate),
        _ => Some(Operation::Registry),
    }
}

/// Whom a request is about.
fn about(segments: &[&str]) -> Option<Identity> {
    let (device, module) = match segments {
        ["devices", "query"] => return None,
        ["devices" | "twins", device, "modules", module, ..] => (device, Some(module)),
        ["devices" | "twins", device, ..] => (device, None),
        _ => return None,
    };
    Some(Identity { device: device.parse().ok()?, module: module.and_then(|module| module.parse().ok()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_subjects_of_requests() {
        for (method, path, kind, subject) in [
            (Method::POST, "devices/query", Some(Operation::Query), None),
            (Method::GET, "devices", Some(Operation::Registry), None),
            (Method::PUT, "devices/gw1", Some(Operation::Registry), Some("gw1")),
            (Method::GET, "twins/gw1", Some(Operation::TwinRead), Some("gw1")),
            (Method::PATCH, "twins/gw1/modules/m", Some(Operation::TwinUpdate), Some("gw1/m")),
            (Method::POST, "twins/gw1/methods", Some(Operation::Method), Some("gw1")),
            (Method::POST, "emulator/faults", None, None),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(operation(&method, &segments), kind, "{path}");
            assert_eq!(about(&segments).map(|id| id.to_string()).as_deref(), subject, "{path}");
        }
    }
}
