//! How an identity proves who it is: the `authentication` of its JSON, with
//! keys, thumbprints or nothing at all.

use iotdm_proto::SecretKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::fields::{field, field_of};
use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};

/// What the proof that a client shows is checked against.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Authentication {
    /// A token signed with one of two keys.
    Sas(Keys),
    /// A certificate that has one of two thumbprints.
    SelfSigned(Thumbprints),
    /// A certificate made out to the identity by a CA that the hub knows.
    CertificateAuthority,
    /// Nothing of the identity's own: only the token of a shared access policy
    /// lets a client in.
    None,
}

/// The two keys of an identity or enrolment. They can be serialised, since the
/// store is where they are kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keys {
    /// The key in the connection string.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub primary: SecretKey,
    /// The key to use while the primary one is renewed.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub secondary: SecretKey,
}

/// The thumbprints of two certificates: the SHA-1 or SHA-256 of each in
/// upper-case hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thumbprints {
    /// The thumbprint of the certificate in use.
    pub primary: Option<String>,
    /// The thumbprint of the certificate to use while the first is renewed.
    pub secondary: Option<String>,
}

/// What a service wants an `authentication` to be; absent parts stay as they
/// are, or are for the hub to choose.
#[derive(Debug, Default)]
pub struct AuthenticationChange {
    kind: Option<AuthenticationType>,
    primary: Option<SecretKey>,
    secondary: Option<SecretKey>,
    thumbprints: Thumbprints,
}

/// The `type` of an `authentication`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum AuthenticationType {
    Sas,
    SelfSigned,
    CertificateAuthority,
    None,
}

impl Authentication {
    /// A new `authentication` with what `change` names; keys are made where none
    /// are given.
    pub fn new(change: AuthenticationChange) -> Result<Self, HubRefusal> {
        let fresh = Authentication::Sas(Keys { primary: random::key()?, secondary: random::key()? });
        fresh.changed(change)
    }

    /// This `authentication` with what `change` names put in place of what it
    /// has.
    pub fn changed(&self, change: AuthenticationChange) -> Result<Self, HubRefusal> {
        Ok(match (change.kind.unwrap_or(self.kind()), self) {
            (AuthenticationType::Sas, old) => {
                let key = |new: Option<SecretKey>, old: Option<&SecretKey>| match (new, old) {
                    (Some(key), _) => Ok(key),
                    (None, Some(key)) => Ok(key.clone()),
                    (None, None) => random::key(),
                };
                let old = if let Authentication::Sas(keys) = old { Some(keys) } else { None };
                Authentication::Sas(Keys {
                    primary: key(change.primary, old.map(|keys| &keys.primary))?,
                    secondary: key(change.secondary, old.map(|keys| &keys.secondary))?,
                })
            }
            (AuthenticationType::SelfSigned, old) => {
                let mut thumbprints = change.thumbprints;
                if let Authentication::SelfSigned(old) = old {
                    thumbprints.primary = thumbprints.primary.or_else(|| old.primary.clone());
                    thumbprints.secondary = thumbprints.secondary.or_else(|| old.secondary.clone());
                }
                Authentication::SelfSigned(thumbprints)
            }
            (AuthenticationType::CertificateAuthority, _) => Authentication::CertificateAuthority,
            (AuthenticationType::None, _) => Authentication::None,
        })
    }

    /// This `authentication` with new keys in place of those that are named.
    pub fn with_new_keys(&self, primary: bool, secondary: bool) -> Result<Self, HubRefusal> {
        let Authentication::Sas(keys) = self else {
            return Err(ErrorCode::InvalidOperation.because("there are no keys"));
        };
        let key = |new: bool, old: &SecretKey| if new { random::key() } else { Ok(old.clone()) };
        Ok(Authentication::Sas(Keys {
            primary: key(primary, &keys.primary)?,
            secondary: key(secondary, &keys.secondary)?,
        }))
    }

    /// What IoT Hub calls the type of this `authentication`.
    pub fn type_name(&self) -> Value {
        json!(self.kind())
    }

    /// The JSON of the `authentication`, keys included.
    pub fn json(&self) -> Value {
        let (primary_key, secondary_key) = match self {
            Authentication::Sas(keys) => {
                let text = |key: &SecretKey| json!(key.expose_base64().as_str());
                (text(&keys.primary), text(&keys.secondary))
            }
            _ => (Value::Null, Value::Null),
        };
        json!({
            "symmetricKey": { "primaryKey": primary_key, "secondaryKey": secondary_key },
            "x509Thumbprint": self.thumbprint_json(),
            "type": self.kind(),
        })
    }

    /// The `x509Thumbprint` of identities and twins, which is there for every
    /// type.
    pub fn thumbprint_json(&self) -> Value {
        let none = Thumbprints::default();
        let thumbprints = if let Authentication::SelfSigned(found) = self { found } else { &none };
        json!({
            "primaryThumbprint": thumbprints.primary,
            "secondaryThumbprint": thumbprints.secondary,
        })
    }

