//! Configurations of fleets, as they are kept and listed; what they come to on twins
//! is elsewhere. Source: the REST reference of configurations.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use iotdm_proto::DeviceId;
use serde_json::{Map, Value, json};
use tokio::task::block_in_place;

use crate::clock::now;
use crate::etag::{self, IfMatch};
use crate::fields::{field, field_of};
use crate::refusal::{ErrorCode, HubRefusal};
use crate::store::{CONFIGURATIONS, Store};

/// What content may be for: devices, modules, and the modules of IoT Edge devices.
const CONTENT: [&str; 3] = ["deviceContent", "moduleContent", "modulesContent"];

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

    /// Creates a configuration, or with an etag in `If-Match` changes it, and returns
    /// it as services see it.
    pub fn put(&self, id: &str, body: &Value, if_match: &IfMatch) -> Result<Value, HubRefusal> {
        let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
        // Configuration ids are narrower, but not wider, than device ids.
        id.parse::<DeviceId>().map_err(|error| invalid(format!("{error}")))?;
        let Value::Object(body) = body else {
            return Err(invalid("the body is not a JSON object".into()));
        };
        if field(body, "id").is_some_and(|other| !other.is_null() && other != id) {
            return Err(invalid("the id of the body is not that of the path".into()));
        }
        let mut inner = self.lock();
        let old = inner.all.get(id);
        let etag = match old {
            Some(_) if if_match.creates() => {
                return Err(ErrorCode::ConfigurationAlreadyExists.because(format!("{id} exists")));
            }
            Some(old) => {
                if_match.check_configuration(etag_of(old))?;
                etag::next(etag_of(old))?
            }
            None if if_match.creates() => etag::FIRST_OF_CONFIGURATION.to_owned(),
            None => return Err(not_found(id)),
        };
        let created = old.and_then(|old| old.get("createdTimeUtc")).cloned();
        let configuration = configuration(id, body, &etag, created)?;
        block_in_place(|| inner.store.put(CONFIGURATIONS, id, &configuration))
            .map_err(HubRefusal::internal)?;
        inner.all.insert(id.to_owned(), configuration.clone());
        Ok(Value::Object(configuration))
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
        if_match.check_configuration(etag_of(old))?;
        block_in_place(|| inner.store.remove(CONFIGURATIONS, id)).map_err(HubRefusal::internal)?;
        inner.all.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration as it is kept and shown: what `body` names, what it does not
/// name, and what only the hub writes. `created` is when it was created, unless
/// that is now.
fn configuration(
    id: &str,
    body: &Map<String, Value>,
    etag: &str,
    created: Option<Value>,
) -> Result<Map<String, Value>, HubRefusal> {
    let of = |name: &str| field(body, name).cloned().unwrap_or_default();
    let condition = of("targetCondition");
    let content = content(of("content"));
    let metrics = of("metrics");
    let queries = field_of(&metrics, "queries").filter(|queries| queries.is_object()).cloned();
    let now = Value::from(now().to_string());
    let priority = match of("priority") {
        Value::Null => Value::from(0),
        priority => priority,
    };
    let configuration = json!({
        "id": id,
        "schemaVersion": of("schemaVersion"),
        "labels": of("labels"),
        "content": content,
        "targetCondition": condition,
        "createdTimeUtc": created.unwrap_or_else(|| now.clone()),
        "lastUpdatedTimeUtc": now,
        "priority": priority,
        "systemMetrics": { "results": {}, "queries": system_queries(id, &condition, &content) },
        "metrics": { "results": {}, "queries": queries.unwrap_or_else(|| json!({})) },
        "etag": etag,
    });
    match configuration {
        Value::Object(configuration) => Ok(configuration),
        _ => Err(HubRefusal::internal("a configuration is no object")),
    }
}

/// Content by the names that the service has for it, in whatever case they are written.
fn content(written: Value) -> Value {
    let Value::Object(written) = written else { return written };
    let name = |key: &str| CONTENT.into_iter().find(|name| name.eq_ignore_ascii_case(key)).map(str::to_owned);
    written.into_iter().map(|(key, value)| (name(&key).unwrap_or(key), value)).collect()
}

/// The queries by which the service counts what a configuration reaches; without a
/// condition it reaches nothing. Source: a recorded configuration of devices, and one
/// of IoT Edge modules in the tests of the Azure CLI's extension; that of modules is
/// by analogy.
fn system_queries(id: &str, condition: &Value, content: &Value) -> Value {
    let is_there = |name: &str| field_of(content, name).is_some_and(|content| !content.is_null());
    let (source, base) = if is_there("moduleContent") {
        ("deviceId, moduleId from devices.modules", None)
    } else if is_there("modulesContent") {
        ("deviceId from devices", Some("capabilities.iotEdge = true"))
    } else {
        ("deviceId from devices", None)
    };
    let condition = condition.as_str().unwrap_or_default().trim();
    let targeted = match (base, condition) {
        (_, "") => String::new(),
        (None, "*") => format!("select {source}"),
        (Some(base), "*") => format!("select {source} where {base}"),
        (None, condition) => format!("select {source} where {condition}"),
        (Some(base), condition) => format!("select {source} where {base} and ({condition})"),
    };
    let is_applied = format!("configurations.[[{id}]].status = 'Applied'");
    if base.is_none() {
        let applied = format!("select {source} where {is_applied}");
        return json!({ "targetedCount": targeted, "appliedCount": applied });
    }
    let agents =
        format!("select deviceId from devices.modules where moduleId = '$edgeAgent' and {is_applied}");
    let reported = |is: &str| {
        format!(
            "{agents} and properties.desired.$version = properties.reported.lastDesiredVersion \
             and properties.reported.lastDesiredStatus.code {is} 200"
        )
    };
    json!({
        "targetedCount": targeted,
        "appliedCount": agents,
        "reportedSuccessfulCount": reported("="),
        "reportedFailedCount": reported("!="),
    })
}

/// The configuration's etag.
fn etag_of(configuration: &Map<String, Value>) -> &str {
    configuration.get("etag").and_then(Value::as_str).unwrap_or_default()
}

fn not_found(id: &str) -> HubRefusal {
    ErrorCode::ConfigurationNotFound.because(format!("{id}: no such configuration"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    #[test]
    fn every_query_of_the_service_is_one_that_it_understands() {
        for content in CONTENT {
            for condition in ["*", "tags.site = 'x' OR tags.site = 'y'", ""] {
                let queries = system_queries("a-b", &condition.into(), &json!({ content: {} }));
                for (name, query) in queries.as_object().unwrap() {
                    let query = query.as_str().unwrap();
                    assert_eq!(query.is_empty(), name == "targetedCount" && condition.is_empty());
                    assert!(query.is_empty() || query.parse::<Query>().is_ok(), "{query}");
                }
            }
        }
        let queries = system_queries("c", &"*".into(), &json!({"deviceContent": {}}));
        assert_eq!(queries["targetedCount"], "select deviceId from devices");
    }

    #[test]
    fn what_content_is_for_may_be_written_in_any_case() {
        let body = json!({"Content": {"DeviceContent": {"properties.desired.A": 1}, "other": 2}});
        let kept = configuration("c", body.as_object().unwrap(), "e", None).unwrap();
        assert_eq!(kept["content"], json!({"deviceContent": {"properties.desired.A": 1}, "other": 2}));
        let applied = crate::configured::Configuration::parse(&Value::Object(kept)).unwrap();
        assert_eq!(applied.content.len(), 1);
    }
}
