//! Queries over twins.
//!
//! A path that does not exist, and a comparison of different types, are
//! undefined: neither they nor their negation select a device.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::ast::{Comparison, Condition, Operand, Path, Query};

impl Query {
    /// Whether rows are whole twins.
    pub fn is_whole(&self) -> bool {
        self.columns.is_none()
    }

    /// The row that `twin` gives, if the condition selects it.
    pub fn row(&self, twin: &Value) -> Option<Value> {
        if let Some(condition) = &self.condition
            && condition.holds(twin) != Some(true)
        {
            return None;
        }
        let Some(columns) = &self.columns else { return Some(twin.clone()) };
        let mut row = Map::new();
        for column in columns {
            if let Some(value) = find(twin, &column.path) {
                row.insert(column.name.clone(), value.clone());
            }
        }
        Some(Value::Object(row))
    }
}

impl Condition {
    /// Whether it holds; `None` when that is undefined.
    fn holds(&self, twin: &Value) -> Option<bool> {
        match self {
            Condition::And(left, right) => match (left.holds(twin), right.holds(twin)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Or(left, right) => match (left.holds(twin), right.holds(twin)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Condition::Not(inner) => inner.holds(twin).map(|holds| !holds),
            Condition::Compare(left, comparison, right) => {
                compare(left.value(twin)?, *comparison, right.value(twin)?)
            }
            Condition::In(operand, values) => {
                let value = operand.value(twin)?;
                Some(values.iter().any(|one| compare(value, Comparison::Equal, one) == Some(true)))
            }
            Condition::IsDefined(path) => Some(find(twin, path).is_some()),
            Condition::Holds(operand) => operand.value(twin)?.as_bool(),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, twin: &'a Value) -> Option<&'a Value> {
        match self {
            Operand::Path(path) => find(twin, path),
            Operand::Literal(value) => Some(value),
        }
    }
}

fn find<'a>(twin: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(twin, |value, key| value.get(key))
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Option<bool> {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?)?,
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Null, Value::Null) => Ordering::Equal,
        (left, right) => {
            let same_type = std::mem::discriminant(left) == std::mem::discriminant(right);
            return match comparison {
                Comparison::Equal if same_type => Some(left == right),
                Comparison::NotEqual if same_type => Some(left != right),
                _ => None,
            };
        }
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin() -> Value {
        json!({
            "deviceId": "gw1",
            "status": "enabled",
            "version": 7,
            "capabilities": {"iotEdge": false},
            "tags": {"site": "a", "floor": 3, "it's": null},
            "properties": {"reported": {"rebootTime": "2026-11-22T18:36:07.412Z", "$version": 2}},
        })
    }

    fn selects(condition: &str) -> bool {
        let query: Query = format!("SELECT deviceId FROM devices d WHERE {condition}").parse().unwrap();
        query.row(&twin()).is_some()
    }

    #[test]
    fn conditions() {
        for (condition, expected) in [
            ("tags.site = 'a'", true),
            ("d.tags.site = \"a\"", true),
            ("tags.site != 'a'", false),
            ("tags.floor >= 3 AND tags.floor < 3.5", true),
            ("3 < tags.floor", false),
            ("tags.site IN ['b', 'a']", true),
            ("tags.site NIN ['b', 'a']", false),
            ("tags.site IN []", false),
            ("capabilities.iotEdge = false", true),
            ("NOT capabilities.iotEdge", true),
            ("properties.reported.rebootTime > '2026-11-22'", true),
            ("properties.reported.$version = 2", true),
            ("IS_DEFINED(tags.site) and not is_defined(tags.none)", true),
            ("(tags.site = 'b' OR tags.floor = 3) AND status <> 'disabled'", true),
        ] {
            assert_eq!(selects(condition), expected, "{condition}");
        }
    }

    #[test]
    fn undefined_selects_neither_way() {
        for condition in [
            "tags.none = 'a'",
            "tags.none != 'a'",
            "NOT tags.none = 'a'",
            "tags.none NIN ['a']",
            "tags.floor = '3'",
            "NOT tags.floor = '3'",
            "tags.site",
        ] {
            assert!(!selects(condition), "{condition}");
        }
        assert!(selects("tags.none = 1 OR tags.site = 'a'"));
        assert!(!selects("tags.none = 1 AND tags.site = 'a'"));
    }

    #[test]
    fn rows_have_what_was_asked_for() {
        let row = |text: &str| text.parse::<Query>().unwrap().row(&twin()).unwrap();
        assert_eq!(row("SELECT * FROM devices"), twin());
        assert_eq!(
            row("SELECT deviceId, properties.reported.rebootTime AS t, tags.none, tags FROM devices"),
            json!({"deviceId": "gw1", "t": "2026-11-22T18:36:07.412Z", "tags": twin()["tags"]})
        );
    }
}
