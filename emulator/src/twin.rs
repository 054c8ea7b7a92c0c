//! A device's twin as the hub keeps it: values, versions, and the times that
//! only the service's view shows.
//!
//! Source: "Understand and use device twins in IoT Hub". `$lastUpdated` stands
//! at every level of `$metadata`; for desired properties `$lastUpdatedVersion`
//! as well.

use iotdm_proto::Time;
use iotdm_proto::twin::{self, Object, Properties, Section, TwinError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Code, HubError};
use crate::random::{self, NoRandom};

/// A twin.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// Changes with tags and desired properties.
    pub etag: String,
    /// Counts every change of the twin.
    pub version: u64,
    /// The model that the device named when it connected.
    pub model_id: String,
    /// The operators' own properties, not shown to the device.
    pub tags: Object,
    /// What the operators want of the device.
    pub desired: Part,
    /// What the device says of itself.
    pub reported: Part,
}

/// One half of a twin's properties.
#[derive(Clone, Serialize, Deserialize)]
pub struct Part {
    values: Object,
    version: u64,
    metadata: Object,
}

/// A service's change of a twin.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    /// For the tags.
    pub tags: Edit,
    /// For the desired properties.
    pub desired: Edit,
}

/// A change of one section.
#[derive(Debug, Default, PartialEq)]
pub enum Edit {
    /// It is absent: the section stays as it is.
    #[default]
    None,
    /// It is `null`: all goes. So does the hub in the Node SDK's own end-to-end
    /// tests.
    Clear,
    /// To merge, or to put in the section's place.
    With(Object),
}

/// What the device has to be told: the patch and the desired version that it
/// leads to.
pub type Notification = Option<(Object, u64)>;

impl Twin {
    /// An empty twin.
    pub fn new(now: Time) -> Result<Self, NoRandom> {
        Ok(Twin {
            etag: random::etag()?,
            version: 1,
            model_id: String::new(),
            tags: Object::new(),
            desired: Part::new(now, Some(1)),
            reported: Part::new(now, None),
        })
    }

    /// Merges a service's change. On an error nothing changes.
    pub fn patch(&mut self, change: &Change, now: Time) -> Result<Notification, HubError> {
        self.change(change, false, now)
    }

    /// Replaces the sections that the change names. Whether the real hub
    /// empties a section that is not named is unverified; the documentation
    /// describes replacing per section.
    pub fn replace(&mut self, change: &Change, now: Time) -> Result<Notification, HubError> {
        self.change(change, true, now)
    }

    fn change(&mut self, change: &Change, replace: bool, now: Time) -> Result<Notification, HubError> {
        let (mut next, none) = (self.clone(), Object::new());
        match &change.tags {
            Edit::None => {}
            Edit::With(tags) if !replace => {
                next.change_tags(|properties| properties.patch(Section::Tags, tags, None))?;
            }
            edit => {
                let tags = edit.values().unwrap_or(&none);
                next.change_tags(|properties| properties.replace(Section::Tags, tags))?;
            }
        }
        let notification = match &change.desired {
            Edit::None => None,
            Edit::With(desired) if !replace => {
                let version = next.desired.patch(Section::Desired, desired, None, now)?;
                Some((desired.clone(), version))
            }
            edit => {
                let desired = edit.values().unwrap_or(&none);
                let patch = twin::diff(&self.desired.values, desired);
                let version = next.desired.replace(Section::Desired, desired, now)?;
                Some((patch, version))
            }
        };
        next.touch()?;
        *self = next;
        Ok(notification)
    }

    /// Merges the device's own patch, for the reported version `expected` if
    /// given; returns the new version.
    pub fn report(&mut self, patch: &Object, expected: Option<u64>, now: Time) -> Result<u64, HubError> {
        let version = self.reported.patch(Section::Reported, patch, expected, now)?;
        self.version += 1;
        Ok(version)
    }

    /// The document that the device reads.
    pub fn device_json(&self) -> Value {
        json!({ "desired": self.desired.device_json(), "reported": self.reported.device_json() })
    }

    fn change_tags(
        &mut self,
        change: impl FnOnce(&mut Properties) -> Result<(), TwinError>,
    ) -> Result<(), TwinError> {
        let mut properties = Properties { values: self.tags.clone(), version: 1 };
        change(&mut properties)?;
        self.tags = properties.values;
        Ok(())
    }

