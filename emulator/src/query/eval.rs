//! What queries and conditions make of a document: whether it is selected, and
//! which row it gives.
//!
//! A path that does not exist, a comparison of different types and arithmetic
//! with anything but numbers are undefined: neither they nor their negation
//! select a document.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::ast::{Condition, Expression, Operator, Path, Query, Selection};
use crate::fields::field_of;

impl Query {
    /// Whether rows are whole documents.
    pub fn is_whole(&self) -> bool {
        self.selection == Selection::Whole
    }

    /// Whether the condition selects `document`.
    pub fn selects(&self, document: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(document))
    }

    /// The row that a selected `document` gives; `None` when rows are made of
    /// groups of documents, for which there is [`super::Groups`].
    pub fn row(&self, document: &Value) -> Option<Value> {
        match &self.selection {
            Selection::Whole => Some(document.clone()),
            Selection::Columns(columns) => {
                let value = |what| find(document, what).cloned();
                let cells =
                    columns.iter().filter_map(|column| Some((column.name.clone(), value(&column.what)?)));
                Some(Value::Object(cells.collect::<Map<_, _>>()))
            }
            Selection::Aggregates(_) => None,
        }
    }
}

impl Condition {
    /// Whether the condition holds for `document`; an undefined one does not.
    pub fn holds(&self, document: &Value) -> bool {
        self.0.truth(document) == Some(true)
    }
}

impl Expression {
    /// Whether the expression is true; `None` when it is undefined or no truth
    /// value.
    fn truth(&self, row: &Value) -> Option<bool> {
        match self {
            Expression::Not(inner) => inner.truth(row).map(|holds| !holds),
            Expression::Binary(Operator::And, left, right) => match (left.truth(row), right.truth(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Expression::Binary(Operator::Or, left, right) => match (left.truth(row), right.truth(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            other => other.value(row)?.as_bool(),
        }
    }

    /// The expression's value; `None` when it is undefined.
    fn value<'a>(&'a self, row: &'a Value) -> Option<Cow<'a, Value>> {
        match self {
            Expression::Path(path) => find(row, path).map(Cow::Borrowed),
            Expression::Literal(value) => Some(Cow::Borrowed(value)),
            Expression::Array(items) => {
                let items = items.iter().filter_map(|item| Some(item.value(row)?.into_owned()));
                Some(Cow::Owned(Value::Array(items.collect())))
            }
            Expression::Not(_) | Expression::Binary(Operator::And | Operator::Or, ..) => {
                self.truth(row).map(owned)
            }
            Expression::Binary(operator, left, right) => {
                binary(*operator, &*left.value(row)?, &*right.value(row)?)
            }
            Expression::In(value, list) => contains(&*list.value(row)?, &*value.value(row)?).map(owned),
            Expression::IsDefined(path) => Some(owned(find(row, path).is_some())),
            Expression::ArrayContains(array, value) => {
                contains(&*array.value(row)?, &*value.value(row)?).map(owned)
            }
        }
    }
}

/// The value at `path`; `None` when there is none. The names that the service gave
/// may be written in any case (`DeviceId`, `Properties.Reported`), as in Microsoft's
/// own examples; those of tags and properties may not.
pub(super) fn find<'a>(row: &'a Value, path: &Path) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let found = field_of(row, first)?;
    if !first.eq_ignore_ascii_case("properties") {
        return rest.iter().try_fold(found, |value, key| value.get(key));
    }
    let Some((section, rest)) = rest.split_first() else { return Some(found) };
    rest.iter().try_fold(field_of(found, section)?, |value, key| value.get(key))
}

/// The order of two values; `None` between different types, and for arrays
/// and objects that are not equal.
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}

fn owned<'a>(value: bool) -> Cow<'a, Value> {
    Cow::Owned(Value::Bool(value))
}

/// The value of an operation; `None` when it is undefined.
fn binary<'a>(operator: Operator, left: &Value, right: &Value) -> Option<Cow<'a, Value>> {
    let number = match operator {
        Operator::Add => left.as_f64()? + right.as_f64()?,
        Operator::Subtract => left.as_f64()? - right.as_f64()?,
        Operator::Multiply => left.as_f64()? * right.as_f64()?,
        Operator::Divide => left.as_f64()? / right.as_f64()?,
        Operator::Remainder => left.as_f64()? % right.as_f64()?,
        _ => return compare(operator, left, right).map(owned),
    };
    // A division by zero is no number and so undefined.
    Number::from_f64(number).map(|number| Cow::Owned(Value::Number(number)))
}

/// Whether a comparison is true; `None` when it is undefined.
fn compare(operator: Operator, left: &Value, right: &Value) -> Option<bool> {
    let Some(order) = order(left, right) else {
        let same_type = std::mem::discriminant(left) == std::mem::discriminant(right);
        return match operator {
            Operator::Equal if same_type => Some(false),
            Operator::NotEqual if same_type => Some(true),
            _ => None,
        };
    };
    Some(match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        _ => return None,
    })
}

/// Whether an element of `array` is equal to `value`; `None` when `array` is no
/// array.
fn contains(array: &Value, value: &Value) -> Option<bool> {
    let equal = |item: &Value| compare(Operator::Equal, value, item) == Some(true);
    array.as_array().map(|items| items.iter().any(equal))
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
            "tags": {"site": "a", "floor": 3, "it's": null, "roles": ["x", "y"]},
            "properties": {"reported": {"rebootTime": "2026-11-22T18:36:07.412Z", "$version": 2}},
        })
    }

    fn selects(condition: &str) -> bool {
        let query: Query = format!("SELECT deviceId FROM devices d WHERE {condition}").parse().unwrap();
        query.selects(&twin())
    }

    #[test]
    fn conditions() {
        for (condition, expected) in [
            ("tags.site = 'a'", true),
            ("d.tags.site = \"a\"", true),
            ("devices.tags.site = 'a'", true),
            ("tags.site != 'a'", false),
            ("tags.floor >= 3 AND tags.floor < 3.5", true),
            ("3 < tags.floor", false),
            ("tags.floor * 2 + 1 = 7", true),
            ("tags.floor - 1 = 2 AND tags.floor % 2 = 1 AND tags.floor / 2 = 1.5", true),
            ("version - tags.floor > -1", true),
            ("tags.site IN ['b', 'a']", true),
            ("tags.site NIN ['b', 'a']", false),
            ("tags.site IN []", false),
            ("'y' IN tags.roles", true),
            ("ARRAY_CONTAINS(tags.roles, 'z')", false),
            ("array_contains(tags.roles, 'x')", true),
            ("capabilities.iotEdge = false", true),
            ("NOT capabilities.iotEdge", true),
            ("properties.reported.rebootTime > '2026-11-22'", true),
            ("properties.reported.$version = 2", true),
            ("IS_DEFINED(tags.site) and not is_defined(tags.none)", true),
            ("(tags.site = 'b' OR tags.floor = 3) AND status <> 'disabled'", true),
            ("tags.roles = ['x', 'y'] AND tags.roles != ['x']", true),
            ("DeviceId = 'gw1' AND Status = 'enabled' AND Tags.site = 'a'", true),
            ("Properties.Reported.rebootTime > '2026-11-22'", true),
            ("is_defined(tags.Site) OR is_defined(properties.reported.RebootTime)", false),
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
            "tags.site + 1 = 2",
            "NOT tags.floor / 0 = 1",
            "'a' IN tags.site",
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