    fn kind(&self) -> AuthenticationType {
        match self {
            Authentication::Sas(_) => AuthenticationType::Sas,
            Authentication::SelfSigned(_) => AuthenticationType::SelfSigned,
            Authentication::CertificateAuthority => AuthenticationType::CertificateAuthority,
            Authentication::None => AuthenticationType::None,
        }
    }
}

impl AuthenticationChange {
    /// Reads a service's `authentication`. Services leave both keys out, or send
    /// `null`, `""` or `{}`, for the hub to make them. Keys have 16 to 64 bytes.
    pub fn parse(body: &Map<String, Value>) -> Result<Self, HubRefusal> {
        let text = |part: &str, name: &str| match field(body, part).and_then(|part| field_of(part, name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ErrorCode::ArgumentInvalid.because(format!("{name} is not a string"))),
        };
        let key = |name: &str| match text("symmetricKey", name)?.map(|text| text.parse::<SecretKey>()) {
            None => Ok(None),
            Some(Ok(key)) if (16..=64).contains(&key.expose().len()) => Ok(Some(key)),
            Some(_) => {
                Err(ErrorCode::ArgumentInvalid.because(format!("{name} is not base64 of 16 to 64 bytes")))
            }
        };
        let thumbprint = |name: &str| match text("x509Thumbprint", name)? {
            None => Ok(None),
            Some(text) if is_thumbprint(&text) => Ok(Some(text.to_ascii_uppercase())),
            Some(_) => Err(ErrorCode::ArgumentInvalid
                .because(format!("{name} is not the SHA-1 or SHA-256 of a certificate in hexadecimal"))),
        };
        let mut change = AuthenticationChange {
            kind: None,
            primary: key("primaryKey")?,
            secondary: key("secondaryKey")?,
            thumbprints: Thumbprints {
                primary: thumbprint("primaryThumbprint")?,
                secondary: thumbprint("secondaryThumbprint")?,
            },
        };
        change.kind = match field(body, "type") {
            // Clients from before there was a type send thumbprints alone.
            None | Some(Value::Null) if change.thumbprints != Thumbprints::default() => {
                Some(AuthenticationType::SelfSigned)
            }
            None | Some(Value::Null) => None,
            Some(kind) => Some(AuthenticationType::deserialize(kind).map_err(|_| {
                ErrorCode::ArgumentInvalid.because("type is sas, selfSigned, certificateAuthority or none")
            })?),
        };
        Ok(change)
    }

    /// Refuses one key without the other, as the registry does. Source: the .NET
    /// SDK's `DeviceKeysInvalid`, and the Azure CLI's extension.
    pub fn with_both_keys_or_none(self) -> Result<Self, HubRefusal> {
        if self.primary.is_some() == self.secondary.is_some() {
            return Ok(self);
        }
        Err(ErrorCode::ArgumentInvalid
            .because("primaryKey and secondaryKey are given together, or neither of them is"))
    }
}

fn is_thumbprint(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl PartialEq for Keys {
    /// Compares the keys' bytes, and not in constant time: both are the hub's own,
    /// before and after a change.
    fn eq(&self, other: &Self) -> bool {
        self.primary.expose() == other.primary.expose() && self.secondary.expose() == other.secondary.expose()
    }
}

fn write_key<S: Serializer>(key: &SecretKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&key.expose_base64())
}

