//! An enrolment: which devices may register, what they have to show for it,
//! and what the hub is to know of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iotdm_proto::{DeviceId, SecretKey, Time};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::certificate_info::certificate_info;
use super::registration_id::parse_id;
use crate::authentication::{Authentication, AuthenticationChange, Keys};
use crate::certificates::{Authorities, ClientCertificate};
use crate::clock::now;
use crate::fields::field_of;
use crate::proof::Proof;
use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::twin::TwinChange;

/// An enrolment.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolment {
    /// Whether the enrolment is for one device or for a group.
    // Stores of earlier versions have it as "scope".
    #[serde(alias = "scope")]
    pub kind: EnrolmentKind,
    /// The registration id, or the group's name.
    pub id: String,
    /// Changes with the enrolment.
    pub etag: String,
    /// When the enrolment was created.
    pub created: Time,
    /// Whether devices may register.
    pub enabled: bool,
    /// What the device is to be called in the hub; without that, it is called
    /// by its registration id.
    pub device_id: Option<DeviceId>,
    updated: Time,
    attestation: Attestation,
    /// What a new device's twin is to have, as the operator wrote it;
    /// `Value::Null` for nothing.
    pub initial_twin: Value,
    /// The capabilities of a new device: whether it is an IoT Edge device.
    pub capabilities: Value,
    /// What the operator said of hubs and of registering again, and of the device, as
    /// the operator said it: with one hub to assign to, nothing follows from it.
    #[serde(default)]
    kept: Map<String, Value>,
}

/// What an enrolment keeps without looking at it.
const KEPT: [&str; 5] =
    ["allocationPolicy", "iotHubHostName", "iotHubs", "reprovisionPolicy", "optionalDeviceInformation"];

/// Whether an enrolment is for one device or for a group of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnrolmentKind {
    /// For the one device whose registration id is the enrolment's.
    Individual,
    /// For all devices with a key derived from the group's key, or with a
    /// certificate signed by the group's.
    Group,
}

/// What devices have to show.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Attestation {
    /// A token signed with one of these keys, or with one derived from them.
    Keys(Keys),
    /// A certificate, DER in base64: the device's own, or those of the CAs
    /// that sign the group's certificates.
    Certificates(Vec<String>),
}

impl Enrolment {
    /// Reads an operator's JSON for the enrolment `id`, which takes the place of
    /// `old`. An enrolment as the service returned it says of certificates only what
    /// they are, and may be without its keys; those stay then.
    pub fn parse(
        kind: EnrolmentKind,
        id: &str,
        body: &Value,
        old: Option<&Enrolment>,
    ) -> Result<Self, HubRefusal> {
        let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
        parse_id(id)?;
        let text = |key: &str| match field_of(body, key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(invalid(format!("{key} is not a string"))),
        };
        let key = kind.id_key();
        if text(key)?.is_some_and(|other| other != id) {
            return Err(invalid(format!("the {key} of the body is not that of the path")));
        }
        let device_id = match text("deviceId")?.filter(|id| !id.is_empty()) {
            Some(id) => Some(id.parse().map_err(|error| invalid(format!("{error}")))?),
            None => None,
        };
        let enabled = match text("provisioningStatus")? {
            None | Some("enabled") => true,
            Some("disabled") => false,
            Some(_) => return Err(invalid("provisioningStatus is enabled or disabled".into())),
        };
        let initial_twin = field_of(body, "initialTwin").cloned().unwrap_or(Value::Null);
        if !initial_twin.is_null() {
            TwinChange::parse(&initial_twin)?;
        }
        let attestation =
            field_of(body, "attestation").ok_or_else(|| invalid("attestation is missing".into()))?;
        let named = |key: &str| field_of(body, key).filter(|value| !value.is_null());
        match text("allocationPolicy")? {
            None | Some("hashed" | "geoLatency" | "static") => {}
            Some("custom") => return Err(ErrorCode::NotEmulated.because("custom allocation is not emulated")),
            Some(_) => {
                return Err(invalid("allocationPolicy is hashed, geoLatency, static or custom".into()));
            }
        }
        if named("customAllocationDefinition").is_some() {
            return Err(ErrorCode::NotEmulated.because("custom allocation is not emulated"));
        }
        let mut kept: Map<String, Value> =
            KEPT.into_iter().filter_map(|key| Some((key.to_owned(), named(key)?.clone()))).collect();
        kept.entry("reprovisionPolicy")
            .or_insert_with(|| json!({ "updateHubAssignment": true, "migrateDeviceData": true }));
        let now = now();
        Ok(Enrolment {
            kind,
            id: id.to_owned(),
            etag: random::etag()?,
            created: old.map_or(now, |old| old.created),
            enabled,
            device_id,
            updated: now,
            attestation: Attestation::parse(kind, attestation, old.map(|old| &old.attestation))?,
            initial_twin,
            capabilities: field_of(body, "capabilities")
                .cloned()
                .unwrap_or_else(|| json!({ "iotEdge": false })),
            kept,
        })
    }

