//! `query`: runs a query in the hub's query language, and prints the rows as a
//! table or as JSON.

mod narrowed;

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::Value;

use self::narrowed::narrowed;
use crate::cli::{QueryArgs, ReadyMade};
use crate::error::Usage;
use crate::hub::{HubClient, check_length};
use crate::output::{Format, Output, cell};
use crate::times;

/// The columns of a table of whole twins, which have too many keys for a table.
const TWIN_COLUMNS: [&str; 6] =
    ["deviceId", "moduleId", "status", "connectionState", "lastActivityTime", "tags"];

/// Runs the query of the command line and prints its rows.
pub async fn run(hub: &HubClient, output: Output, args: QueryArgs) -> anyhow::Result<()> {
    let ready_made = args.ready_made.map(ReadyMade::sql);
    let sql = ready_made.or(args.sql.as_deref()).unwrap_or_default();
    match hub.module() {
        None => print(hub, output, sql, args.top).await,
        Some(_) if args.ready_made == Some(ReadyMade::Agents) => {
            let message = "--ready-made agents: IoT Hub groups devices only, no modules; iotdm-ctl status shows \
                           the agent of each";
            Err(Usage(message.to_owned()).into())
        }
        Some(module) => print(hub, output, &narrowed(sql, module)?, args.top).await,
    }
}

/// Runs a query and prints its rows, at most `top` of them: page after page in
/// the forms that allow that.
pub(crate) async fn print(
    hub: &HubClient,
    output: Output,
    sql: &str,
    top: Option<usize>,
) -> anyhow::Result<()> {
    check_length(sql)?;
    let mut pages = hub.query(sql, top);
    let failed = || format!("the query \"{sql}\" failed");
    match output.format() {
        Format::Jsonl => {
            while let Some(rows) = pages.next().await.with_context(failed)? {
                output.array(&rows)?;
            }
            Ok(())
        }
        Format::Json | Format::Prometheus => Ok(output.array(&pages.all().await.with_context(failed)?)?),
        Format::Text => {
            let rows = pages.all().await.with_context(failed)?;
            if rows.is_empty() {
                return Ok(output.line(format_args!("no rows"))?);
            }
            let (columns, local) = (columns(sql, &rows), times::local());
            Ok(output.table(&columns, &table(&columns, &rows, |value| local(&cell(value))))?)
        }
        Format::Csv => {
            let mut header: Option<Vec<String>> = None;
            while let Some(rows) = pages.next().await.with_context(failed)? {
                if rows.is_empty() {
                    continue;
                }
                // The header is made of the first page. A key that only a later page
                // has gets no column.
                let first = header.is_none();
                let header = header
                    .get_or_insert_with(|| columns(sql, &rows).into_iter().map(str::to_owned).collect());
                let columns: Vec<&str> = header.iter().map(String::as_str).collect();
                let bare = |value: Option<&Value>| {
                    value.filter(|v| !v.is_null()).map_or_else(String::new, |v| cell(Some(v)))
                };
                output.table(if first { &columns } else { &[] }, &table(&columns, &rows, bare))?;
            }
            // A table without rows has its header all the same, for a program that
            // looks for columns by their names.
            if header.is_none() {
                output.table(&columns(sql, &[]), &[])?;
            }
            Ok(())
        }
    }
}

/// The cells of `rows` below `columns`.
fn table(columns: &[&str], rows: &[Value], cell: impl Fn(Option<&Value>) -> String) -> Vec<Vec<String>> {
    let cells = |row: &Value| columns.iter().map(|column| cell(row.get(*column))).collect();
    rows.iter().map(cells).collect()
}

/// The names that a query gives to its columns, in the query's order: aliases, or
/// the last parts of paths. A column that has no such name, like `*`, gives text
/// that is no name.
fn selected(sql: &str) -> Vec<&str> {
    let words = sql.split_inclusive(|c: char| c == ',' || c.is_whitespace());
    let (mut names, mut name) = (Vec::new(), "");
    for word in words {
        let bare = word.trim_end_matches(|c: char| c == ',' || c.is_whitespace());
        if bare.eq_ignore_ascii_case("from") {
            break;
        }
        if !bare.is_empty() {
            name = bare.rsplit('.').next().unwrap_or(bare);
        }
        if word.ends_with(',') {
            names.push(name);
        }
    }
    names.push(name);
    names
}

/// The columns of a query's result: what the query selects, also where no row has
/// it, and the other keys of `rows`.
fn columns<'a>(sql: &'a str, rows: &'a [Value]) -> Vec<&'a str> {
    let mut keys: BTreeSet<&str> =
        rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys().map(String::as_str)).collect();
    if ["deviceId", "properties", "etag", "version"].iter().all(|key| keys.contains(key)) {
        return TWIN_COLUMNS.into_iter().filter(|column| keys.contains(column)).collect();
    }
    // The order of the keys in a row says nothing. Keys that the query does not
    // name (COUNT without an alias, say) come last, in the order of their names,
    // of which `deviceId` is the first.
    let order = selected(sql);
    let is_name = |name: &str| {
        let begins_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        begins_well && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let is_key = |name: &str| keys.iter().any(|key| key.eq_ignore_ascii_case(name));
    let nowhere: Vec<&str> = order.iter().copied().filter(|name| is_name(name) && !is_key(name)).collect();
    keys.extend(nowhere);
    let place = |key: &str| order.iter().position(|name| *name == key).unwrap_or(order.len());
    let mut columns: Vec<&str> = keys.into_iter().collect();
    columns.sort_by_key(|key| (place(key), *key != "deviceId"));
    columns
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_the_keys_and_whole_twins_have_their_main_ones() {
        let rows = [json!({"deviceId": "a", "b": 1}), json!({"a": 2})];
        assert_eq!(columns("SELECT * FROM devices", &rows), ["deviceId", "a", "b"]);
        let sql = "select properties.reported.b AS b , a,deviceId\nfrom devices WHERE a = 'from'";
        assert_eq!(columns(sql, &rows), ["b", "a", "deviceId"]);
        assert_eq!(selected(sql), ["b", "a", "deviceId"]);
        let some_are_nowhere = [json!({"COUNT": 1})];
        let sql = "SELECT TOP 5 tags.x, COUNT(), b AS c FROM devices";
        assert_eq!(columns(sql, &some_are_nowhere), ["x", "c", "COUNT"]);
        let counted = [json!({"n": 1, "version": "1"})];
        let sql = "SELECT properties.reported.agent.version, COUNT() AS n FROM devices GROUP BY x";
        assert_eq!(columns(sql, &counted), ["version", "n"]);
        let twin =
            [json!({"deviceId": "a", "properties": {}, "etag": "x", "version": 1, "status": "enabled"})];
        assert_eq!(columns("SELECT * FROM devices", &twin), ["deviceId", "status"]);
    }
}
