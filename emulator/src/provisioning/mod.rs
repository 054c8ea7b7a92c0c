//! The device provisioning service: a device that knows only a key or a
//! certificate registers, and is told its hub and its name there.
//!
//! [`enrolment`] is what an operator permits, [`registration`] what became of
//! it, [`session`] how devices ask over MQTT. There is one hub to assign to:
//! this one. Source: "Device Provisioning Service concepts", "Symmetric key
//! attestation", the REST reference, and captures of the official clients.

pub mod enrolment;
pub mod registration;
pub mod session;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use iotdm_proto::{DeviceId, Time};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::authentication::Proof;
use crate::device::now;
use crate::error::{Code, HubError};
use crate::hub::IfMatch;
use crate::random;
use crate::store::{ENROLMENTS, REGISTRATIONS, Store};
use enrolment::{Enrolment, Scope};
use registration::Registration;

/// Enrolments and registrations.
pub struct Provisioning {
    /// Tells this service from others, `0ne…`; part of user names and tokens.
    pub id_scope: String,
    inner: Mutex<Inner>,
}

struct Inner {
    store: Store,
    enrolments: BTreeMap<(Scope, String), Enrolment>,
    registrations: BTreeMap<DeviceId, Registration>,
}

impl Provisioning {
    /// What the store has.
    pub fn open(store: Store) -> Result<Self> {
        let id_scope = store.hub_value("id-scope", || {
            let digits = random::hex_id()?.to_uppercase();
            Ok(format!("0ne{}", digits.get(..8).unwrap_or(&digits)))
        })?;
        let enrolments = store.all::<Enrolment>(ENROLMENTS)?.into_iter();
        let enrolments =
            enrolments.map(|(_, enrolment)| ((enrolment.scope, enrolment.id.clone()), enrolment)).collect();
        let registrations = store.all::<Registration>(REGISTRATIONS)?.into_iter();
        let registrations = registrations.map(|(id, registration)| Ok((id.parse()?, registration)));
        let registrations = registrations.collect::<Result<_>>()?;
        Ok(Provisioning { id_scope, inner: Mutex::new(Inner { store, enrolments, registrations }) })
    }

    /// Creates an enrolment, or changes it.
    pub fn put(&self, mut enrolment: Enrolment, if_match: &IfMatch) -> Result<Value, HubError> {
        let mut inner = self.lock();
        let key = (enrolment.scope, enrolment.id.clone());
        if let Some(old) = inner.enrolments.get(&key) {
            if_match.check(&old.etag)?;
            enrolment.created = old.created;
        }
        let name = enrolment.store_name();
        block_in_place(|| inner.store.put(ENROLMENTS, &name, &enrolment)).map_err(HubError::internal)?;
        let json = enrolment.json();
        inner.enrolments.insert(key, enrolment);
        Ok(json)
    }

    /// An enrolment as its operator sees it.
    pub fn enrolment(&self, scope: Scope, id: &str) -> Result<Value, HubError> {
        let inner = self.lock();
        let found = inner.enrolments.get(&(scope, id.to_owned()));
        found.map(Enrolment::json).ok_or_else(|| scope.not_found(id))
    }

    /// All enrolments of a kind.
    pub fn enrolments(&self, scope: Scope) -> Vec<Value> {
        let inner = self.lock();
        inner.enrolments.values().filter(|found| found.scope == scope).map(Enrolment::json).collect()
    }

    /// Removes an enrolment. Devices that it let in stay.
    pub fn remove(&self, scope: Scope, id: &str, if_match: &IfMatch) -> Result<(), HubError> {
        let mut inner = self.lock();
        let key = (scope, id.to_owned());
        let enrolment = inner.enrolments.get(&key).ok_or_else(|| scope.not_found(id))?;
        if_match.check(&enrolment.etag)?;
        let name = enrolment.store_name();
        block_in_place(|| inner.store.remove(ENROLMENTS, &name)).map_err(HubError::internal)?;
        inner.enrolments.remove(&key);
        Ok(())
    }

    /// The enrolment by which a device may register as `id`: its own, else a
    /// group's.
    pub fn authenticate(&self, id: &DeviceId, proof: &Proof, now: Time) -> Result<Enrolment, HubError> {
        let inner = self.lock();
        let own = inner.enrolments.get(&(Scope::Individual, id.to_string()));
        let groups = inner.enrolments.values().filter(|enrolment| enrolment.scope == Scope::Group);
        let resource = format!("{}/registrations/{id}", self.id_scope);
        let mut refusal = Code::IotHubUnauthorized.because(format!("no enrolment knows {id}"));
        for enrolment in own.into_iter().chain(groups) {
            match enrolment.check(id, proof, &resource, now) {
                Ok(()) => return Ok(enrolment.clone()),
                Err(why) => refusal = Code::IotHubUnauthorized.because(why),
            }
        }
        Err(refusal)
    }

    /// Keeps what became of a registration.
    pub fn keep(&self, registration: Registration) -> Result<(), HubError> {
        let mut inner = self.lock();
        let id = registration.id.clone();
        let put = || inner.store.put(REGISTRATIONS, id.as_str(), &registration);
        block_in_place(put).map_err(HubError::internal)?;
        inner.registrations.insert(id, registration);
        Ok(())
    }

    /// What became of a registration.
    pub fn registration(&self, id: &DeviceId) -> Result<Registration, HubError> {
        self.lock().registrations.get(id).cloned().ok_or_else(|| not_registered(id))
    }

    /// Forgets a registration; its device stays.
    pub fn forget(&self, id: &DeviceId) -> Result<(), HubError> {
        let mut inner = self.lock();
        if !inner.registrations.contains_key(id) {
            return Err(not_registered(id));
        }
        block_in_place(|| inner.store.remove(REGISTRATIONS, id.as_str())).map_err(HubError::internal)?;
        inner.registrations.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_registered(id: &DeviceId) -> HubError {
    Code::DeviceRegistrationNotFound.because(format!("{id} has not registered"))
}

/// Time of the last change and of creation of something new.
fn stamp() -> Result<(String, Time), HubError> {
    Ok((random::etag()?, now()))
}
