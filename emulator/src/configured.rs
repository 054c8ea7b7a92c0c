//! What a configuration of a fleet says, and what several of them come to on one
//! twin.
//!
//! Each targeted configuration is applied to a twin unless one of a higher priority,
//! or of the same and created later, sets one of the same desired properties; then
//! it only counts as targeted. Values are set when the configuration comes to apply,
//! and when its content changes; what an operator has set since stays. When the
//! configuration no longer applies, its values go.
//!
//! Source: "Automatic device and module management using the Azure CLI"; what the
//! service does where content overlaps in part is unverified.

use std::collections::BTreeMap;

use iotdm_proto::Time;
use iotdm_proto::twin::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::query::Condition;
use crate::refusal::{ErrorCode, HubRefusal};

/// How the keys of content begin that are about desired properties, the only ones
/// that there are.
const DESIRED: &str = "properties.desired";

/// Desired properties, each by its path. None of the values is an object with
/// properties in it.
pub type Leaves = Vec<(Vec<String>, Value)>;

/// A configuration as it is applied.
#[derive(Debug)]
pub struct Configuration {
    /// The configuration's id.
    pub id: String,
    /// What tells one state of the configuration from another, in the metadata of
    /// what it has set: as recorded, when it was last changed, in .NET's ticks.
    pub digest: String,
    /// What is targeted.
    pub target: Target,
    /// The desired properties of what is targeted.
    pub content: Leaves,
    /// The desired properties of the modules of a device that is targeted, by their
    /// names.
    pub modules: BTreeMap<String, Leaves>,
    priority: i64,
    created: String,
}

/// What a configuration is for.
#[derive(Debug)]
pub struct Target {
    /// Whether modules are meant, each by itself, and not devices.
    pub modules: bool,
    which: Which,
}

#[derive(Debug)]
enum Which {
    All,
    None,
    Those(Condition),
}

/// What configurations have come to on one device or module, by their ids.
pub type Configured = BTreeMap<String, State>;

/// What a configuration has come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Whether it has been applied, and not only targeted.
    pub applied: bool,
    /// What it has set.
    pub leaves: Leaves,
}

/// What a twin has to become.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// What the configurations have come to.
    pub configured: Configured,
    /// All desired properties.
    pub desired: Object,
    /// The properties that were set, each with the configuration that set it.
    pub set: Vec<(Vec<String>, String)>,
}

impl Configuration {
    /// Reads a configuration as it is stored. Fails where its condition is not
    /// understood.
    pub fn parse(json: &Value) -> Result<Self, HubRefusal> {
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
        let content = |key: &str| json.pointer(&format!("/content/{key}")).and_then(Value::as_object);
        let condition = text("targetCondition");
        let mut target: Target = condition.parse()?;
        let own = match (content("deviceContent"), content("moduleContent")) {
            (_, Some(of_modules)) => {
                target.modules = true;
                leaves(of_modules)
            }
            (Some(of_devices), None) => leaves(of_devices),
            (None, None) => Leaves::new(),
        };
        let modules = content("modulesContent").into_iter().flatten();
        let modules =
            modules.filter_map(|(name, content)| Some((name.clone(), leaves(content.as_object()?))));
        Ok(Configuration {
            id: text("id").to_owned(),
            digest: ticks(text("lastUpdatedTimeUtc")),
            target,
            content: own,
            modules: modules.collect(),
            priority: json.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            created: text("createdTimeUtc").to_owned(),
        })
    }

    /// Sorts configurations so that what comes first wins.
    pub fn rank(all: &mut [Configuration]) {
        all.sort_by(|a, b| {
            let newest_of_highest = (b.priority, &b.created).cmp(&(a.priority, &a.created));
            newest_of_highest.then_with(|| a.id.cmp(&b.id))
        });
    }
}

impl std::str::FromStr for Target {
    type Err = HubRefusal;

    /// Reads a target condition: `*` is for all devices and nothing for none; of
    /// modules it begins with `FROM devices.modules`.
    fn from_str(text: &str) -> Result<Self, HubRefusal> {
        let text = text.trim();
        // What follows a word that stands by itself.
        let after = |text: &str, word: &str| {
            let (head, rest) = text.split_at_checked(word.len())?;
            let ends = rest.chars().next().is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            (ends && head.eq_ignore_ascii_case(word)).then(|| rest.trim_start().to_owned())
        };
        let of_modules = after(text, "FROM").and_then(|rest| after(&rest, "devices.modules"));
        let modules = of_modules.is_some();
        let which = match (of_modules, text) {
            (Some(rest), _) if rest.is_empty() => Which::All,
            (Some(rest), _) => {
                let condition = after(&rest, "WHERE").ok_or_else(|| {
                    ErrorCode::ArgumentInvalid.because("FROM devices.modules is followed by WHERE or nothing")
                })?;
                Which::Those(condition.parse()?)
            }
            (None, "") => Which::None,
            (None, "*") => Which::All,
            (None, text) => Which::Those(text.parse()?),
        };
        Ok(Target { modules, which })
    }
}