    fn touch(&mut self) -> Result<(), NoRandom> {
        self.version += 1;
        self.etag = random::etag()?;
        Ok(())
    }
}

impl Part {
    fn new(now: Time, version: Option<u64>) -> Self {
        Part { values: Object::new(), version: 1, metadata: leaf(now, version) }
    }

    fn patch(
        &mut self,
        section: Section,
        patch: &Object,
        expected: Option<u64>,
        now: Time,
    ) -> Result<u64, TwinError> {
        let mut properties = Properties { values: self.values.clone(), version: self.version };
        properties.patch(section, patch, expected)?;
        (self.values, self.version) = (properties.values, properties.version);
        let stamp = leaf(now, self.stamp(section));
        merge_metadata(&mut self.metadata, patch, &stamp);
        Ok(self.version)
    }

    fn replace(&mut self, section: Section, values: &Object, now: Time) -> Result<u64, TwinError> {
        let mut properties = Properties { values: self.values.clone(), version: self.version };
        properties.replace(section, values)?;
        (self.values, self.version) = (properties.values, properties.version);
        let stamp = leaf(now, self.stamp(section));
        self.metadata = stamp.clone();
        merge_metadata(&mut self.metadata, &self.values, &stamp);
        Ok(self.version)
    }

    /// The version, where the section's metadata shows it.
    fn stamp(&self, section: Section) -> Option<u64> {
        (section == Section::Desired).then_some(self.version)
    }

    /// The values with `$version`.
    pub fn device_json(&self) -> Object {
        let mut object = self.values.clone();
        object.insert("$version".into(), self.version.into());
        object
    }

    /// The values with `$version` and `$metadata`.
    pub fn service_json(&self) -> Object {
        let mut object = self.device_json();
        object.insert("$metadata".into(), self.metadata.clone().into());
        object
    }
}

impl Change {
    /// Reads a service's body: `{"tags":{…},"properties":{"desired":{…}}}`.
    ///
    /// Operators send a twin back that they have read, so what only the hub
    /// writes (`$version`, `$metadata`, reported properties, the identity) is
    /// passed over.
    pub fn parse(body: &Value) -> Result<Self, HubError> {
        let Value::Object(body) = body else {
            return Err(Code::ArgumentInvalid.because("the body is not a JSON object"));
        };
        let desired = match body.get("properties") {
            None | Some(Value::Null) => Edit::None,
            Some(Value::Object(properties)) => section(properties, "desired")?,
            Some(_) => return Err(Code::ArgumentInvalid.because("properties is not an object")),
        };
        Ok(Change { tags: section(body, "tags")?, desired })
    }

    /// Whether it puts something into a new twin.
    pub fn has_values(&self) -> bool {
        [&self.tags, &self.desired].into_iter().any(|edit| edit.values().is_some())
    }
}

impl Edit {
    fn values(&self) -> Option<&Object> {
        if let Edit::With(values) = self { Some(values) } else { None }
    }
}

fn section(body: &Map<String, Value>, name: &str) -> Result<Edit, HubError> {
    match body.get(name) {
        None => Ok(Edit::None),
        Some(Value::Null) => Ok(Edit::Clear),
        Some(Value::Object(section)) => {
            let mut section = section.clone();
            section.retain(|key, _| key != "$version" && key != "$metadata");
            Ok(Edit::With(section))
        }
        Some(_) => Err(Code::ArgumentInvalid.because(format!("{name} is not an object"))),
    }
}

fn leaf(now: Time, version: Option<u64>) -> Object {
    let mut leaf = Object::new();
    leaf.insert("$lastUpdated".into(), now.to_string().into());
    if let Some(version) = version {
        leaf.insert("$lastUpdatedVersion".into(), version.into());
    }
    leaf
}