    /// The enrolment as its operator sees it, keys included.
    pub fn json(&self) -> Value {
        let mut json = json!({
            "deviceId": self.device_id.as_ref().map(DeviceId::as_str),
            "attestation": self.attestation.json(self.kind),
            "provisioningStatus": if self.enabled { "enabled" } else { "disabled" },
            "initialTwin": self.initial_twin,
            "capabilities": self.capabilities,
            "etag": self.etag,
            "createdDateTimeUtc": self.created,
            "lastUpdatedDateTimeUtc": self.updated,
        });
        if let Value::Object(json) = &mut json {
            json.insert(self.kind.id_key().into(), self.id.as_str().into());
            json.extend(self.kept.clone());
        }
        json
    }

    /// The enrolment's name in the store. Both kinds share a table, and an
    /// individual enrolment may be called like a group.
    pub fn store_name(&self) -> String {
        match self.kind {
            EnrolmentKind::Individual => format!("individual/{}", self.id),
            EnrolmentKind::Group => format!("group/{}", self.id),
        }
    }

    /// Whether `proof` shows that a device is `id`; the error says why not.
    /// Tokens have to be signed for `resource` and be valid at `now`.
    pub fn check(&self, id: &DeviceId, proof: &Proof, resource: &str, now: Time) -> Result<(), String> {
        match (proof, &self.attestation) {
            (Proof::Token(token), Attestation::Keys(_)) => {
                let Some(Keys { primary, secondary }) = self.device_keys(id) else {
                    return Err("the enrolment has no keys".to_owned());
                };
                let now = now.unix_seconds();
                let by_secondary = |_| token.verify(&secondary, now, resource);
                token.verify(&primary, now, resource).or_else(by_secondary).map_err(|error| error.to_string())
            }
            (Proof::Certificate(shown), Attestation::Certificates(known)) => {
                if shown.common_name().as_deref() != Some(id.as_str()) {
                    return Err(format!("the {shown} is not made out to {id}"));
                }
                match self.kind {
                    EnrolmentKind::Individual if known.iter().any(|known| shown.is(known)) => Ok(()),
                    EnrolmentKind::Individual => Err(format!("the {shown} is not the enrolment's")),
                    EnrolmentKind::Group => {
                        Authorities::of(known).and_then(|authorities| authorities.check(shown))
                    }
                }
            }
            (Proof::Token(_), _) => Err("the enrolment is for certificates, not for tokens".to_owned()),
            (Proof::Certificate(_), _) => Err("the enrolment is for keys, not for certificates".to_owned()),
        }
    }

    /// The `authentication` that the hub is to know a device by which has
    /// registered as `id` with `proof`.
    pub fn authentication_json(&self, id: &DeviceId, proof: &Proof) -> Value {
        match (self.device_keys(id), proof) {
            (Some(keys), _) => Authentication::Sas(keys).json(),
            // Also where a CA has signed the certificate, the hub compares its
            // thumbprint: the CA is the group's, and the hub does not know it.
            (None, Proof::Certificate(shown)) => json!({
                "type": "selfSigned",
                "x509Thumbprint": { "primaryThumbprint": shown.thumbprint() },
            }),
            (None, Proof::Token(_)) => Value::Null,
        }
    }

