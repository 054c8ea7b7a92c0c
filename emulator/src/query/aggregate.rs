//! `COUNT`, `SUM`, `AVG`, `MIN`, `MAX` and `GROUP BY`.
//!
//! Documents that lack a path of `GROUP BY` form a group of their own, in
//! whose row that column is absent. A function passes over documents that lack
//! its path; over values of the wrong type or of several types it is undefined
//! and its column absent. (Microsoft documents neither; both follow from how
//! the rest of the language treats what is undefined.)

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::ast::{Aggregate, Column, Projection, Query, Selection};
use super::eval::{find, order};

/// The groups of a query's documents.
#[derive(Debug)]
pub struct Groups<'a> {
    query: &'a Query,
    columns: &'a [Column<Projection>],
    /// The columns of each group, by the JSON text of the values that the
    /// documents of the group share.
    groups: BTreeMap<String, Vec<Tally>>,
}

/// What one column has of a group so far.
#[derive(Debug, Clone)]
enum Tally {
    /// The value that the group's documents share.
    Key(Option<Value>),
    /// How many documents the group has.
    Count(u64),
    /// The sum; `None` once a value was no number.
    Sum(Option<f64>),
    /// The sum, as above, and how many values are in it.
    Avg(Option<f64>, u64),
    /// The least or greatest value; `Err` once two values had no order.
    Extreme(Ordering, Result<Option<Value>, ()>),
}

impl<'a> Groups<'a> {
    /// Empty groups for `query`; `None` when its rows are single documents.
    pub fn new(query: &'a Query) -> Option<Self> {
        let Selection::Aggregates(columns) = &query.selection else { return None };
        let mut groups = BTreeMap::new();
        if query.group_by.is_empty() {
            // All documents are one group, also when there are none.
            groups.insert(String::new(), columns.iter().map(|column| Tally::new(&column.what)).collect());
        }
        Some(Groups { query, columns, groups })
    }

    /// Counts in a document that the query selects.
    pub fn add(&mut self, document: &Value) {
        let keys: Vec<String> = self
            .query
            .group_by
            .iter()
            .map(|path| find(document, path).map_or_else(String::new, Value::to_string))
            .collect();
        let fresh = || self.columns.iter().map(|column| Tally::new(&column.what)).collect();
        let tallies = self.groups.entry(keys.join("\u{0}")).or_insert_with(fresh);
        for (tally, column) in tallies.iter_mut().zip(self.columns) {
            tally.add(&column.what, document);
        }
    }

    /// The rows of the groups, each with the name of its group, in the order of
    /// these names.
    pub fn rows(self) -> impl Iterator<Item = (String, Value)> {
        let columns = self.columns;
        self.groups.into_iter().map(|(key, tallies)| {
            let cells = columns.iter().zip(tallies);
            let cells = cells.filter_map(|(column, tally)| Some((column.name.clone(), tally.value()?)));
            (key, Value::Object(cells.collect::<Map<_, _>>()))
        })
    }
}

impl Tally {
    fn new(what: &Projection) -> Self {
        match what {
            Projection::Key(_) => Tally::Key(None),
            Projection::Count => Tally::Count(0),
            Projection::Over(Aggregate::Sum, _) => Tally::Sum(Some(0.0)),
            Projection::Over(Aggregate::Avg, _) => Tally::Avg(Some(0.0), 0),
            Projection::Over(Aggregate::Min, _) => Tally::Extreme(Ordering::Less, Ok(None)),
            Projection::Over(Aggregate::Max, _) => Tally::Extreme(Ordering::Greater, Ok(None)),
        }
    }

