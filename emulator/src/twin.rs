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

use crate::clock::NEVER;
use crate::configured::Outcome;
use crate::etag;
use crate::fields::field;
use crate::refusal::{ErrorCode, HubRefusal};

/// The twin of a device or module.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// Changes with tags and desired properties.
    pub etag: String,
    /// Counts every change of the twin, from 2.
    pub version: u64,
    /// The model that the device named when it connected.
    pub model_id: String,
    /// The operators' own properties, not shown to the device.
    pub tags: Object,
    /// The desired properties: what operators want of the device.
    pub desired: Part,
    /// The reported properties: what the device says of itself.
    pub reported: Part,
}

/// One half of a twin's properties: the desired or the reported ones.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    values: Object,
    /// Counts the changes of this half, from 1.
    version: u64,
    /// What services see as `$metadata`.
    metadata: Object,
}

/// What becomes of a twin with one change: what is written down of the change, and
/// makes of the twin before it the one after it, at any time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TwinPatch {
    /// The twin's version after the change.
    version: u64,
    /// The twin's new etag; a device's reports do not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tags: Option<Object>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    desired: Option<PartPatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported: Option<PartPatch>,
}

/// What becomes of one half of a twin's properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PartPatch {
    /// What is merged into the values.
    patch: Object,
    /// The version of the half after the change.
    version: u64,
    /// When the change was made.
    at: Time,
}

/// A service's change of a twin. Source: "Understand and use device twins in
/// IoT Hub".
#[derive(Debug, Default, PartialEq)]
pub struct TwinChange {
    /// The change of the tags.
    pub tags: Edit,
    /// The change of the desired properties.
    pub desired: Edit,
}

/// A change of one section.
#[derive(Debug, Default, PartialEq)]
pub enum Edit {
    /// The section is absent and stays as it is.
    #[default]
    None,
    /// The section is `null` and becomes empty, as the hub has it in the Node
    /// SDK's end-to-end tests.
    Clear,
    /// The object to merge into the section, or to put in its place.
    With(Object),
}

/// What the device has to be told: the patch of its desired properties, and
/// their version after it; `None` when they have not changed.
pub type Notification = Option<(Object, u64)>;

impl Twin {
    /// A new twin with what `change` names, as it is created together with its
    /// identity: its first version. Values at creation are of version 1 in the
    /// metadata of both halves; a twin without them has no version there.
    pub fn new(change: &TwinChange, now: Time) -> Result<Self, HubRefusal> {
        let stamp = leaf(now, change.desired.values().map(|_| 1));
        let part = Part { values: Object::new(), version: 1, metadata: stamp.clone() };
        let mut twin = Twin {
            etag: etag::first_of_twin(),
            version: 2,
            model_id: String::new(),
            tags: Object::new(),
            desired: part.clone(),
            reported: part,
        };
        if let Some(tags) = change.tags.values() {
            twin.change_tags(|properties| properties.replace(Section::Tags, tags))?;
        }
        if let Some(desired) = change.desired.values() {
            twin.desired.replace(Section::Desired, desired, now)?;
            (twin.desired.version, twin.desired.metadata) = (1, stamp.clone());
            merge_metadata(&mut twin.desired.metadata, &twin.desired.values, &stamp);
        }
        Ok(twin)
    }

    /// Marks a new twin as one that nobody has written to, as a module's is that
    /// was created by itself: the metadata name no time.
    pub fn unwritten(&mut self) {
        for part in [&mut self.desired, &mut self.reported] {
            part.metadata.insert("$lastUpdated".into(), NEVER.into());
        }
    }

    /// Merges a service's change at the time `now`. On an error nothing changes.
    pub fn patch(&mut self, change: &TwinChange, now: Time) -> Result<Notification, HubRefusal> {
        self.change(change, false, now)
    }

    /// What merging a service's change at the time `now` comes to; sections that the
    /// change clears stay as they are.
    pub fn patched(&self, change: &TwinChange, now: Time) -> Result<TwinPatch, HubRefusal> {
        let tags = change.tags.values().cloned();
        if let Some(tags) = &tags {
            twin::check_patch(Section::Tags, &self.tags, 1, tags, None)?;
        }
        let desired = change.desired.values();
        let desired = desired.map(|patch| self.desired.patched(Section::Desired, patch.clone(), None, now));
        let (version, etag) = (self.version + 1, Some(etag::next_of_twin(&self.etag)));
        Ok(TwinPatch { version, etag, tags, desired: desired.transpose()?, reported: None })
    }