    /// The keys of the device `id`, which are derived from the group's keys
    /// where the enrolment is a group's; `None` where it is for certificates.
    fn device_keys(&self, id: &DeviceId) -> Option<Keys> {
        let Attestation::Keys(keys) = &self.attestation else { return None };
        Some(match self.kind {
            EnrolmentKind::Individual => keys.clone(),
            EnrolmentKind::Group => {
                let derived = |key: &SecretKey| key.derived(id.as_str());
                Keys { primary: derived(&keys.primary), secondary: derived(&keys.secondary) }
            }
        })
    }
}

impl EnrolmentKind {
    /// The refusal for an enrolment `id` that does not exist.
    pub fn not_found(self, id: &str) -> HubRefusal {
        let code = match self {
            EnrolmentKind::Individual => ErrorCode::EnrollmentNotFound,
            EnrolmentKind::Group => ErrorCode::EnrollmentGroupNotFound,
        };
        code.because(format!("{id}: no such enrolment"))
    }

    fn id_key(self) -> &'static str {
        match self {
            EnrolmentKind::Individual => "registrationId",
            EnrolmentKind::Group => "enrollmentGroupId",
        }
    }

    fn certificates_key(self) -> &'static str {
        match self {
            EnrolmentKind::Individual => "clientCertificates",
            EnrolmentKind::Group => "signingCertificates",
        }
    }
}

impl Attestation {
    fn parse(kind: EnrolmentKind, body: &Value, old: Option<&Attestation>) -> Result<Self, HubRefusal> {
        let invalid = |why: &str| ErrorCode::ArgumentInvalid.because(why);
        match field_of(body, "type").and_then(Value::as_str) {
            Some("symmetricKey") => {
                let keys = field_of(body, "symmetricKey").filter(|keys| !keys.is_null());
                if let (None, Some(Attestation::Keys(old))) = (keys, old) {
                    return Ok(Attestation::Keys(old.clone()));
                }
                let as_authentication = json!({ "type": "sas", "symmetricKey": keys });
                let Value::Object(as_authentication) = as_authentication else {
                    return Err(invalid("symmetricKey is not an object"));
                };
                match Authentication::new(AuthenticationChange::parse(&as_authentication)?)? {
                    Authentication::Sas(keys) => Ok(Attestation::Keys(keys)),
                    _ => Err(invalid("symmetricKey has no keys")),
                }
            }
            Some("x509") => Attestation::parse_certificates(kind, body, old),
            Some("tpm") => Err(ErrorCode::NotEmulated.because("attestation by TPM is not emulated")),
            _ => Err(invalid("attestation type is symmetricKey, x509 or tpm")),
        }
    }

    fn parse_certificates(
        kind: EnrolmentKind,
        body: &Value,
        old: Option<&Attestation>,
    ) -> Result<Self, HubRefusal> {
        let invalid = |why: &str| ErrorCode::ArgumentInvalid.because(why);
        let named = |key: &str| {
            field_of(body, "x509").and_then(|x509| field_of(x509, key)).filter(|all| !all.is_null())
        };
        if named("caReferences").is_some() {
            return Err(ErrorCode::NotEmulated.because("caReferences is not emulated"));
        }
        let all = named(kind.certificates_key());
        let all = all.ok_or_else(|| invalid("x509 has neither client nor signing certificates"))?;
        let mut certificates = Vec::new();
        for name in ["primary", "secondary"] {
            let Some(one) = field_of(all, name).filter(|one| !one.is_null()) else { continue };
            let text = field_of(one, "certificate").and_then(Value::as_str).filter(|text| !text.is_empty());
            let known = || Attestation::certificate_with(old, field_of(one, "info")?);
            certificates.push(match text {
                Some(text) => {
                    let der = read_certificate(text)
                        .ok_or_else(|| invalid("a certificate is neither PEM nor DER in base64"))?;
                    STANDARD.encode(&der)
                }
                None => known().ok_or_else(|| {
                    invalid("x509 names a certificate that the enrolment does not have, without giving it")
                })?,
            });
        }
        match certificates.is_empty() {
            false => Ok(Attestation::Certificates(certificates)),
            true => Err(invalid("x509 has no certificate")),
        }
    }