fn read_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretKey, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(body: Value) -> Result<AuthenticationChange, HubRefusal> {
        AuthenticationChange::parse(body.as_object().unwrap())
    }

    fn new(body: Value) -> Authentication {
        Authentication::new(change(body).unwrap()).unwrap()
    }

    #[test]
    fn keys_are_made_where_none_are_given() {
        for body in [
            json!({}),
            json!({"symmetricKey": {}}),
            json!({"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": null}}),
        ] {
            let Authentication::Sas(keys) = new(body) else { panic!("not sas") };
            assert_eq!(keys.primary.expose().len(), 32);
            assert_ne!(keys.primary.expose(), keys.secondary.expose());
        }
    }

    #[test]
    fn thumbprints_and_authorities_have_no_keys() {
        let print = "ab".repeat(20);
        for body in [
            json!({"x509Thumbprint": {"primaryThumbprint": print}}),
            json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print, "secondaryThumbprint": ""}}),
        ] {
            let expected = json!({
                "symmetricKey": {"primaryKey": null, "secondaryKey": null},
                "x509Thumbprint": {"primaryThumbprint": print.to_uppercase(), "secondaryThumbprint": null},
                "type": "selfSigned",
            });
            assert_eq!(new(body).json(), expected);
        }
        let authority = new(json!({"type": "certificateAuthority"})).json();
        assert_eq!(
            (&authority["type"], &authority["symmetricKey"]["primaryKey"]),
            (&json!("certificateAuthority"), &Value::Null)
        );
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_drops_what_no_longer_counts() {
        let old = new(json!({}));
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let keys = json!({"symmetricKey": {"primaryKey": key, "secondaryKey": key}});
        let renewed = old.changed(change(keys).unwrap()).unwrap();
        assert_eq!(renewed.json()["symmetricKey"]["primaryKey"], key);
        assert_eq!(renewed.changed(change(json!({})).unwrap()).unwrap().json(), renewed.json());
        let other = renewed.changed(change(json!({"type": "certificateAuthority"})).unwrap()).unwrap();
        let back = other.changed(change(json!({"type": "sas"})).unwrap()).unwrap();
        assert_ne!(back.json()["symmetricKey"]["primaryKey"], key, "made anew");
        let none = old.changed(change(json!({"type": "selfSigned"})).unwrap()).unwrap();
        assert_eq!(none.json()["x509Thumbprint"]["primaryThumbprint"], Value::Null);
    }

    #[test]
    fn only_the_keys_that_are_named_are_renewed() {
        let old = new(json!({}));
        let keys = |of: &Authentication| {
            let json = of.json();
            (json["symmetricKey"]["primaryKey"].clone(), json["symmetricKey"]["secondaryKey"].clone())
        };
        for (primary, secondary) in [(true, false), (false, true), (true, true), (false, false)] {
            let renewed = keys(&old.with_new_keys(primary, secondary).unwrap());
            let changed = (renewed.0 != keys(&old).0, renewed.1 != keys(&old).1);
            assert_eq!(changed, (primary, secondary));
        }
        let authority = new(json!({"type": "certificateAuthority"}));
        let refused = authority.with_new_keys(true, false).err();
        assert_eq!(refused.map(|error| error.code), Some(ErrorCode::InvalidOperation));
    }

    #[test]
    fn each_type_has_its_name_and_a_change_of_one_thumbprint_keeps_the_other() {
        for name in ["sas", "selfSigned", "certificateAuthority", "none"] {
            assert_eq!(new(json!({"type": name})).type_name(), name);
        }
        let print = |digit: &str| digit.repeat(64);
        let named = |key: &str, value: String| json!({"x509Thumbprint": {key: value}});
        let first = new(named("primaryThumbprint", print("a")));
        let both = first.changed(change(named("secondaryThumbprint", print("b"))).unwrap()).unwrap();
        let expected = json!({"primaryThumbprint": print("A"), "secondaryThumbprint": print("B")});
        assert_eq!(both.thumbprint_json(), expected);
        let none = json!({"primaryThumbprint": null, "secondaryThumbprint": null});
        assert_eq!(new(json!({})).thumbprint_json(), none);
    }

    /// 16 to 64 bytes; both of them or neither.
    #[test]
    fn keys_have_their_lengths_and_come_in_pairs() {
        use base64::Engine as _;
        let key = |length: usize| base64::engine::general_purpose::STANDARD.encode(vec![7; length]);
        for (length, taken) in [(15, false), (16, true), (64, true), (65, false)] {
            let body = json!({"symmetricKey": {"primaryKey": key(length), "secondaryKey": key(length)}});
            assert_eq!(change(body).is_ok(), taken, "{length}");
        }
        for (body, taken) in [
            (json!({}), true),
            (json!({"symmetricKey": {"primaryKey": key(32), "secondaryKey": key(32)}}), true),
            (json!({"symmetricKey": {"primaryKey": key(32)}}), false),
            (json!({"symmetricKey": {"secondaryKey": key(32)}}), false),
        ] {
            assert_eq!(change(body.clone()).unwrap().with_both_keys_or_none().is_ok(), taken, "{body}");
        }
    }

    /// As the store keeps it: what was written is read again, and what differs in one
    /// key is another.
    #[test]
    fn keys_are_equal_only_if_both_are() {
        let keys = |primary: u8, secondary: u8| {
            Authentication::Sas(Keys {
                primary: SecretKey::from_bytes(vec![primary; 32]),
                secondary: SecretKey::from_bytes(vec![secondary; 32]),
            })
        };
        let stored = serde_json::to_value(keys(1, 2)).unwrap();
        assert!(serde_json::from_value::<Authentication>(stored).unwrap() == keys(1, 2));
        assert!(keys(1, 2) != keys(1, 3) && keys(1, 2) != keys(3, 2) && keys(1, 2) != keys(2, 1));
    }

    #[test]
    fn each_bad_body_is_refused() {
        for body in [
            json!({"type": "password"}),
            json!({"type": 1}),
            json!({"symmetricKey": {"primaryKey": "?"}}),
            json!({"symmetricKey": {"primaryKey": "c2hvcnQ="}}),
            json!({"symmetricKey": {"secondaryKey": 7}}),
            json!({"x509Thumbprint": {"primaryThumbprint": "abc"}}),
            json!({"x509Thumbprint": {"primaryThumbprint": "g".repeat(40)}}),
        ] {
            assert_eq!(change(body.clone()).unwrap_err().code, ErrorCode::ArgumentInvalid, "{body}");
        }
    }
}