impl Target {
    /// Whether the device or module with this twin is meant.
    pub fn holds(&self, twin: &Value) -> bool {
        match &self.which {
            Which::All => true,
            Which::None => false,
            Which::Those(condition) => condition.holds(twin),
        }
    }
}

/// What configurations come to on a twin: those that target it, with what each wants
/// to set, the one that wins first. `before` is what they had come to, and `desired`
/// the twin's desired properties.
pub fn settle<'a>(
    targeting: impl IntoIterator<Item = (&'a str, &'a Leaves)>,
    before: &Configured,
    desired: &Object,
) -> Outcome {
    let mut configured = Configured::new();
    let mut taken: Vec<&[String]> = Vec::new();
    for (id, leaves) in targeting {
        let paths = leaves.iter().map(|(path, _)| path.as_slice());
        let applied = !paths.clone().any(|path| taken.iter().any(|other| overlap(path, other)));
        let state = if applied {
            taken.extend(paths);
            State { applied, leaves: leaves.clone() }
        } else {
            State { applied, leaves: Leaves::new() }
        };
        configured.insert(id.to_owned(), state);
    }
    let mut desired = desired.clone();
    for (path, value) in before.values().flat_map(|state| &state.leaves) {
        if !taken.contains(&path.as_slice()) && find(&desired, path) == Some(value) {
            remove(&mut desired, path);
        }
    }
    let mut set = Vec::new();
    for (id, state) in &configured {
        let known = before.get(id).map_or(&[][..], |before| &before.leaves);
        for (path, value) in state.leaves.iter().filter(|leaf| !known.contains(leaf)) {
            put(&mut desired, path, value.clone());
            set.push((path.clone(), id.clone()));
        }
    }
    Outcome { configured, desired, set }
}

/// What configurations have come to, as twins show it.
pub fn json(configured: &Configured) -> Value {
    let shown = configured.iter().map(|(id, state)| {
        let status = if state.applied { "Applied" } else { "Targeted" };
        (id.clone(), json!({ "status": status }))
    });
    Value::Object(shown.collect())
}

/// A time as .NET counts it: in steps of 100 ns from the year 1 on; 0 where the text
/// is no time.
fn ticks(time: &str) -> String {
    /// Those before 1970.
    const BEFORE: i64 = 621_355_968_000_000_000;
    let since = time.parse::<Time>().map(|time| BEFORE + time.unix_millis() * 10_000);
    since.unwrap_or_default().to_string()
}

/// The desired properties that content names.
fn leaves(content: &Map<String, Value>) -> Leaves {
    let mut leaves = Leaves::new();
    for (key, value) in content {
        let Some(rest) = key.strip_prefix(DESIRED) else { continue };
        let path: Vec<String> = match rest.strip_prefix('.') {
            Some(rest) => rest.split('.').map(str::to_owned).collect(),
            None if rest.is_empty() => Vec::new(),
            None => continue,
        };
        collect(path, value, &mut leaves);
    }
    leaves
}

fn collect(path: Vec<String>, value: &Value, leaves: &mut Leaves) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                collect([&path[..], std::slice::from_ref(key)].concat(), value, leaves);
            }
        }
        // Nothing is to be there, or the whole of the properties is empty.
        Value::Null => {}
        _ if path.is_empty() => {}
        value => leaves.push((path, value.clone())),
    }
}

/// Whether one of the paths is, or leads to, the other.
fn overlap(path: &[String], other: &[String]) -> bool {
    path.starts_with(other) || other.starts_with(path)
}

fn find<'a>(object: &'a Object, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(object.get(first)?, |value, key| value.get(key))
}

/// Removes a value, and each object that is empty without it.
fn remove(object: &mut Object, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let is_empty = match object.get_mut(first) {
        Some(Value::Object(inner)) if !rest.is_empty() => {
            remove(inner, rest);
            inner.is_empty()
        }
        _ => rest.is_empty(),
    };
    if is_empty {
        object.remove(first);
    }
}