    /// What merging the device's patch of its reported properties comes to, with
    /// their new version. Fails with 412 when they do not have the version `expected`.
    pub fn reported(
        &self,
        patch: Object,
        expected: Option<u64>,
        now: Time,
    ) -> Result<(TwinPatch, u64), HubRefusal> {
        let part = self.reported.patched(Section::Reported, patch, expected, now)?;
        let (version, of_part) = (self.version + 1, part.version);
        Ok((TwinPatch { version, etag: None, tags: None, desired: None, reported: Some(part) }, of_part))
    }

    /// Makes the change that was written down.
    pub fn apply(&mut self, patch: TwinPatch) {
        self.version = patch.version;
        self.etag = patch.etag.unwrap_or(std::mem::take(&mut self.etag));
        if let Some(tags) = &patch.tags {
            twin::merge(&mut self.tags, tags);
        }
        if let Some(desired) = patch.desired {
            self.desired.apply(Section::Desired, &desired);
        }
        if let Some(reported) = patch.reported {
            self.reported.apply(Section::Reported, &reported);
        }
    }

    /// Replaces tags and desired properties at the time `now`, also those that the
    /// change does not name: these become empty. On an error nothing changes.
    /// Source: REST reference "Replace Twin"; that no value may be `null`, issue 693
    /// of the Azure CLI's extension.
    pub fn replace(&mut self, change: &TwinChange, now: Time) -> Result<Notification, HubRefusal> {
        for edit in [&change.tags, &change.desired] {
            if let Some(key) = edit.values().and_then(|values| key_of_null(values)) {
                let why = format!("Value of Property or Tag cannot be null. Error in Property/Tag {key}");
                return Err(ErrorCode::ArgumentInvalid.because(why));
            }
        }
        self.change(change, true, now)
    }

    /// Makes of the desired properties what configurations have come to, at the time
    /// `now`; the metadata name the configuration of each value that was set, with
    /// its digest. On an error nothing changes.
    pub fn configure(
        &mut self,
        outcome: &Outcome,
        digest: impl Fn(&str) -> String,
        now: Time,
    ) -> Result<Notification, HubRefusal> {
        let patch = twin::diff(&self.desired.values, &outcome.desired);
        if patch.is_empty() {
            return Ok(None);
        }
        let change = TwinChange { tags: Edit::None, desired: Edit::With(patch) };
        let notification = self.patch(&change, now)?;
        for (path, id) in &outcome.set {
            let metadata = path.iter().try_fold(&mut self.desired.metadata, |metadata, key| {
                metadata.get_mut(key).and_then(Value::as_object_mut)
            });
            if let Some(metadata) = metadata {
                metadata.insert("$lastUpdatedBy".into(), id.as_str().into());
                metadata.insert("$lastUpdatedByDigest".into(), digest(id).into());
            }
        }
        Ok(notification)
    }

    fn change(&mut self, change: &TwinChange, replace: bool, now: Time) -> Result<Notification, HubRefusal> {
        let (mut next, none) = (self.clone(), Object::new());
        match &change.tags {
            Edit::None if !replace => {}
            Edit::With(tags) if !replace => {
                next.change_tags(|properties| properties.patch(Section::Tags, tags, None))?;
            }
            edit => {
                let tags = edit.values().unwrap_or(&none);
                next.change_tags(|properties| properties.replace(Section::Tags, tags))?;
            }
        }
        let notification = match &change.desired {
            Edit::None if !replace || self.desired.values.is_empty() => None,
            Edit::With(desired) if !replace => {
                let part = next.desired.patched(Section::Desired, desired.clone(), None, now)?;
                next.desired.apply(Section::Desired, &part);
                Some((part.patch, part.version))
            }
            edit => {
                let desired = edit.values().unwrap_or(&none);
                let patch = twin::diff(&self.desired.values, desired);
                let version = next.desired.replace(Section::Desired, desired, now)?;
                Some((patch, version))
            }
        };
        next.version += 1;
        next.etag = etag::next_of_twin(&next.etag);
        *self = next;
        Ok(notification)
    }

    /// The twin as the device itself reads it.
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
}

impl TwinPatch {
    /// What the device has to be told of it.
    pub fn notification(&self) -> Notification {
        self.desired.as_ref().map(|part| (part.patch.clone(), part.version))
    }
}

impl Part {
    /// What merging `patch` comes to, if it is valid and the result fits into `section`.
    fn patched(
        &self,
        section: Section,
        patch: Object,
        expected: Option<u64>,
        at: Time,
    ) -> Result<PartPatch, TwinError> {
        twin::check_patch(section, &self.values, self.version, &patch, expected)?;
        Ok(PartPatch { patch, version: self.version + 1, at })
    }

