//! Registering a device with the provisioning service: it becomes a device of
//! this hub, or is given its authentication again.

use iotdm_proto::DeviceId;
use serde_json::{Value, json};

use super::Hub;
use crate::clock::now;
use crate::device::IdentityChange;
use crate::etag::IfMatch;
use crate::proof::Proof;
use crate::provisioning::enrolment::{Enrolment, EnrolmentKind};
use crate::provisioning::registration::Registration;
use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::twin::TwinChange;
use iotdm_proto::Identity;

impl Hub {
    /// Registers the device that `enrolment` lets in as `id`, having shown
    /// `proof`; `over_websocket` says how the device came, and so which port
    /// of the hub the device is told. A disabled enrolment gives a registration
    /// without a device.
    pub async fn register(
        &self,
        id: &DeviceId,
        enrolment: &Enrolment,
        proof: &Proof,
        over_websocket: bool,
    ) -> Result<Registration, HubRefusal> {
        let device_id = enrolment.device_id.clone().unwrap_or_else(|| id.clone());
        let before = self.provisioning.registration(id).ok();
        if enrolment.enabled {
            let authentication = enrolment.authentication_json(id, proof);
            self.assign(&device_id.clone().into(), enrolment, &authentication).await?;
        }
        let now = now();
        let registration = Registration {
            id: id.clone(),
            operation: operation_id()?,
            device_id: enrolment.enabled.then_some(device_id),
            assigned_hub: self.address.for_devices(over_websocket),
            group: (enrolment.kind == EnrolmentKind::Group).then(|| enrolment.id.clone()),
            again: before.is_some(),
            etag: random::etag()?,
            created: before.map_or(now, |before| before.created),
            updated: now,
        };
        self.provisioning.keep(registration.clone())?;
        Ok(registration)
    }

    /// Creates the device, or gives an existing one `authentication`, unless
    /// that is what it has: then nothing is written.
    async fn assign(
        &self,
        device: &Identity,
        enrolment: &Enrolment,
        authentication: &Value,
    ) -> Result<(), HubRefusal> {
        let change = || IdentityChange::parse(device, &json!({ "authentication": authentication }));
        let new = json!({ "authentication": authentication, "capabilities": enrolment.capabilities });
        let new = IdentityChange::parse(device, &new)?;
        let twin = match &enrolment.initial_twin {
            Value::Null => TwinChange::default(),
            twin => TwinChange::parse(twin)?,
        };
        match self.create_device(device, new, &twin).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code == ErrorCode::DeviceAlreadyExists => {
                let known = self.registry.read(device, |known| known.authentication.json())?;
                let same = |place| {
                    let text = |json: &Value| json.pointer(place).and_then(Value::as_str).map(str::to_owned);
                    text(&known) == text(authentication)
                };
                let places = ["/type", "/symmetricKey/primaryKey", "/x509Thumbprint/primaryThumbprint"];
                if places.into_iter().all(same) {
                    return Ok(());
                }
                self.update_device(device, change()?, &IfMatch::Any).await.map(drop)
            }
            Err(refusal) => Err(refusal),
        }
    }
}

/// A new id of an operation, in the service's form.
fn operation_id() -> Result<String, HubRefusal> {
    let instance = random::hex_id()?;
    Ok(format!("5.{}.{}", instance.get(..16).unwrap_or(&instance), random::guid()?))
}