fn put(object: &mut Object, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        object.insert(first.clone(), value);
        return;
    }
    let inner = object.entry(first.as_str()).or_insert_with(|| json!({}));
    if !inner.is_object() {
        *inner = json!({});
    }
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(id: &str, priority: i64, desired: Value) -> Configuration {
        let json = json!({
            "id": id, "priority": priority, "targetCondition": "*", "createdTimeUtc": "2026-11-22T18:36:07Z",
            "content": {"deviceContent": {"properties.desired": desired}},
        });
        Configuration::parse(&json).unwrap()
    }

    fn object(value: Value) -> Object {
        let Value::Object(object) = value else { panic!("{value}") };
        object
    }

    fn settled(all: &mut [Configuration], before: &Configured, desired: &Object) -> (Value, Outcome) {
        Configuration::rank(all);
        let targeting = all.iter().map(|one| (one.id.as_str(), &one.content));
        let outcome = settle(targeting, before, desired);
        (json(&outcome.configured), outcome)
    }

    #[test]
    fn the_highest_priority_wins_where_two_want_the_same() {
        let mut all = [
            configuration("low", 1, json!({"a": {"x": 1}, "c": 1})),
            configuration("high", 9, json!({"a": {"x": 2}})),
            configuration("other", 1, json!({"a": {"y": 3}, "list": [1]})),
        ];
        let (shown, first) = settled(&mut all, &Configured::new(), &object(json!({"mine": 1})));
        assert_eq!(
            shown,
            json!({"high": {"status": "Applied"}, "low": {"status": "Targeted"}, "other": {"status": "Applied"}})
        );
        assert_eq!(first.desired, object(json!({"mine": 1, "a": {"x": 2, "y": 3}, "list": [1]})));
        // Once the winner is gone, the next one is applied.
        let (shown, second) = settled(&mut all[1..], &first.configured, &first.desired);
        assert_eq!(shown, json!({"low": {"status": "Applied"}, "other": {"status": "Applied"}}));
        assert_eq!(second.desired, object(json!({"mine": 1, "a": {"y": 3, "x": 1}, "list": [1], "c": 1})));
        // Without any, only what an operator has set is left.
        let (shown, last) = settled(&mut [], &second.configured, &second.desired);
        assert_eq!((shown, last.desired), (json!({}), object(json!({"mine": 1}))));
    }

    #[test]
    fn what_an_operator_has_set_since_stays() {
        let mut all = [configuration("c", 0, json!({"a": {"x": 1, "y": 1}}))];
        let (_, first) = settled(&mut all, &Configured::new(), &Object::new());
        let changed = object(json!({"a": {"x": 7, "y": 1}}));
        let (_, again) = settled(&mut all, &first.configured, &changed);
        assert_eq!((&again.desired, again.set.len()), (&changed, 0));
        let (_, gone) = settled(&mut [], &again.configured, &changed);
        assert_eq!(gone.desired, object(json!({"a": {"x": 7}})));
        // New content is set, and what it does not have any more goes.
        let mut all = [configuration("c", 0, json!({"a": {"x": 2}}))];
        let (_, renewed) = settled(&mut all, &first.configured, &changed);
        assert_eq!(renewed.desired, object(json!({"a": {"x": 2}})));
        assert_eq!(renewed.set, [(vec!["a".to_owned(), "x".to_owned()], "c".to_owned())]);
    }

    #[test]
    fn of_equals_the_later_one_wins() {
        let mut all = [configuration("old", 1, json!({"a": 1})), configuration("new", 1, json!({"a": 2}))];
        all[1].created = "2026-11-23T00:00:00Z".to_owned();
        let (shown, _) = settled(&mut all, &Configured::new(), &Object::new());
        assert_eq!(shown, json!({"new": {"status": "Applied"}, "old": {"status": "Targeted"}}));
    }

    #[test]
    fn targets_of_each_kind() {
        let twin = json!({"deviceId": "gw1", "moduleId": "m", "tags": {"site": "x"}});
        for (text, modules, holds) in [
            ("*", false, true),
            ("", false, false),
            (" tags.site = 'x'", false, true),
            ("tags.site = 'y'", false, false),
            ("FROM devices.modules", true, true),
            ("from devices.modules where moduleId = 'm'", true, true),
            ("FROM  devices.modules WHERE moduleId = 'n'", true, false),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.modules, target.holds(&twin)), (modules, holds), "{text}");
        }
        for bad in ["tags.site =", "FROM devices.modules WHERE", "FROM devices.modules a = 1", "FROM twins"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_counted_as_dotnet_does() {
        assert_eq!(ticks("2021-07-07T20:45:23.000Z"), "637612875230000000");
        assert_eq!(ticks("yesterday"), "0");
    }

    #[test]
    fn content_of_each_kind() {
        let parse = |content: Value| {
            Configuration::parse(&json!({"id": "c", "targetCondition": "*", "content": content})).unwrap()
        };
        let leaf = |path: &[&str], value: Value| (path.iter().map(|key| (*key).to_owned()).collect(), value);
        let devices = parse(json!({"deviceContent": {
            "properties.desired.a.b": {"c": 1}, "properties.desired.d": {}, "properties.desired.e": null,
            "tags.x": 1, "properties.desiredly": 1,
        }}));
        assert_eq!(devices.content, [leaf(&["a", "b", "c"], json!(1)), leaf(&["d"], json!({}))]);
        assert!(parse(json!({"moduleContent": {"properties.desired": {"a": 1}}})).target.modules);
        let edge = parse(json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"a": 1}}}}));
        assert_eq!(edge.modules["$edgeAgent"], [leaf(&["a"], json!(1))]);
    }
}