    /// The certificate of `old` that the service's `info` is about.
    fn certificate_with(old: Option<&Attestation>, info: &Value) -> Option<String> {
        let Some(Attestation::Certificates(known)) = old else { return None };
        let thumbprint = field_of(info, "sha1Thumbprint").and_then(Value::as_str)?;
        let is_meant = |text: &&String| {
            ClientCertificate::from_base64(text)
                .is_some_and(|known| known.thumbprint().eq_ignore_ascii_case(thumbprint))
        };
        known.iter().find(is_meant).cloned()
    }

    fn json(&self, kind: EnrolmentKind) -> Value {
        match self {
            Attestation::Keys(keys) => {
                let authentication = Authentication::Sas(keys.clone()).json();
                json!({ "type": "symmetricKey", "symmetricKey": authentication.get("symmetricKey") })
            }
            Attestation::Certificates(all) => {
                let info = |index: usize| {
                    let der = STANDARD.decode(all.get(index)?).ok()?;
                    Some(json!({ "info": certificate_info(&der)? }))
                };
                let mut certificates = json!({ "primary": info(0) });
                if let (Value::Object(certificates), Some(secondary)) = (&mut certificates, info(1)) {
                    certificates.insert("secondary".into(), secondary);
                }
                json!({ "type": "x509", "x509": { kind.certificates_key(): certificates } })
            }
        }
    }
}

/// The certificate in a client's text; `None` when there is none. Clients
/// send PEM, PEM in base64, and DER in base64.
fn read_certificate(text: &str) -> Option<CertificateDer<'static>> {
    if let Ok(pem) = CertificateDer::from_pem_slice(text.as_bytes()) {
        return Some(pem);
    }
    let bytes = STANDARD.decode(text.split_whitespace().collect::<String>()).ok()?;
    let der = CertificateDer::from_pem_slice(&bytes).unwrap_or_else(|_| CertificateDer::from(bytes));
    ClientCertificate::new(Some(std::slice::from_ref(&der)))?.is_readable().then_some(der)
}