    fn apply(&mut self, section: Section, change: &PartPatch) {
        self.version = change.version;
        twin::merge(&mut self.values, &change.patch);
        let stamp = leaf(change.at, self.stamp(section));
        merge_metadata(&mut self.metadata, &change.patch, &stamp);
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

    /// The version that the section's metadata shows: only the metadata of
    /// desired properties does.
    fn stamp(&self, section: Section) -> Option<u64> {
        (section == Section::Desired).then_some(self.version)
    }

    /// The values alone.
    pub fn values(&self) -> &Object {
        &self.values
    }

    /// The values with `$version`, as the device reads them.
    pub fn device_json(&self) -> Object {
        let mut object = self.values.clone();
        object.insert("$version".into(), self.version.into());
        object
    }

    /// The values with `$version` and `$metadata`, as services read them.
    pub fn service_json(&self) -> Object {
        let mut object = self.values.clone();
        object.insert("$metadata".into(), self.metadata.clone().into());
        object.insert("$version".into(), self.version.into());
        object
    }
}

impl TwinChange {
    /// Whether the change does nothing else than to merge what it names.
    pub fn only_merges(&self) -> bool {
        self.tags != Edit::Clear && self.desired != Edit::Clear
    }

    /// Reads a service's body: `{"tags":{…},"properties":{"desired":{…}}}`.
    ///
    /// Operators send twins back that they have read, so everything that only the
    /// hub writes (`$version`, `$metadata`, reported properties, the identity) is
    /// passed over.
    pub fn parse(body: &Value) -> Result<Self, HubRefusal> {
        let Value::Object(body) = body else {
            return Err(ErrorCode::ArgumentInvalid.because("the body is not a JSON object"));
        };
        let desired = match field(body, "properties") {
            None | Some(Value::Null) => Edit::None,
            Some(Value::Object(properties)) => section(properties, "desired")?,
            Some(_) => return Err(ErrorCode::ArgumentInvalid.because("properties is not an object")),
        };
        Ok(TwinChange { tags: section(body, "tags")?, desired })
    }
}

impl Edit {
    /// The object of a section that is there.
    pub fn values(&self) -> Option<&Object> {
        if let Edit::With(values) = self { Some(values) } else { None }
    }
}

/// The change of the section `name`.
fn section(body: &Map<String, Value>, name: &str) -> Result<Edit, HubRefusal> {
    match field(body, name) {
        None => Ok(Edit::None),
        Some(Value::Null) => Ok(Edit::Clear),
        Some(Value::Object(section)) => {
            let mut section = section.clone();
            section.retain(|key, _| key != "$version" && key != "$metadata");
            Ok(Edit::With(section))
        }
        Some(_) => Err(ErrorCode::ArgumentInvalid.because(format!("{name} is not an object"))),
    }
}

/// The key of a value that is `null`, if there is one.
fn key_of_null(values: &Object) -> Option<&str> {
    values.iter().find_map(|(key, value)| match value {
        Value::Null => Some(key.as_str()),
        Value::Object(inner) => key_of_null(inner),
        _ => None,
    })
}

/// The `$metadata` of a value that was changed at the time `now`.
fn leaf(now: Time, version: Option<u64>) -> Object {
    let mut leaf = Object::new();
    leaf.insert("$lastUpdated".into(), now.to_string().into());
    if let Some(version) = version {
        leaf.insert("$lastUpdatedVersion".into(), version.into());
    }
    leaf
}

/// Puts `stamp` on every level that `patch` touches and drops the metadata of
/// what `patch` deletes.
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

    fn change(body: Value) -> TwinChange {
        TwinChange::parse(&body).unwrap()
    }

    #[test]
    fn a_patch_counts_stamps_and_notifies() {
        let mut twin = Twin::new(&TwinChange::default(), at(0)).unwrap();
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
        assert_eq!((twin.version, twin.etag.as_str()), (4, "AAAAAAAAAAM="));
        assert_eq!(Value::Object(twin.tags), json!({"site": "a"}));
    }

