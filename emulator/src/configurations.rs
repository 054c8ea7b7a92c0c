//! Configurations of fleets: kept and listed, and applied to nothing. Source:
//! the REST reference of configurations.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use iotdm_proto::DeviceId;
use serde_json::{Map, Value};
use tokio::task::block_in_place;

use crate::clock::now;
use crate::etag::IfMatch;
use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::store::{CONFIGURATIONS, Store};

/// All configurations, by id.
pub struct Configurations(Mutex<Inner>);

struct Inner {
    store: Store,
    all: BTreeMap<String, Map<String, Value>>,
}

impl Configurations {
    /// The configurations in the store.
    pub fn open(store: Store) -> Result<Self> {
        let all = store.all(CONFIGURATIONS)?.into_iter().collect();
        Ok(Configurations(Mutex::new(Inner { store, all })))
    }

    /// Creates a configuration, or with `If-Match` changes it, and returns it with
    /// etag and times. What a configuration holds is not looked at.
    pub fn put(&self, id: &str, body: Value, if_match: &IfMatch) -> Result<Value, HubRefusal> {
        let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
        // Configuration ids are narrower, but not wider, than device ids.
        id.parse::<DeviceId>().map_err(|error| invalid(format!("{error}")))?;
        let Value::Object(mut body) = body else {
            return Err(invalid("the body is not a JSON object".into()));
        };
        if body.get("id").is_some_and(|other| !other.is_null() && other != id) {
            return Err(invalid("the id of the body is not that of the path".into()));
        }
        let mut inner = self.lock();
        let old = inner.all.get(id);
        if old.is_some() && *if_match == IfMatch::Absent {
            return Err(ErrorCode::ConfigurationAlreadyExists.because(format!("{id} exists")));
        }
        if_match.check(etag(old))?;
        let created = old.and_then(|old| old.get("createdTimeUtc")).cloned();
        let now = Value::from(now().to_string());
        body.insert("id".into(), id.into());
        body.insert("etag".into(), random::etag()?.into());
        body.insert("createdTimeUtc".into(), created.unwrap_or_else(|| now.clone()));
        body.insert("lastUpdatedTimeUtc".into(), now);
        block_in_place(|| inner.store.put(CONFIGURATIONS, id, &body)).map_err(HubRefusal::internal)?;
        inner.all.insert(id.to_owned(), body.clone());
        Ok(Value::Object(body))
    }

    /// The configuration `id`.
    pub fn read(&self, id: &str) -> Result<Value, HubRefusal> {
        self.lock().all.get(id).cloned().map(Value::Object).ok_or_else(|| not_found(id))
    }

    /// The first `top` configurations, in the order of their ids.
    pub fn list(&self, top: usize) -> Vec<Value> {
        self.lock().all.values().take(top).cloned().map(Value::Object).collect()
    }

    /// Removes a configuration.
    pub fn remove(&self, id: &str, if_match: &IfMatch) -> Result<(), HubRefusal> {
        let mut inner = self.lock();
        let old = inner.all.get(id).ok_or_else(|| not_found(id))?;
        if_match.check(etag(Some(old)))?;
        block_in_place(|| inner.store.remove(CONFIGURATIONS, id)).map_err(HubRefusal::internal)?;
        inner.all.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration's etag; empty when there is no configuration.
fn etag(configuration: Option<&Map<String, Value>>) -> &str {
    configuration.and_then(|found| found.get("etag")).and_then(Value::as_str).unwrap_or_default()
}

fn not_found(id: &str) -> HubRefusal {
    ErrorCode::ConfigurationNotFound.because(format!("{id}: no such configuration"))
}
