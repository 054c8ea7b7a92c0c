//! Tests of what holds for every patch of a twin and every condition of a query,
//! with random ones.

use iotdm_proto::Time;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::query::{Condition, Query};
use crate::twin::{Edit, Twin, TwinChange};

fn now() -> Time {
    Time::from_unix_millis(0)
}

/// A random patch; it has few different keys, so that patches meet.
fn patch() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_i64..9).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
        vec((0_i64..3).prop_map(Value::from), 0..3).prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    });
    btree_map("[a-d]", value, 0..4).prop_map(|map| map.into_iter().collect())
}

/// The algorithm of RFC 7396 as the RFC writes it, which the hub's merge has to
/// agree with.
fn merge_patch(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut result = if let Value::Object(object) = target { object } else { Map::new() };
    for (name, value) in patch {
        if value.is_null() {
            result.remove(name);
        } else {
            let old = result.remove(name).unwrap_or(Value::Null);
            result.insert(name.clone(), merge_patch(old, value));
        }
    }
    Value::Object(result)
}

/// Whether `metadata` stands at every level of `value`, and nowhere else.
fn mirrors(metadata: &Value, value: &Value) -> bool {
    let Value::Object(metadata) = metadata else { return false };
    let names: Vec<&String> = metadata.keys().filter(|name| !name.starts_with('$')).collect();
    let stamped = metadata.contains_key("$lastUpdated") && metadata.contains_key("$lastUpdatedVersion");
    stamped
        && match value {
            Value::Object(object) => {
                names.len() == object.len()
                    && object.iter().all(|(name, value)| {
                        metadata.get(name).is_some_and(|metadata| mirrors(metadata, value))
                    })
            }
            _ => names.is_empty(),
        }
}

fn without_dollars(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(object) = &mut value {
        object.retain(|name, _| !name.starts_with('$'));
    }
    value
}

fn desired(twin: &Twin) -> (Value, Value) {
    let shown = Value::Object(twin.desired.service_json());
    let metadata = shown.get("$metadata").cloned().unwrap_or_default();
    (without_dollars(&shown), metadata)
}

/// The document that conditions are tried on.
fn row() -> Value {
    json!({"a": 1, "b": "x", "c": {"d": true, "e": [1, 2]}, "f": null, "g": -2.5})
}

/// A random condition over paths that [`row`] has and paths that it lacks.
fn condition() -> impl Strategy<Value = String> {
    let path =
        || select(vec!["a", "b", "c.d", "c.e", "f", "g", "none", "c.none"]).prop_map(str::to_owned).boxed();
    let constant = prop_oneof!["-?[0-9]", "'[xy]'", "true", "false", "null", r"\[1, 2\]", r"\['x'\]"];
    let operand = prop_oneof![
        path(),
        constant,
        (path(), "[+*/%-]", "[0-3]").prop_map(|(a, op, b)| format!("{a} {op} {b}"))
    ];
    let operator = prop_oneof!["=", "!=", "<>", "<=", "<", ">=", ">"];
    let simple = prop_oneof![
        (operand.clone(), operator, operand).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (path(), prop_oneof!["IN", "NIN"]).prop_map(|(a, op)| format!("{a} {op} [1, 'x', true]")),
        path().prop_map(|path| format!("is_defined({path})")),
        path(),
    ];
    simple.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) AND ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) OR ({b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

fn holds(text: &str) -> bool {
    // Rows of jobs, since twins have other names than these.
    let query: Query = format!("SELECT * FROM devices.jobs WHERE {text}").parse().unwrap();
    query.selects(&row())
}

proptest! {
    #[test]
    fn patches_merge_as_the_rfc_says_and_metadata_follows(patches in vec(patch(), 1..6)) {
        let mut twin = Twin::new(&TwinChange::default(), now()).unwrap();
        let mut expected = json!({});
        for (count, patch) in patches.into_iter().enumerate() {
            expected = merge_patch(expected, &Value::Object(patch.clone()));
            let change = TwinChange { tags: Edit::With(patch.clone()), desired: Edit::With(patch) };
            let (_, version) = twin.patch(&change, now()).unwrap().unwrap();
            prop_assert_eq!(version, count as u64 + 2);
            let (values, metadata) = desired(&twin);
            prop_assert_eq!(&values, &expected);
            prop_assert_eq!(Value::Object(twin.tags.clone()), values.clone());
            prop_assert!(mirrors(&metadata, &values), "{metadata} for {values}");
        }
    }

    #[test]
    fn a_device_that_follows_notifications_has_what_the_hub_has(patches in vec((patch(), any::<bool>()), 1..6)) {
        let mut twin = Twin::new(&TwinChange::default(), now()).unwrap();
        let mut device = json!({});
        for (mut patch, replace) in patches {
            if replace {
                // `null` is for patches alone.
                patch = merge_patch(json!({}), &Value::Object(patch)).as_object().cloned().unwrap_or_default();
            }
            let edit = if patch.is_empty() { Edit::Clear } else { Edit::With(patch) };
            let change = TwinChange { tags: Edit::None, desired: edit };
            let changed = if replace { twin.replace(&change, now()) } else { twin.patch(&change, now()) };
            let (notified, _) = changed.unwrap().unwrap();
            device = merge_patch(device, &Value::Object(notified));
            let (values, metadata) = desired(&twin);
            prop_assert_eq!(&device, &values);
            prop_assert!(mirrors(&metadata, &values), "{metadata} for {values}");
        }
    }

    #[test]
    fn a_condition_and_its_negation_never_both_hold(condition in condition()) {
        let negated = format!("NOT ({condition})");
        prop_assert!(!(holds(&condition) && holds(&negated)), "{condition}");
        prop_assert_eq!(holds(&condition), holds(&format!("NOT ({negated})")), "{}", condition);
    }

    #[test]
    fn de_morgan_holds_for_the_undefined_too(a in condition(), b in condition()) {
        prop_assert_eq!(holds(&format!("NOT (({a}) AND ({b}))")), holds(&format!("NOT ({a}) OR NOT ({b})")));
        prop_assert_eq!(holds(&format!("NOT (({a}) OR ({b}))")), holds(&format!("NOT ({a}) AND NOT ({b})")));
        prop_assert_eq!(holds(&format!("({a}) AND ({b})")), holds(&a) && holds(&b));
        prop_assert_eq!(holds(&format!("({a}) OR ({b})")), holds(&a) || holds(&b));
    }

    #[test]
    fn no_text_upsets_the_parser(text in "\\PC{0,60}", words in vec("SELECT|FROM|devices|WHERE|GROUP|BY|[(),.*=\\[\\]'-]|[a-z]|[0-9]", 0..20)) {
        let _ = text.parse::<Query>();
        let _ = text.parse::<Condition>();
        let _ = words.join(" ").parse::<Query>();
    }
}
