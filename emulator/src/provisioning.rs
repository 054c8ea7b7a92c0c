//! The device provisioning service: a device that knows only a key or a
//! certificate registers, and is told its hub and its name there.
//!
//! [`enrolment`] is what an operator permits, [`registration`] what a device
//! was given by it, [`refusal`] how the service says no; [`Provisioning`] keeps both durably. Registering itself is
//! an operation of the hub, the only one that there is to assign to. Source:
//! "Device Provisioning Service concepts", "Symmetric key attestation", the
//! REST reference, and captures of the official clients.

pub mod certificate_info;
pub mod enrolment;
pub mod refusal;
pub mod registration;
pub mod registration_id;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use iotdm_proto::{DeviceId, Time};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::etag::IfMatch;
use crate::proof::Proof;
use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::store::{ENROLMENTS, REGISTRATIONS, Store};
use enrolment::{Enrolment, EnrolmentKind};
use registration::Registration;

/// The enrolments and registrations of one id scope.
pub struct Provisioning {
    /// `0ne…`, which tells this provisioning service from others; part of the
    /// devices' user names and tokens.
    pub id_scope: String,
    inner: Mutex<Inner>,
}

struct Inner {
    store: Store,
    enrolments: BTreeMap<(EnrolmentKind, String), Enrolment>,
    registrations: BTreeMap<DeviceId, Registration>,
}

impl Provisioning {
    /// The enrolments and registrations that the store has.
    pub fn open(store: Store) -> Result<Self> {
        let id_scope = store.hub_value("id-scope", || {
            let digits = random::hex_id()?.to_uppercase();
            Ok(format!("0ne{}", digits.get(..8).unwrap_or(&digits)))
        })?;
        let enrolments = store.all::<Enrolment>(ENROLMENTS)?.into_iter();
        let enrolments =
            enrolments.map(|(_, enrolment)| ((enrolment.kind, enrolment.id.clone()), enrolment)).collect();
        let registrations = store.all::<Registration>(REGISTRATIONS)?.into_iter();
        let registrations = registrations.map(|(id, registration)| Ok((id.parse()?, registration)));
        let registrations = registrations.collect::<Result<_>>()?;
        Ok(Provisioning { id_scope, inner: Mutex::new(Inner { store, enrolments, registrations }) })
    }

    /// Creates the enrolment `id` as an operator's JSON has it, or changes the one of
    /// that name, and returns it as its operator sees it.
    pub fn put(
        &self,
        kind: EnrolmentKind,
        id: &str,
        body: &Value,
        if_match: &IfMatch,
    ) -> Result<Value, HubRefusal> {
        let mut inner = self.lock();
        let key = (kind, id.to_owned());
        let old = inner.enrolments.get(&key);
        if let Some(old) = old {
            if_match.check(&old.etag)?;
        }
        let enrolment = Enrolment::parse(kind, id, body, old)?;
        let name = enrolment.store_name();
        block_in_place(|| inner.store.put(ENROLMENTS, &name, &enrolment)).map_err(HubRefusal::internal)?;
        let json = enrolment.json();
        inner.enrolments.insert(key, enrolment);
        Ok(json)
    }

    /// What the devices of an enrolment have to show, keys included.
    pub fn attestation(&self, kind: EnrolmentKind, id: &str) -> Result<Value, HubRefusal> {
        let enrolment = self.enrolment(kind, id)?;
        Ok(enrolment.get("attestation").cloned().unwrap_or_default())
    }

    /// An enrolment as its operator sees it.
    pub fn enrolment(&self, kind: EnrolmentKind, id: &str) -> Result<Value, HubRefusal> {
        let inner = self.lock();
        let found = inner.enrolments.get(&(kind, id.to_owned()));
        found.map(Enrolment::json).ok_or_else(|| kind.not_found(id))
    }

    /// All enrolments of a kind.
    pub fn enrolments(&self, kind: EnrolmentKind) -> Vec<Value> {
        let inner = self.lock();
        inner.enrolments.values().filter(|found| found.kind == kind).map(Enrolment::json).collect()
    }

    /// Removes an enrolment. Devices that registered by the enrolment stay.
    pub fn remove(&self, kind: EnrolmentKind, id: &str, if_match: &IfMatch) -> Result<(), HubRefusal> {
        let mut inner = self.lock();
        let key = (kind, id.to_owned());
        let enrolment = inner.enrolments.get(&key).ok_or_else(|| kind.not_found(id))?;
        if_match.check(&enrolment.etag)?;
        let name = enrolment.store_name();
        block_in_place(|| inner.store.remove(ENROLMENTS, &name)).map_err(HubRefusal::internal)?;
        inner.enrolments.remove(&key);
        Ok(())
    }

    /// The enrolment by which a device that shows `proof` may register as `id`:
    /// the device's own enrolment, else a group's.
    pub fn authenticate(&self, id: &DeviceId, proof: &Proof, now: Time) -> Result<Enrolment, HubRefusal> {
        let inner = self.lock();
        let own = inner.enrolments.get(&(EnrolmentKind::Individual, id.to_string()));
        let groups = inner.enrolments.values().filter(|enrolment| enrolment.kind == EnrolmentKind::Group);
        let resource = format!("{}/registrations/{id}", self.id_scope);
        // The numbers are those that devices were told by the service.
        let code = match proof {
            Proof::Token(_) => ErrorCode::GenericUnauthorized,
            Proof::Certificate(_) => ErrorCode::InvalidCertificate,
        };
        let mut refusal = code.because(format!("no enrolment knows {id}"));
        for enrolment in own.into_iter().chain(groups) {
            match enrolment.check(id, proof, &resource, now) {
                Ok(()) => return Ok(enrolment.clone()),
                Err(why) => refusal = code.because(why),
            }
        }
        Err(refusal)
    }

    /// Keeps a registration, in place of an earlier one of the same device.
    pub fn keep(&self, registration: Registration) -> Result<(), HubRefusal> {
        let mut inner = self.lock();
        let id = registration.id.clone();
        let put = || inner.store.put(REGISTRATIONS, id.as_str(), &registration);
        block_in_place(put).map_err(HubRefusal::internal)?;
        inner.registrations.insert(id, registration);
        Ok(())
    }

    /// The registration of a device.
    pub fn registration(&self, id: &DeviceId) -> Result<Registration, HubRefusal> {
        self.lock().registrations.get(id).cloned().ok_or_else(|| not_registered(id))
    }

    /// The registration of a device that asks how `operation` went.
    pub fn operation(&self, id: &DeviceId, operation: &str) -> Result<Registration, HubRefusal> {
        let registration = self.registration(id)?;
        if registration.operation != operation {
            return Err(
                ErrorCode::AsyncOperationNotFound.because(format!("{id} has no operation {operation}"))
            );
        }
        Ok(registration)
    }

    /// Forgets a registration; the registered device stays.
    pub fn forget(&self, id: &DeviceId) -> Result<(), HubRefusal> {
        let mut inner = self.lock();
        if !inner.registrations.contains_key(id) {
            return Err(not_registered(id));
        }
        block_in_place(|| inner.store.remove(REGISTRATIONS, id.as_str())).map_err(HubRefusal::internal)?;
        inner.registrations.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_registered(id: &DeviceId) -> HubRefusal {
    ErrorCode::DeviceRegistrationNotFound.because(format!("{id} has not registered"))
}