    #[test]
    fn a_new_twin_is_at_version_2_and_says_how_it_was_made() {
        let time = "2026-11-22T18:36:00.000Z";
        let fresh = Twin::new(&TwinChange::default(), at(0)).unwrap();
        assert_eq!((fresh.version, fresh.etag.as_str()), (2, "AAAAAAAAAAE="));
        for part in [&fresh.desired, &fresh.reported] {
            let shown = json!({"$metadata": {"$lastUpdated": time}, "$version": 1});
            assert_eq!(Value::Object(part.service_json()), shown);
        }
        let body = json!({"tags": {"site": "a"}, "properties": {"desired": {"user": "a"}}});
        let filled = Twin::new(&change(body), at(0)).unwrap();
        assert_eq!((filled.version, filled.etag.as_str()), (2, "AAAAAAAAAAE="));
        let stamp = json!({"$lastUpdated": time, "$lastUpdatedVersion": 1});
        let desired = Value::Object(filled.desired.service_json());
        assert_eq!((&desired["$version"], &desired["$metadata"]["user"]), (&json!(1), &stamp));
        assert_eq!(Value::Object(filled.reported.service_json())["$metadata"], stamp);

        let mut module = fresh;
        module.unwritten();
        module.patch(&change(json!({"properties": {"desired": {"a": 1}}})), at(1)).unwrap();
        let time = |part: &Part| Value::Object(part.service_json())["$metadata"]["$lastUpdated"].clone();
        assert_eq!(time(&module.reported), "0001-01-01T00:00:00Z");
        assert_eq!(time(&module.desired), "2026-11-22T18:36:01.000Z");
    }

    #[test]
    fn a_replacement_empties_what_it_does_not_name_and_takes_no_null() {
        let mut twin = Twin::new(&TwinChange::default(), at(0)).unwrap();
        let full = json!({"tags": {"a": 1}, "properties": {"desired": {"b": 2}}});
        twin.patch(&change(full), at(1)).unwrap();
        for null in
            [json!({"tags": {"x": {"my-tag": null}}}), json!({"properties": {"desired": {"my-tag": null}}})]
        {
            let refused = twin.replace(&change(null), at(2)).unwrap_err();
            assert!(refused.message.ends_with("Error in Property/Tag my-tag"), "{refused}");
        }
        let (patch, version) = twin.replace(&change(json!({"tags": {"c": 3}})), at(2)).unwrap().unwrap();
        assert_eq!((Value::Object(patch), version), (json!({"b": null}), 3));
        assert_eq!(Value::Object(twin.tags.clone()), json!({"c": 3}));
        assert_eq!(
            twin.replace(&change(json!({})), at(3)).unwrap(),
            None,
            "there were no desired properties"
        );
        assert!(twin.tags.is_empty());
    }

    #[test]
    fn tags_alone_notify_nobody() {
        let mut twin = Twin::new(&TwinChange::default(), at(0)).unwrap();
        assert_eq!(twin.patch(&change(json!({"tags": {"a": 1}})), at(1)).unwrap(), None);
    }

    #[test]
    fn a_replacement_tells_the_device_what_went_away() {
        let mut twin = Twin::new(&TwinChange::default(), at(0)).unwrap();
        let whole = |desired| change(json!({"properties": {"desired": desired}, "tags": {}}));
        twin.patch(&whole(json!({"a": 1, "b": 2})), at(1)).unwrap();
        let (patch, version) = twin.replace(&whole(json!({"b": 2, "c": 3})), at(2)).unwrap().unwrap();
        assert_eq!(Value::Object(patch), json!({"a": null, "c": 3}));
        assert_eq!(version, 3);
        assert_eq!(twin.device_json()["desired"], json!({"b": 2, "c": 3, "$version": 3}));
    }

    #[test]
    fn an_error_in_one_section_leaves_the_other_alone() {
        let mut twin = Twin::new(&TwinChange::default(), at(0)).unwrap();
        let bad = change(json!({"tags": {"a": 1}, "properties": {"desired": {"a b": 1}}}));
        assert_eq!(twin.patch(&bad, at(1)).unwrap_err().code, ErrorCode::ArgumentInvalid);
        assert_eq!(twin.replace(&bad, at(1)).unwrap_err().code, ErrorCode::ArgumentInvalid);
        assert!(twin.tags.is_empty());
        assert_eq!(twin.version, 2);
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
            assert_eq!(TwinChange::parse(&bad).unwrap_err().code, ErrorCode::ArgumentInvalid, "{bad}");
        }
    }

    #[test]
    fn reported_metadata_has_no_version() {
        let mut twin = Twin::new(&TwinChange::default(), at(0)).unwrap();
        let Value::Object(patch) = json!({"rebootTime": "x"}) else { panic!() };
        let (reported, version) = twin.reported(patch.clone(), None, at(1)).unwrap();
        twin.apply(reported);
        assert_eq!(version, 2);
        let shown = twin.reported.service_json();
        assert_eq!(shown["$metadata"]["rebootTime"], json!({"$lastUpdated": "2026-11-22T18:36:01.000Z"}));
        assert_eq!(twin.reported(patch, Some(1), at(1)).unwrap_err().code, ErrorCode::PreconditionFailed);
        assert_eq!(twin.version, 3);
    }
}
