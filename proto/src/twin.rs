//! Device twin properties: how patches merge, what may stand in them, and how
//! versions count.
//!
//! Source: "Understand and use device twins in IoT Hub", for the limits and the
//! rule of merging; reports of clients about the real service, for `null` in
//! arrays.

use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// A part of a twin that has a size limit of its own, see [`Section::limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The tags, which the device does not see.
    Tags,
    /// The desired properties, which services write and the device reads.
    Desired,
    /// The reported properties, which the device writes and services read.
    Reported,
}

/// A section's properties with their version, which starts at 1 and grows by one
/// with each change that is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// The values, without `$version` and `$metadata`.
    pub values: Object,
    /// How many changes were taken, plus one.
    pub version: u64,
}

/// Why a change is not taken. The hub answers each with status 400, but
/// [`TwinError::Version`] with 412.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// A key is empty, longer than 1024 bytes, or has a character that no key
    /// may have.
    #[error("{path}: a key has 1 to {MAX_KEY_BYTES} bytes without control characters, '.', '$' and space")]
    Key {
        /// The keys that lead to the place, joined by dots.
        path: String,
    },
    /// A string is longer than 4096 bytes.
    #[error("{path}: a string value has at most {MAX_STRING_BYTES} bytes")]
    LongString {
        /// The keys that lead to the place, joined by dots.
        path: String,
    },
    /// An integer is beyond what the hub keeps exactly.
    #[error("{path}: integers range from {} to {}", INTEGERS.start(), INTEGERS.end())]
    Integer {
        /// The keys that lead to the place, joined by dots.
        path: String,
    },
    /// An array has `null` in it.
    #[error("{path}: null is not allowed in an array")]
    NullInArray {
        /// The keys that lead to the place, joined by dots.
        path: String,
    },
    /// Objects are nested more than 10 levels deep below the section.
    #[error("{path}: objects nest at most {MAX_DEPTH} levels deep")]
    Depth {
        /// The keys that lead to the place, joined by dots.
        path: String,
    },
    /// The section would grow beyond its limit.
    #[error("the properties would have {size} bytes; at most {limit} are allowed")]
    Size {
        /// The bytes that the section would have, as [`size`] counts them.
        size: usize,
        /// The bytes that the section may have.
        limit: usize,
    },
    /// The change was made for another version of the properties.
    #[error("the change is for version {expected}, the properties are at {current}")]
    Version {
        /// The version that the client expects.
        expected: u64,
        /// The version that the properties have.
        current: u64,
    },
}

/// How deep objects may nest below a section, by the documentation's example of
/// `tags` with objects from `one` to `ten`.
const MAX_DEPTH: usize = 10;
const MAX_KEY_BYTES: usize = 1024;
const MAX_STRING_BYTES: usize = 4096;
/// The integers that the hub takes: those of 53 bits, which a double holds
/// exactly.
const INTEGERS: std::ops::RangeInclusive<i64> = -4_503_599_627_370_496..=4_503_599_627_370_495;
/// How many characters of a key an error repeats: a key may be as long as a
/// message, and its beginning is enough to find it.
const MAX_SHOWN_CHARS: usize = 64;

impl Section {
    /// The largest size, in bytes as [`size`] counts them: 8 KiB for tags, 32 KiB
    /// for properties.
    pub fn limit(self) -> usize {
        match self {
            Section::Tags => 8 * 1024,
            Section::Desired | Section::Reported => 32 * 1024,
        }
    }
}

impl Default for Properties {
    fn default() -> Self {
        Properties { values: Object::new(), version: 1 }
    }
}

impl Properties {
    /// Merges `patch` if it is valid and the result fits into `section`. If
    /// `expected` is given, the current version has to be that one. On an error
    /// nothing changes.
    pub fn patch(
        &mut self,
        section: Section,
        patch: &Object,
        expected: Option<u64>,
    ) -> Result<(), TwinError> {
        check_patch(section, &self.values, self.version, patch, expected)?;
        merge(&mut self.values, patch);
        self.version += 1;
        Ok(())
    }