/// Stamps every level that `patch` touches and drops what it deletes.
fn merge_metadata(metadata: &mut Object, patch: &Object, stamp: &Object) {
    metadata.extend(stamp.clone());
    for (key, value) in patch {
        match value {
            Value::Null => {
                metadata.remove(key);
            }
            Value::Object(inner) => {
                let slot = metadata.entry(key.as_str()).or_insert_with(|| Value::Object(Object::new()));
                if let Value::Object(slot) = slot {
                    merge_metadata(slot, inner, stamp);
                }
            }
            _ => {
                metadata.insert(key.clone(), Value::Object(stamp.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        format!("2026-11-22T18:36:{second:02}Z").parse().unwrap()
    }

    fn change(body: Value) -> Change {
        Change::parse(&body).unwrap()
    }

    #[test]
    fn a_patch_counts_stamps_and_notifies() {
        let mut twin = Twin::new(at(0)).unwrap();
        let etag = twin.etag.clone();
        let body = json!({"tags": {"site": "a"}, "properties": {"desired": {"x": {"y": 1, "z": [1]}}}});
        let notification = twin.patch(&change(body), at(1)).unwrap();
        let Some((patch, 2)) = notification else { panic!("{notification:?}") };
        assert_eq!(Value::Object(patch), json!({"x": {"y": 1, "z": [1]}}));
        assert_ne!(twin.etag, etag);

        twin.patch(&change(json!({"properties": {"desired": {"x": {"y": null}}}})), at(2)).unwrap();
        assert_eq!(
            Value::Object(twin.desired.service_json()),
            json!({
                "x": {"z": [1]},
                "$version": 3,
                "$metadata": {
                    "$lastUpdated": "2026-11-22T18:36:02.000Z", "$lastUpdatedVersion": 3,
                    "x": {
                        "$lastUpdated": "2026-11-22T18:36:02.000Z", "$lastUpdatedVersion": 3,
                        "z": {"$lastUpdated": "2026-11-22T18:36:01.000Z", "$lastUpdatedVersion": 2},
                    },
                },
            })
        );
        assert_eq!(twin.version, 3);
        assert_eq!(Value::Object(twin.tags), json!({"site": "a"}));
    }

    #[test]
    fn tags_alone_notify_nobody() {
        let mut twin = Twin::new(at(0)).unwrap();
        assert_eq!(twin.patch(&change(json!({"tags": {"a": 1}})), at(1)).unwrap(), None);
    }

    #[test]
    fn a_replacement_tells_the_device_what_went_away() {
        let mut twin = Twin::new(at(0)).unwrap();
        let whole = |desired| change(json!({"properties": {"desired": desired}, "tags": {}}));
        twin.patch(&whole(json!({"a": 1, "b": 2})), at(1)).unwrap();
        let (patch, version) = twin.replace(&whole(json!({"b": 2, "c": 3})), at(2)).unwrap().unwrap();
        assert_eq!(Value::Object(patch), json!({"a": null, "c": 3}));
        assert_eq!(version, 3);
        assert_eq!(twin.device_json()["desired"], json!({"b": 2, "c": 3, "$version": 3}));
    }

    #[test]
    fn an_error_in_one_section_leaves_the_other_alone() {
        let mut twin = Twin::new(at(0)).unwrap();
        let bad = change(json!({"tags": {"a": 1}, "properties": {"desired": {"a b": 1}}}));
        assert_eq!(twin.patch(&bad, at(1)).unwrap_err().code, Code::ArgumentInvalid);
        assert_eq!(twin.replace(&bad, at(1)).unwrap_err().code, Code::ArgumentInvalid);
        assert!(twin.tags.is_empty());
        assert_eq!(twin.version, 1);
    }

    #[test]
    fn a_twin_that_was_read_can_be_sent_back() {
        let read = json!({
            "deviceId": "gw1", "etag": "x", "version": 7,
            "tags": {"a": 1},
            "properties": {
                "desired": {"b": 2, "$version": 4, "$metadata": {}},
                "reported": {"c": 3},
            },
        });
        let expected = change(json!({"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}));
        assert_eq!(change(read), expected);
        for bad in
            [json!(1), json!({"tags": 1}), json!({"properties": []}), json!({"properties": {"desired": "x"}})]
        {
            assert_eq!(Change::parse(&bad).unwrap_err().code, Code::ArgumentInvalid, "{bad}");
        }
    }

    #[test]
    fn reported_metadata_has_no_version() {
        let mut twin = Twin::new(at(0)).unwrap();
        let Value::Object(patch) = json!({"rebootTime": "x"}) else { panic!() };
        assert_eq!(twin.report(&patch, None, at(1)).unwrap(), 2);
        let shown = twin.reported.service_json();
        assert_eq!(shown["$metadata"]["rebootTime"], json!({"$lastUpdated": "2026-11-22T18:36:01.000Z"}));
        assert_eq!(twin.report(&patch, Some(1), at(1)).unwrap_err().code, Code::PreconditionFailed);
        assert_eq!(twin.version, 2);
    }
}