#[cfg(test)]
mod tests {
    use iotdm_proto::sas;

    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn with_key(kind: EnrolmentKind) -> Enrolment {
        let body = json!({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}});
        Enrolment::parse(kind, "gw1", &body, None).unwrap()
    }

    #[test]
    fn a_group_takes_derived_keys_only_and_an_individual_its_own() {
        let id: DeviceId = "gw1".parse().unwrap();
        let now: Time = "2026-11-22T18:36:07Z".parse().unwrap();
        let key: SecretKey = KEY.parse().unwrap();
        let proof = |key: &SecretKey| {
            let token =
                sas::sign("0ne/registrations/gw1", key, now.unix_seconds() + 60, Some("registration"));
            Proof::Token(token.parse().unwrap())
        };
        let (own, derived) = (proof(&key), proof(&key.derived("gw1")));
        for (kind, good, bad) in
            [(EnrolmentKind::Individual, &own, &derived), (EnrolmentKind::Group, &derived, &own)]
        {
            let enrolment = with_key(kind);
            enrolment.check(&id, good, "0ne/registrations/gw1", now).unwrap();
            assert!(enrolment.check(&id, bad, "0ne/registrations/gw1", now).is_err());
            assert!(enrolment.check(&id, good, "0ne/registrations/gw2", now).is_err());
        }
        assert_eq!(
            with_key(EnrolmentKind::Group).authentication_json(&id, &own)["symmetricKey"]["primaryKey"],
            key.derived("gw1").expose_base64().as_str()
        );
    }

    #[test]
    fn each_bad_body_is_refused() {
        for body in [
            json!({}),
            json!({"attestation": {"type": "password"}}),
            json!({"allocationPolicy": "random", "attestation": {"type": "symmetricKey"}}),
            json!({"attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"info": {}}}}}}),
            json!({"attestation": {"type": "x509"}}),
            json!({"attestation": {"type": "x509", "x509": {"clientCertificates": {}}}}),
            json!({"attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "AAAA"}}}}}),
            json!({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "?"}}}),
            json!({"registrationId": "other", "attestation": {"type": "symmetricKey"}}),
            json!({"provisioningStatus": "perhaps", "attestation": {"type": "symmetricKey"}}),
            json!({"initialTwin": {"tags": 1}, "attestation": {"type": "symmetricKey"}}),
        ] {
            let error = Enrolment::parse(EnrolmentKind::Individual, "gw1", &body, None).err().unwrap();
            assert_eq!(error.code, ErrorCode::ArgumentInvalid, "{body}");
        }
        for body in [
            json!({"attestation": {"type": "tpm"}}),
            json!({"attestation": {"type": "x509", "x509": {"caReferences": {"primary": "ca"}}}}),
            json!({"allocationPolicy": "custom", "attestation": {"type": "symmetricKey"}}),
            json!({"customAllocationDefinition": {}, "attestation": {"type": "symmetricKey"}}),
        ] {
            let error = Enrolment::parse(EnrolmentKind::Individual, "gw1", &body, None).err().unwrap();
            assert_eq!(error.code, ErrorCode::NotEmulated, "{body}");
        }
    }

    #[test]
    fn names_of_fields_may_be_in_any_case() {
        let certificate = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.der().clone();
        let one = json!({"Primary": {"Certificate": STANDARD.encode(certificate)}});
        for (kind, attestation) in [
            (
                EnrolmentKind::Group,
                json!({"Type": "symmetricKey", "SymmetricKey": {"PrimaryKey": KEY, "SecondaryKey": KEY}}),
            ),
            (EnrolmentKind::Individual, json!({"Type": "x509", "X509": {"ClientCertificates": one}})),
        ] {
            let body = json!({
                "Attestation": attestation, "ProvisioningStatus": "disabled", "IotHubs": ["other.example"],
                "InitialTwin": {"Tags": {"A": 1}}, "DeviceId": "other", "Capabilities": {"IotEdge": true},
            });
            let enrolment = Enrolment::parse(kind, "g", &body, None).unwrap();
            let shown = enrolment.json();
            assert!(!enrolment.enabled);
            assert_eq!((&shown["deviceId"], &shown["iotHubs"]), (&json!("other"), &body["IotHubs"]));
            assert_eq!(
                (&shown["initialTwin"], &shown["capabilities"]),
                (&body["InitialTwin"], &body["Capabilities"])
            );
            match &enrolment.attestation {
                Attestation::Keys(_) => {
                    assert_eq!(shown["attestation"]["symmetricKey"]["primaryKey"], KEY);
                }
                Attestation::Certificates(all) => assert_eq!(all.len(), 1),
            }
        }
        for named in ["RegistrationId", "AllocationPolicy"] {
            let body = json!({named: "other", "attestation": {"type": "symmetricKey"}});
            let error = Enrolment::parse(EnrolmentKind::Individual, "gw1", &body, None).err().unwrap();
            assert_eq!(error.code, ErrorCode::ArgumentInvalid, "{named}");
        }
    }

    #[test]
    fn an_enrolment_as_it_was_returned_is_taken_again() {
        let certificate = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.der().clone();
        let certificate = STANDARD.encode(certificate);
        let one = json!({"primary": {"certificate": certificate}});
        for attestation in [
            json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}),
            json!({"type": "x509", "x509": {"signingCertificates": one}}),
        ] {
            let body = json!({
                "attestation": attestation, "allocationPolicy": "static", "iotHubs": ["other.example"],
                "reprovisionPolicy": {"updateHubAssignment": false, "migrateDeviceData": false},
                "optionalDeviceInformation": {"a": 1}, "iotHubHostName": "other.example",
            });
            let first = Enrolment::parse(EnrolmentKind::Group, "g", &body, None).unwrap();
            let shown = first.json();
            for key in KEPT {
                assert_eq!(shown[key], body[key], "{key}");
            }
            let again = Enrolment::parse(EnrolmentKind::Group, "g", &shown, Some(&first)).unwrap();
            let without = |mut json: Value| {
                let fields = json.as_object_mut().unwrap();
                fields.remove("etag");
                fields.remove("lastUpdatedDateTimeUtc");
                json
            };
            assert_eq!(without(again.json()), without(shown));
        }
        let first = with_key(EnrolmentKind::Group);
        let mut hidden = first.json();
        hidden["attestation"]["symmetricKey"] = Value::Null;
        let again = Enrolment::parse(EnrolmentKind::Group, "gw1", &hidden, Some(&first)).unwrap();
        assert_eq!(again.json()["attestation"], first.json()["attestation"]);
    }
}
