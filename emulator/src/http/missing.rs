//! What IoT Hub and the provisioning service have and the emulator has not: 501 and
//! its name, so that no client takes the answer for a result. What they do not have
//! either is 404, or 405 for a method.

use axum::extract::Request;
use axum::http::Method;

use crate::refusal::{ErrorCode, HubRefusal};

/// Operations of the service that no route serves: the method, the path with `*`
/// for a name, and what it is. `/**` stands for any rest, and for none. Source: the REST reference
/// of both services.
const MISSING: [(&str, &str, &str); 18] = [
    ("POST", "/jobs/create", "export and import of the registry"),
    ("DELETE", "/jobs/*", "export and import of the registry"),
    ("POST", "/devices/*/applyConfigurationContent", "the modules of an IoT Edge device"),
    ("*", "/digitaltwins/**", "digital twins"),
    ("*", "/messages/**", "feedback on cloud-to-device messages"),
    ("POST", "/devices/*/messages/events", "HTTPS for devices"),
    ("*", "/devices/*/messages/deviceBound/**", "HTTPS for devices"),
    ("POST", "/devices/*/modules/*/messages/events", "HTTPS for devices"),
    ("*", "/devices/*/files/**", "file upload"),
    ("*", "/$iothub/**", "HTTPS for devices"),
    ("POST", "/enrollments", "enrolments in bulk"),
    ("POST", "/enrollmentGroups", "enrolments in bulk"),
    ("POST", "/registrations/*/query", "registrations of a group"),
    ("*", "/certificateAuthorities/**", "certificate authorities of the provisioning service"),
    ("*", "/trustBundles/**", "trust bundles"),
    ("POST", "/*/registrations/*", "the registration of a device by its status"),
    ("POST", "/*/registrations/*/nonce", "TPM"),
    ("POST", "/*/registrations/*/csr", "certificates for devices"),
];

/// The refusal of a path that no route has.
pub(super) async fn path(request: Request) -> HubRefusal {
    not_found(request.method(), request.uri().path())
}

/// The same, of a path by its name.
pub(super) fn not_found(method: &Method, path: &str) -> HubRefusal {
    refusal(method.as_str(), path, ErrorCode::GenericNotFound)
}

/// The refusal of a method that a path does not have.
pub(super) async fn method(request: Request) -> HubRefusal {
    refusal(request.method().as_str(), request.uri().path(), ErrorCode::GenericMethodNotAllowed)
}

fn refusal(method: &str, path: &str, otherwise: ErrorCode) -> HubRefusal {
    let path = path.trim_end_matches('/');
    let of = |(wanted, pattern, _): &&(&str, &str, &str)| {
        (*wanted == "*" || *wanted == method) && fits(pattern, path)
    };
    match MISSING.iter().find(of) {
        Some((_, _, what)) => {
            ErrorCode::NotEmulated.because(format!("{method} {path} ({what}) is not emulated"))
        }
        None => otherwise.because(format!("there is no {method} {path}")),
    }
}

/// Whether a path has the form of a pattern. The service takes no account of case in
/// its own words.
fn fits(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for wanted in pattern.split('/') {
        match (wanted, parts.next()) {
            ("**", _) => return true,
            ("*", Some(part)) if !part.is_empty() => {}
            (wanted, Some(part)) if wanted.eq_ignore_ascii_case(part) => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_has_is_told_from_what_it_has_not() {
        for (method, path, code) in [
            ("POST", "/jobs/create", ErrorCode::NotEmulated),
            ("POST", "/devices/gw1/applyConfigurationContent", ErrorCode::NotEmulated),
            ("GET", "/digitaltwins/gw1", ErrorCode::NotEmulated),
            ("PATCH", "/digitalTwins/gw1/components/a/commands/b", ErrorCode::NotEmulated),
            ("POST", "/devices/gw1/messages/events/", ErrorCode::NotEmulated),
            ("POST", "/devices/gw1/files/notifications", ErrorCode::NotEmulated),
            ("GET", "/messages/serviceBound/feedback", ErrorCode::NotEmulated),
            ("POST", "/registrations/group/query", ErrorCode::NotEmulated),
            ("GET", "/certificateAuthorities", ErrorCode::NotEmulated),
            ("GET", "/trustBundles/", ErrorCode::NotEmulated),
            ("GET", "/certificateAuthoritiesx", ErrorCode::GenericNotFound),
            ("GET", "/jobs/create", ErrorCode::GenericNotFound),
            ("POST", "/devices//files", ErrorCode::GenericNotFound),
            ("GET", "/", ErrorCode::GenericNotFound),
            ("GET", "/twin/gw1", ErrorCode::GenericNotFound),
        ] {
            assert_eq!(refusal(method, path, ErrorCode::GenericNotFound).code, code, "{method} {path}");
        }
    }
}
