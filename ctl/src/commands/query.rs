//! `query`: the hub's SQL, as a table or as JSON.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::QueryArgs;
use crate::hub::Hub;
use crate::output::{Format, Output};

/// The columns that a whole twin is shown by.
const TWIN_COLUMNS: [&str; 5] = ["deviceId", "status", "connectionState", "lastActivityTime", "tags"];

/// Prints all rows, page after page where the form allows it.
pub async fn run(hub: &Hub, output: Output, args: QueryArgs) -> anyhow::Result<()> {
    print(hub, output, &args.sql, args.top).await
}

/// Runs a query and prints its rows.
pub(crate) async fn print(hub: &Hub, output: Output, sql: &str, top: Option<usize>) -> anyhow::Result<()> {
    let mut pages = hub.query(sql, top);
    let failed = || format!("the query {sql:?} failed");
    match output.format() {
        Format::Jsonl => {
            while let Some(rows) = pages.next().await.with_context(failed)? {
                output.array(&rows)?;
            }
            Ok(())
        }
        Format::Json => Ok(output.array(&pages.all().await.with_context(failed)?)?),
        Format::Text => {
            let rows = pages.all().await.with_context(failed)?;
            if rows.is_empty() {
                return Ok(output.line(format_args!("no rows"))?);
            }
            let columns = columns(&rows);
            let cells = |row: &Value| columns.iter().map(|column| cell(row.get(*column))).collect();
            Ok(output.table(&columns, &rows.iter().map(cells).collect::<Vec<Vec<String>>>())?)
        }
    }
}

/// A value in a table: text without quotes, `-` for none.
pub(crate) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn columns(rows: &[Value]) -> Vec<&str> {
    let keys: BTreeSet<&str> =
        rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys().map(String::as_str)).collect();
    if ["deviceId", "properties", "etag", "version"].iter().all(|key| keys.contains(key)) {
        return TWIN_COLUMNS.into_iter().filter(|column| keys.contains(column)).collect();
    }
    // The device first, the rest by name: the order of a JSON object says nothing.
    let (device, rest): (Vec<&str>, Vec<&str>) = keys.into_iter().partition(|key| *key == "deviceId");
    device.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_the_keys_and_whole_twins_have_their_main_ones() {
        let rows = [json!({"deviceId": "a", "b": 1}), json!({"a": 2})];
        assert_eq!(columns(&rows), ["deviceId", "a", "b"]);
        let twin =
            [json!({"deviceId": "a", "properties": {}, "etag": "x", "version": 1, "status": "enabled"})];
        assert_eq!(columns(&twin), ["deviceId", "status"]);
    }

    #[test]
    fn cells() {
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some(&json!("x"))), "x");
        assert_eq!(cell(Some(&json!({"a": [1]}))), "{\"a\":[1]}");
    }
}
