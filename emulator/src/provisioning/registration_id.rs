//! Registration ids, and what the body of a registration says about whose it is.

use iotdm_proto::DeviceId;
use serde_json::{Map, Value};

use crate::fields::field;
use crate::refusal::{ErrorCode, HubRefusal};

/// Reads a registration id or the name of a group: 1 to 128 ASCII letters, digits
/// and `- . _ :`, of which the last is a letter, a digit or `-`.
///
/// Source: "Device Provisioning Service concepts" and "How to control access",
/// which hold for both.
pub fn parse_id(text: &str) -> Result<DeviceId, HubRefusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    let ends_well = text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let id = text.parse().ok().filter(|_| ends_well && text.bytes().all(fits));
    id.ok_or_else(|| {
        ErrorCode::ArgumentInvalid.because(format!(
            "{text:?} is not a registration id or group name: 1 to 128 letters, digits and - . _ :, \
             the last of them a letter, a digit or -"
        ))
    })
}

/// Refuses the body of a registration of `id` unless it is empty, or a JSON object
/// whose `registrationId`, if there is one, is `id`.
pub fn check_body(id: &DeviceId, body: &[u8]) -> Result<(), HubRefusal> {
    let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("the body is not a JSON object: {error}")))?;
    match field(&body, "registrationId") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(other)) if other == id.as_str() => Ok(()),
        Some(_) => Err(invalid(format!("the registrationId of the body is not {id}, as the request has it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_an_alphabet_an_end_and_a_length() {
        for id in ["a", "-", "A.b_c:d-1", "a-", &"x".repeat(128)] {
            assert_eq!(parse_id(id).unwrap().as_str(), id);
        }
        for id in ["", "a.", "a_", "a:", "a;$(id)", "a'b", "a b", "a=b", "ä", "a\n", &"x".repeat(129)] {
            assert_eq!(parse_id(id).unwrap_err().code, ErrorCode::ArgumentInvalid, "{id:?}");
        }
    }

    #[test]
    fn a_body_is_about_the_device_or_nobody() {
        let id = "gw1".parse().unwrap();
        for body in
            ["", " \n", "{}", r#"{"registrationId":"gw1","payload":[1]}"#, r#"{"registrationId":null}"#]
        {
            check_body(&id, body.as_bytes()).unwrap();
        }
        for body in [
            "x",
            "{",
            "[]",
            "null",
            r#""gw1""#,
            r#"{"registrationId":"GW1"}"#,
            r#"{"registrationId":1}"#,
            r#"{"RegistrationId":"gw2"}"#,
        ] {
            check_body(&id, body.as_bytes()).unwrap_err();
        }
    }
}
