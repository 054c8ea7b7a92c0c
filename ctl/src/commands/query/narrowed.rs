//! A query over devices, or over modules, made one over the modules of one name
//! (`--module`).

use std::ops::Range;

use iotdm_proto::ModuleId;

use crate::error::Usage;
use crate::hub::literal;

/// `sql` with `FROM devices.modules`, and with the condition that the module is called
/// `module`.
pub(super) fn narrowed(sql: &str, module: &ModuleId) -> Result<String, Usage> {
    let words = words(sql);
    let word = |index: usize| words.get(index).and_then(|range| sql.get(range.clone())).unwrap_or_default();
    let is = |index: usize, keyword: &str| word(index).eq_ignore_ascii_case(keyword);
    let refuse = |what: &str| Err(Usage(format!("--module: {what}")));
    let Some(from) = (0..words.len()).find(|index| is(*index, "FROM")) else {
        return refuse("the query has no FROM devices.modules");
    };
    match word(from + 1).to_ascii_lowercase().as_str() {
        "devices" | "devices.modules" => {}
        "devices.jobs" => return refuse("IoT Hub's jobs are for devices, not for modules of them"),
        other => return refuse(&format!("the query is FROM {other:?}; it has to be FROM devices.modules")),
    }
    let clause = (from + 2..words.len()).find(|index| is(*index, "WHERE") || is(*index, "GROUP"));
    let names = from + 2..clause.unwrap_or(words.len());
    let alias = match names.end - names.start {
        0 => None,
        1 => Some(word(names.start)),
        2 if is(names.start, "AS") => Some(word(names.start + 1)),
        _ => return refuse(&format!("the query has {:?} in the place of WHERE", word(names.start + 1))),
    };
    if (from..words.len()).any(|index| is(index, "GROUP")) {
        return refuse("IoT Hub groups devices only, no modules: leave out GROUP BY");
    }
    let start = words.get(from).map_or(0, |range| range.start);
    let text = |range: Range<usize>| sql.get(range).unwrap_or_default().trim().trim_end_matches(';').trim();
    let condition = clause.and_then(|clause| words.get(clause)).map(|clause| text(clause.end..sql.len()));
    let condition = match condition {
        Some("") => return refuse("the query has nothing after WHERE"),
        Some(condition) if closes_too_much(condition) => {
            return refuse("the condition after WHERE has a ) without its (");
        }
        Some(condition) => format!(" AND ({condition})"),
        None => String::new(),
    };
    let named = alias.map_or_else(String::new, |alias| format!(" AS {alias}"));
    let of_alias = alias.map_or_else(String::new, |alias| format!("{alias}."));
    let module = literal(module.as_str());
    let select = sql.get(..start).unwrap_or_default();
    Ok(format!("{select}FROM devices.modules{named} WHERE {of_alias}moduleId = {module}{condition}"))
}

/// Whether a condition ends a parenthesis that it has not begun: between two others it
/// would make sense, though another one.
fn closes_too_much(condition: &str) -> bool {
    let mut open = 0_usize;
    for (_, c) in outside_of_texts(condition) {
        open = match c {
            '(' => open + 1,
            ')' if open == 0 => return true,
            ')' => open - 1,
            _ => open,
        };
    }
    false
}

/// The characters of a query outside of texts in quotes, and the quotes that begin
/// those.
fn outside_of_texts(sql: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut chars = sql.char_indices();
    std::iter::from_fn(move || {
        loop {
            let (index, c) = chars.next()?;
            match quote {
                Some(_) if c == '\\' => drop(chars.next()),
                Some(end) if c == end => quote = None,
                Some(_) => {}
                None => {
                    quote = matches!(c, '\'' | '"').then_some(c);
                    return Some((index, c));
                }
            }
        }
    })
}

/// The words of a query, outside of texts in quotes.
fn words(sql: &str) -> Vec<Range<usize>> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
    let (mut words, mut begun) = (Vec::new(), None);
    for (index, c) in outside_of_texts(sql) {
        match (is_part(c), begun) {
            (true, None) => begun = Some(index),
            (false, Some(start)) => {
                words.push(start..index);
                begun = None;
            }
            _ => {}
        }
    }
    words.extend(begun.map(|start| start..sql.len()));
    words
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::cli::ReadyMade;

    fn of(sql: &str) -> Result<String, String> {
        narrowed(sql, &"it's".parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_becomes_one_over_the_modules_of_a_name() {
        let name = r"moduleId = 'it\'s'";
        for (sql, select, rest) in [
            ("SELECT * FROM devices", "SELECT * ", format!("WHERE {name}")),
            ("select deviceId from Devices.Modules ; ", "select deviceId ", format!("WHERE {name}")),
            (
                "SELECT a FROM devices\nWHERE tags.from = 'GROUP \\' BY' OR b = \"WHERE '\"",
                "SELECT a ",
                format!("WHERE {name} AND (tags.from = 'GROUP \\' BY' OR b = \"WHERE '\")"),
            ),
            (
                "SELECT a FROM devices WHERE (a = ')') OR IS_DEFINED(b)",
                "SELECT a ",
                format!("WHERE {name} AND ((a = ')') OR IS_DEFINED(b))"),
            ),
            (
                "SELECT m.a FROM devices m WHERE m.b=1;",
                "SELECT m.a ",
                format!("AS m WHERE m.{name} AND (m.b=1)"),
            ),
            ("SELECT COUNT() AS n FROM devices AS m", "SELECT COUNT() AS n ", format!("AS m WHERE m.{name}")),
        ] {
            assert_eq!(of(sql), Ok(format!("{select}FROM devices.modules {rest}")), "{sql}");
        }
    }

    #[test]
    fn what_is_not_about_modules_is_refused_with_the_reason() {
        for (sql, why) in [
            ("SELECT * FROM devices.jobs", "jobs are for devices"),
            ("SELECT * FROM twins", "it has to be FROM devices.modules"),
            ("SELECT 'FROM devices'", "no FROM devices.modules"),
            ("SELECT * FROM devices GROUP BY tags.a", "groups devices only"),
            ("SELECT * FROM devices WHERE a = 1 GROUP BY tags.a", "groups devices only"),
            ("SELECT * FROM devices WHERE ", "nothing after WHERE"),
            ("SELECT * FROM devices WHERE a = 1) OR (b = 2", "a ) without its ("),
            ("SELECT * FROM devices AS a b c", "in the place of WHERE"),
        ] {
            let error = of(sql).unwrap_err();
            assert!(error.starts_with("--module: ") && error.contains(why), "{sql}: {error}");
        }
    }

    #[test]
    fn each_ready_made_query_is_for_modules_as_well() {
        for query in ReadyMade::value_variants() {
            let is_grouped = *query == ReadyMade::Agents;
            assert_eq!(of(query.sql()).is_err(), is_grouped, "{query:?}");
        }
    }
}