    fn add(&mut self, what: &Projection, document: &Value) {
        let found = match what {
            Projection::Count => None,
            Projection::Key(path) | Projection::Over(_, path) => find(document, path),
        };
        match (self, found) {
            (Tally::Count(count), _) => *count += 1,
            (Tally::Key(value), found) => *value = found.cloned(),
            (_, None) => {}
            (Tally::Sum(sum), Some(value)) => *sum = add(*sum, value),
            (Tally::Avg(sum, count), Some(value)) => {
                *sum = add(*sum, value);
                *count += 1;
            }
            (Tally::Extreme(wanted, extreme), Some(value)) => match extreme {
                Ok(Some(so_far)) => match order(value, so_far) {
                    Some(order) if order == *wanted => *so_far = value.clone(),
                    Some(_) => {}
                    None => *extreme = Err(()),
                },
                Ok(None) => *extreme = Ok(Some(value.clone())),
                Err(()) => {}
            },
        }
    }

    fn value(self) -> Option<Value> {
        match self {
            Tally::Key(value) => value,
            Tally::Count(count) => Some(count.into()),
            Tally::Sum(sum) => number(sum?),
            Tally::Avg(sum, count) => number(sum? / count as f64),
            Tally::Extreme(_, extreme) => extreme.ok().flatten(),
        }
    }
}

/// The sum with a further value; `None` when that is no number.
fn add(sum: Option<f64>, value: &Value) -> Option<f64> {
    Some(sum? + value.as_f64()?)
}

/// A number as the hub writes it: a whole one without a fraction.
fn number(number: f64) -> Option<Value> {
    // Up to 2^53 all whole numbers are exact.
    if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the query makes of twins that have the documents as tags.
    fn rows(text: &str, documents: &[Value]) -> Vec<Value> {
        let query: Query = text.parse().unwrap();
        let mut groups = Groups::new(&query).unwrap();
        let twins = documents.iter().map(|tags| json!({ "tags": tags }));
        for twin in twins.filter(|twin| query.selects(twin)) {
            groups.add(&twin);
        }
        groups.rows().map(|(_, row)| row).collect()
    }

    #[test]
    fn each_function_over_groups() {
        let documents = [
            json!({"site": "b", "n": 1, "name": "x"}),
            json!({"site": "a", "n": 2, "name": "z"}),
            json!({"site": "a", "n": 2.5, "name": "y"}),
            json!({"site": "a"}),
            json!({"n": 9, "name": "w"}),
            json!({"site": "gone", "n": -1}),
        ];
        let text = "SELECT tags.site AS site, COUNT() AS count, SUM(tags.n) AS sum, AVG(tags.n) AS avg, \
                    MIN(tags.n) AS min, MAX(tags.name) AS max FROM devices \
                    WHERE NOT is_defined(tags.site) OR tags.site != 'gone' GROUP BY tags.site";
        assert_eq!(
            rows(text, &documents),
            [
                json!({"count": 1, "sum": 9, "avg": 9, "min": 9, "max": "w"}),
                json!({"site": "a", "count": 3, "sum": 4.5, "avg": 2.25, "min": 2, "max": "z"}),
                json!({"site": "b", "count": 1, "sum": 1, "avg": 1, "min": 1, "max": "x"}),
            ]
        );
    }

    #[test]
    fn nothing_to_count_is_still_a_row() {
        let text =
            "SELECT COUNT() AS n, SUM(tags.a) AS sum, AVG(tags.a) AS avg, MIN(tags.a) AS min FROM devices";
        assert_eq!(rows(text, &[]), [json!({"n": 0, "sum": 0})]);
        assert!(rows("SELECT COUNT() AS n FROM devices GROUP BY tags.a", &[]).is_empty());
    }

    #[test]
    fn mixed_types_are_undefined() {
        let documents = [json!({"a": 1}), json!({"a": "x"}), json!({"a": 2})];
        let text = "SELECT COUNT() AS n, SUM(tags.a), AVG(tags.a), MIN(tags.a), MAX(tags.a) FROM devices";
        assert_eq!(rows(text, &documents), [json!({"n": 3})]);
    }

    #[test]
    fn groups_tell_text_from_numbers() {
        let documents = [json!({"a": 1}), json!({"a": "1"}), json!({"a": null}), json!({})];
        assert_eq!(rows("SELECT COUNT() AS n FROM devices GROUP BY tags.a", &documents).len(), 4);
    }
}