    /// Replaces all values by `values`, if these are valid and fit into `section`;
    /// a value `null` is left out. On an error nothing changes.
    pub fn replace(&mut self, section: Section, values: &Object) -> Result<(), TwinError> {
        let mut cleaned = Object::new();
        merge(&mut cleaned, values);
        check_object("", values, 0)?;
        check_size(section, object_size(&cleaned))?;
        self.values = cleaned;
        self.version += 1;
        Ok(())
    }
}

/// Whether [`Properties::patch`] takes `patch` in a section with these `values` of this
/// `version`; copies nothing, so that a small change of a large section stays small.
pub fn check_patch(
    section: Section,
    values: &Object,
    version: u64,
    patch: &Object,
    expected: Option<u64>,
) -> Result<(), TwinError> {
    if let Some(expected) = expected.filter(|expected| *expected != version) {
        return Err(TwinError::Version { expected, current: version });
    }
    check_object("", patch, 0)?;
    check_size(section, merged_size(Some(values), patch))
}

/// Merges `patch` into `target`: objects merge recursively, `null` deletes,
/// everything else, arrays included, replaces.
pub fn merge(target: &mut Object, patch: &Object) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.as_str()).or_insert_with(|| Value::Object(Object::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Object::new());
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

/// The patch that makes `from` equal to `to` when it is merged; empty if the two
/// are equal. Neither of them may have `null` as a value.
pub fn diff(from: &Object, to: &Object) -> Object {
    let mut patch = Object::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in to {
        match (from.get(key), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(key.clone(), Value::Object(diff(old, new)));
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch
}

/// The size of a value as the hub counts it: the UTF-8 bytes of keys and strings,
/// 8 bytes for a number, 4 for a boolean, none for `null`.
pub fn size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(object) => object_size(object),
    }
}

fn object_size(object: &Object) -> usize {
    object.iter().map(|(key, value)| key.len() + size(value)).sum()
}

/// The size that `target` has once `patch` is merged into it; `None` is an object that
/// is not there yet.
fn merged_size(target: Option<&Object>, patch: &Object) -> usize {
    let mut size = target.map_or(0, object_size);
    for (key, new) in patch {
        let old = target.and_then(|target| target.get(key));
        size -= old.map_or(0, |old| key.len() + self::size(old));
        size += match new {
            Value::Null => 0,
            Value::Object(inner) => key.len() + merged_size(old.and_then(Value::as_object), inner),
            other => key.len() + self::size(other),
        };
    }
    size
}

fn check_size(section: Section, size: usize) -> Result<(), TwinError> {
    let limit = section.limit();
    if size > limit { Err(TwinError::Size { size, limit }) } else { Ok(()) }
}

fn check_object(path: &str, object: &Object, depth: usize) -> Result<(), TwinError> {
    if depth > MAX_DEPTH {
        return Err(TwinError::Depth { path: path.to_owned() });
    }
    for (key, value) in object {
        let shown: String = key.chars().take(MAX_SHOWN_CHARS).collect();
        let path = if path.is_empty() { shown } else { format!("{path}.{shown}") };
        let allowed = |c: char| !c.is_control() && !matches!(c, '.' | '$' | ' ');
        if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.chars().all(allowed) {
            return Err(TwinError::Key { path });
        }
        check_value(&path, value, depth)?;
    }
    Ok(())
}

fn check_value(path: &str, value: &Value, depth: usize) -> Result<(), TwinError> {
    match value {
        Value::String(text) if text.len() > MAX_STRING_BYTES => {
            Err(TwinError::LongString { path: path.to_owned() })
        }
        Value::Number(number) if number.is_u64() || number.is_i64() => match number.as_i64() {
            Some(integer) if INTEGERS.contains(&integer) => Ok(()),
            _ => Err(TwinError::Integer { path: path.to_owned() }),
        },
        Value::Object(object) => check_object(path, object, depth + 1),
        Value::Array(items) => items.iter().try_for_each(|item| match item {
            Value::Null => Err(TwinError::NullInArray { path: path.to_owned() }),
            item => check_value(path, item, depth + 1),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(object) => object,
            other => panic!("not an object: {other}"),
        }
    }

    // The documentation's own example of a desired change, and RFC 7396's
    // appendix where both agree.
    #[test]
    fn merges_as_documented() {
        for (target, patch, merged) in [
            (
                json!({"telemetryConfig": {"sendFrequency": "5m"}, "a": 1}),
                json!({"telemetryConfig": {"sendFrequency": "10m"}, "a": null, "b": {"c": [1]}}),
                json!({"telemetryConfig": {"sendFrequency": "10m"}, "b": {"c": [1]}}),
            ),
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": "foo"}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut result = object(target.clone());
            merge(&mut result, &object(patch.clone()));
            assert_eq!(Value::Object(result.clone()), merged);
            let size = merged_size(target.as_object(), &object(patch));
            assert_eq!(size, object_size(&result), "foretold");
            let back = diff(&result, &object(target.clone()));
            merge(&mut result, &back);
            assert_eq!(Value::Object(result), target, "diff is merge's inverse");
        }
    }

    #[test]
    fn a_diff_of_equals_is_empty_and_an_object_in_place_of_a_value_is_whole() {
        let twin = object(json!({"reboot": {"id": "a"}, "n": 1}));
        assert!(diff(&twin, &twin).is_empty());
        let from = object(json!({"reboot": 1}));
        assert_eq!(Value::Object(diff(&from, &twin)), json!({"reboot": {"id": "a"}, "n": 1}));
    }

    /// Devices pay for what they send.
    #[test]
    fn a_diff_has_nothing_that_is_the_same() {
        let from = json!({"reboot": {"id": "a", "status": "rebooting", "error": {"code": "x"}}, "n": 1});
        let to = json!({"reboot": {"id": "a", "status": "completed"}, "n": 1});
        let patch = diff(&object(from), &object(to));
        assert_eq!(Value::Object(patch), json!({"reboot": {"status": "completed", "error": null}}));
    }

    #[test]
    fn versions_count_accepted_changes_only() {
        let mut reported = Properties::default();
        reported.patch(Section::Reported, &object(json!({"a": 1})), None).unwrap();
        assert_eq!(reported.version, 2);
        let stale = reported.patch(Section::Reported, &object(json!({"a": 2})), Some(1));
        assert_eq!(stale, Err(TwinError::Version { expected: 1, current: 2 }));
        reported.patch(Section::Reported, &object(json!({"a": 2})), Some(2)).unwrap();
        assert!(reported.patch(Section::Reported, &object(json!({"$x": 2})), None).is_err());
        assert_eq!(reported.version, 3);
        reported.replace(Section::Reported, &object(json!({"b": null, "c": 3}))).unwrap();
        assert_eq!((Value::Object(reported.values), reported.version), (json!({"c": 3}), 4));
    }

    #[test]
    fn each_limit_names_the_place() {
        let nested = |levels: usize| (1..levels).fold(json!({"x": 1}), |inner, _| json!({ "x": inner }));
        let long = "x".repeat(MAX_STRING_BYTES + 1);
        for (patch, expected) in [
            (json!({"a": {"b.c": 1}}), TwinError::Key { path: "a.b.c".into() }),
            (json!({"": 1}), TwinError::Key { path: "".into() }),
            (json!({"a b": 1}), TwinError::Key { path: "a b".into() }),
            (json!({"a": {"b": long}}), TwinError::LongString { path: "a.b".into() }),
            (json!({"a": 4_503_599_627_370_496_i64}), TwinError::Integer { path: "a".into() }),
            (json!({"a": u64::MAX}), TwinError::Integer { path: "a".into() }),
            (json!({"a": [1, null]}), TwinError::NullInArray { path: "a".into() }),
            (nested(12), TwinError::Depth { path: ["x"; 11].join(".") }),
        ] {
            let mut properties = Properties::default();
            let result = properties.patch(Section::Desired, &object(patch), None);
            assert_eq!(result, Err(expected));
            assert_eq!(properties, Properties::default());
        }
        let accepted = json!({"a": -4_503_599_627_370_496_i64, "b": 0.5, "c": [true, "x", {"d": 1}]});
        assert!(Properties::default().patch(Section::Desired, &object(accepted), None).is_ok());
        assert!(Properties::default().patch(Section::Desired, &object(nested(11)), None).is_ok());
    }

    /// The documented numbers, both sides of each.
    #[test]
    fn what_is_just_within_the_limits_is_taken() {
        let patch = |patch: Value| Properties::default().patch(Section::Desired, &object(patch), None);
        for (length, taken) in [(1, true), (1024, true), (1025, false)] {
            assert_eq!(patch(json!({"k".repeat(length): 1})).is_ok(), taken, "a key of {length} bytes");
        }
        for (length, taken) in [(0, true), (4096, true), (4097, false)] {
            assert_eq!(patch(json!({"a": "x".repeat(length)})).is_ok(), taken, "a string of {length} bytes");
        }
        for (integer, taken) in [
            (json!(4_503_599_627_370_495_i64), true),
            (json!(4_503_599_627_370_496_i64), false),
            (json!(-4_503_599_627_370_496_i64), true),
            (json!(-4_503_599_627_370_497_i64), false),
            (json!(1e300), true),
        ] {
            assert_eq!(patch(json!({ "a": integer })).is_ok(), taken, "{integer}");
        }
        for key in ["a.b", "$a", "a b", "a\n", "a\u{7f}", "a\u{85}"] {
            assert!(patch(json!({ key: 1 })).is_err(), "{key:?}");
        }
        // Arrays count as levels, too.
        let arrays = |levels: usize| (0..levels).fold(json!({"x": 1}), |inner, _| json!([inner]));
        assert!(patch(json!({"a": arrays(9)})).is_ok() && patch(json!({"a": arrays(10)})).is_err());
        // A long key is named by its beginning.
        let Err(TwinError::Key { path }) = patch(json!({format!("{}.", "é".repeat(100)): 1})) else {
            panic!("taken")
        };
        assert_eq!(path, "é".repeat(64));
        assert_eq!(Properties::default(), Properties { values: Object::new(), version: 1 });
        assert_eq!(size(&json!([null, 1.5, false, {"ab": "c"}])), 8 + 4 + 3);
    }

    #[test]
    fn size_counts_the_merged_result() {
        let mut tags = Properties::default();
        let part = |key: &str, length| object(json!({ key: "x".repeat(length) }));
        tags.patch(Section::Tags, &part("a", 4095), None).unwrap();
        tags.patch(Section::Tags, &part("b", 4095), None).unwrap();
        let over = tags.patch(Section::Tags, &part("c", 1), None);
        assert_eq!(over, Err(TwinError::Size { size: 8194, limit: 8192 }));
        tags.patch(Section::Tags, &object(json!({"a": null, "c": "x"})), None).unwrap();
        assert_eq!(size(&json!({"k": [1, true, "ü"]})), 1 + 8 + 4 + 2);
    }

    #[test]
    fn properties_have_32_kib_and_tags_8() {
        for (section, most) in
            [(Section::Desired, 32_768), (Section::Reported, 32_768), (Section::Tags, 8_192)]
        {
            // 4,096 bytes each, with its key.
            let full: Object =
                (0..most / 4096).map(|part| (format!("k{part}"), json!("x".repeat(4094)))).collect();
            let mut properties = Properties::default();
            properties.replace(section, &full).unwrap();
            let over = properties.patch(section, &object(json!({"k": ""})), None);
            assert_eq!(over, Err(TwinError::Size { size: most + 1, limit: most }));
        }
    }
}
