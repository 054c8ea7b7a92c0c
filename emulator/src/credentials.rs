//! How an identity proves who it is: `authentication` in its JSON.

use iotdm_proto::SecretKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::{Code, HubError};
use crate::random;

/// What is compared with what a client shows.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Credentials {
    /// Tokens signed with one of two keys.
    Sas(Keys),
    /// One of two certificates, by what identifies them.
    SelfSigned(Thumbprints),
    /// A certificate of a CA that the hub knows, made out to the identity.
    CertificateAuthority,
    /// Nothing: only a shared access policy lets it in.
    None,
}

/// Two keys. They are serialised: the store is where they live.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keys {
    /// The one in the connection string.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub primary: SecretKey,
    /// The one to move to while the first is renewed.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub secondary: SecretKey,
}

/// Two certificates, each by its SHA-1 or SHA-256 in hexadecimal, upper case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thumbprints {
    /// The one in use.
    pub primary: Option<String>,
    /// The one to move to.
    pub secondary: Option<String>,
}

/// What a client wants credentials to be; absent parts are left to the hub.
#[derive(Debug, Default)]
pub struct Wish {
    kind: Option<Kind>,
    primary: Option<SecretKey>,
    secondary: Option<SecretKey>,
    thumbprints: Thumbprints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Sas,
    SelfSigned,
    CertificateAuthority,
    None,
}

impl Credentials {
    /// New credentials as wished for; keys are made where none are given.
    pub fn new(wish: Wish) -> Result<Self, HubError> {
        let fresh = Credentials::Sas(Keys { primary: random::key()?, secondary: random::key()? });
        fresh.changed(wish)
    }

    /// These credentials with what the wish names in its place.
    pub fn changed(&self, wish: Wish) -> Result<Self, HubError> {
        Ok(match (wish.kind.unwrap_or(self.kind()), self) {
            (Kind::Sas, old) => {
                let key = |wished: Option<SecretKey>, old: Option<&SecretKey>| match (wished, old) {
                    (Some(key), _) => Ok(key),
                    (None, Some(key)) => Ok(key.clone()),
                    (None, None) => random::key(),
                };
                let old = if let Credentials::Sas(keys) = old { Some(keys) } else { None };
                Credentials::Sas(Keys {
                    primary: key(wish.primary, old.map(|keys| &keys.primary))?,
                    secondary: key(wish.secondary, old.map(|keys| &keys.secondary))?,
                })
            }
            (Kind::SelfSigned, old) => {
                let mut thumbprints = wish.thumbprints;
                if let Credentials::SelfSigned(old) = old {
                    thumbprints.primary = thumbprints.primary.or_else(|| old.primary.clone());
                    thumbprints.secondary = thumbprints.secondary.or_else(|| old.secondary.clone());
                }
                if thumbprints == Thumbprints::default() {
                    return Err(Code::ArgumentInvalid.because("selfSigned needs a thumbprint"));
                }
                Credentials::SelfSigned(thumbprints)
            }
            (Kind::CertificateAuthority, _) => Credentials::CertificateAuthority,
            (Kind::None, _) => Credentials::None,
        })
    }

    /// Its name in IoT Hub.
    pub fn type_name(&self) -> Value {
        json!(self.kind())
    }

    /// As `authentication` shows it, keys included.
    pub fn json(&self) -> Value {
        let (primary_key, secondary_key) = match self {
            Credentials::Sas(keys) => {
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

    /// As twins and identities show thumbprints.
    pub fn thumbprint_json(&self) -> Value {
        let none = Thumbprints::default();
        let thumbprints = if let Credentials::SelfSigned(found) = self { found } else { &none };
        json!({
            "primaryThumbprint": thumbprints.primary,
            "secondaryThumbprint": thumbprints.secondary,
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Credentials::Sas(_) => Kind::Sas,
            Credentials::SelfSigned(_) => Kind::SelfSigned,
            Credentials::CertificateAuthority => Kind::CertificateAuthority,
            Credentials::None => Kind::None,
        }
    }
}

impl Wish {
    /// Reads `authentication`. Clients leave keys out, or send `null`, `""`
    /// or `{}`, when the hub shall make them.
    pub fn parse(body: &Map<String, Value>) -> Result<Self, HubError> {
        let text = |part: &str, name: &str| match body.get(part).and_then(|part| part.get(name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Code::ArgumentInvalid.because(format!("{name} is not a string"))),
        };
        let key = |name: &str| match text("symmetricKey", name)?.map(|text| text.parse::<SecretKey>()) {
            None => Ok(None),
            Some(Ok(key)) if (16..=64).contains(&key.expose().len()) => Ok(Some(key)),
            Some(_) => Err(Code::ArgumentInvalid.because(format!("{name} is not base64 of 16 to 64 bytes"))),
        };
        let thumbprint = |name: &str| match text("x509Thumbprint", name)? {
            None => Ok(None),
            Some(text) if is_thumbprint(&text) => Ok(Some(text.to_ascii_uppercase())),
            Some(_) => Err(Code::ArgumentInvalid
                .because(format!("{name} is not the SHA-1 or SHA-256 of a certificate in hexadecimal"))),
        };
        let mut wish = Wish {
            kind: None,
            primary: key("primaryKey")?,
            secondary: key("secondaryKey")?,
            thumbprints: Thumbprints {
                primary: thumbprint("primaryThumbprint")?,
                secondary: thumbprint("secondaryThumbprint")?,
            },
        };
        wish.kind = match body.get("type") {
            // Before there was a type, thumbprints said it.
            None | Some(Value::Null) if wish.thumbprints != Thumbprints::default() => Some(Kind::SelfSigned),
            None | Some(Value::Null) => None,
            Some(kind) => Some(Kind::deserialize(kind).map_err(|_| {
                Code::ArgumentInvalid.because("type is sas, selfSigned, certificateAuthority or none")
            })?),
        };
        Ok(wish)
    }
}

fn is_thumbprint(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
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

    fn wish(body: Value) -> Result<Wish, HubError> {
        Wish::parse(body.as_object().unwrap())
    }

    fn new(body: Value) -> Credentials {
        Credentials::new(wish(body).unwrap()).unwrap()
    }

    #[test]
    fn keys_are_made_where_none_are_given() {
        for body in [
            json!({}),
            json!({"symmetricKey": {}}),
            json!({"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": null}}),
        ] {
            let Credentials::Sas(keys) = new(body) else { panic!("not sas") };
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
        let renewed = old.changed(wish(json!({"symmetricKey": {"primaryKey": key}})).unwrap()).unwrap();
        assert_eq!(renewed.json()["symmetricKey"]["primaryKey"], key);
        assert_eq!(
            renewed.json()["symmetricKey"]["secondaryKey"],
            old.json()["symmetricKey"]["secondaryKey"]
        );
        let other = renewed.changed(wish(json!({"type": "certificateAuthority"})).unwrap()).unwrap();
        let back = other.changed(wish(json!({"type": "sas"})).unwrap()).unwrap();
        assert_ne!(back.json()["symmetricKey"]["primaryKey"], key, "made anew");
        assert!(old.changed(wish(json!({"type": "selfSigned"})).unwrap()).is_err());
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
            assert_eq!(wish(body.clone()).unwrap_err().code, Code::ArgumentInvalid, "{body}");
        }
    }
}
