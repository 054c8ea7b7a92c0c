//! Tables for people, as wide as their terminal, and as CSV.

use std::io;

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use console::{Alignment, measure_text_width, pad_str, truncate_str};
use serde_json::Value;

use super::printable;

/// How many blanks stand between two columns.
const GAP: u16 = 2;
/// The least width of a wrapped column, in characters: sentences in a narrower
/// one cannot be read.
const LEAST: u16 = 16;

/// A value as a cell of a table shows it: text without quotes, `-` for none.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A table, without a header where `header` is empty. If it is wider than the
/// terminal, which has so many columns of characters, its widest column is
/// wrapped; where that would leave no room, or where the rest of a first column
/// would look like a row of its own, each row is shown from top to bottom. Without
/// a terminal a table is as wide as it needs.
pub(super) fn text(header: &[&str], rows: &[Vec<String>], terminal: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().map(|name| printable(name)));
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    let widths = table.column_max_content_widths();
    let gaps = GAP.saturating_mul(u16::try_from(widths.len()).unwrap_or(u16::MAX).saturating_sub(1));
    let all = widths.iter().fold(gaps, |sum, width| sum.saturating_add(*width));
    let (widest, most) =
        widths.iter().copied().enumerate().max_by_key(|(_, width)| *width).unwrap_or_default();
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    if let Some(terminal) = terminal.filter(|terminal| *terminal < all) {
        let left = terminal.saturating_sub(all - most);
        if (left < LEAST || widest == 0) && !header.is_empty() {
            return from_top_to_bottom(header, rows, terminal);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
        if let Some(column) = table.column_mut(widest) {
            // The padding counts as width, though the last column's is cut off.
            let width = Width::Fixed(left.max(LEAST / 2).saturating_add(GAP));
            column.set_constraint(ColumnConstraint::UpperBoundary(width));
        }
    }
    table.trim_fmt()
}

/// A column of a list, in which each row has one line.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// What stands above it.
    pub name: &'static str,
    /// How dispensable the column is: that with the greatest rank is left out first
    /// where there is no room. The one of rank 0 stays.
    pub rank: u8,
    /// Whether the column is left out where it has nothing but dashes.
    pub is_optional: bool,
}

/// A cell of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The cell where there is room, or nobody looks.
    pub long: String,
    /// The cell on a terminal that is too narrow for the long ones.
    pub short: String,
}

/// The lines of a list, its header first. On a terminal of so many columns of
/// characters no line is longer: cells are shortened, then columns left out, then
/// lines cut. Without a terminal nothing is left out.
pub(crate) fn list_lines(columns: &[Column], rows: &[Vec<Cell>], terminal: Option<u16>) -> Vec<String> {
    let limit = terminal.map_or(usize::MAX, usize::from);
    let long = aligned(columns, rows, |cell| &cell.long, u8::MAX);
    let fits = |lines: &[String]| lines.iter().all(|line| measure_text_width(line) <= limit);
    if fits(&long) {
        return long;
    }
    let mut ranks: Vec<u8> = columns.iter().map(|column| column.rank).collect();
    ranks.sort_unstable();
    let mut lines = long;
    for rank in ranks.into_iter().rev() {
        lines = aligned(columns, rows, |cell| &cell.short, rank);
        if fits(&lines) {
            return lines;
        }
    }
    lines.iter().map(|line| truncate_str(line, limit, "…").into_owned()).collect()
}

/// The lines of a list of the columns up to `rank`.
fn aligned(columns: &[Column], rows: &[Vec<Cell>], form: fn(&Cell) -> &String, rank: u8) -> Vec<String> {
    let is_empty = |index: usize| rows.iter().all(|row| row.get(index).is_none_or(|cell| form(cell) == "-"));
    let shown: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(index, column)| column.rank <= rank && !(column.is_optional && is_empty(*index)))
        .map(|(index, _)| index)
        .collect();
    let header = columns.iter().map(|column| column.name.to_owned()).collect();
    let body = rows.iter().map(|row| row.iter().map(|cell| printable(form(cell))).collect());
    let all: Vec<Vec<String>> = std::iter::once(header).chain(body).collect();
    let of = |row: &Vec<String>, index: usize| row.get(index).cloned().unwrap_or_default();
    let width = |index: &usize| all.iter().map(|row| measure_text_width(&of(row, *index))).max().unwrap_or(0);
    let widths: Vec<usize> = shown.iter().map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = shown.iter().zip(&widths).map(|(index, width)| {
            pad_str(&of(row, *index), width + usize::from(GAP), Alignment::Left, None).into_owned()
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

/// Each row as lines of a column's name and its cell.
fn from_top_to_bottom(header: &[&str], rows: &[Vec<String>], terminal: u16) -> String {
    let one = |row: &Vec<String>| {
        let cells: Vec<Vec<String>> =
            header.iter().zip(row).map(|(name, cell)| vec![(*name).to_owned(), cell.clone()]).collect();
        text(&[], &cells, Some(terminal))
    };
    rows.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// A table as comma-separated values, without a header where `header` is
/// empty. Spreadsheets take what begins like a formula as text.
pub(super) fn csv(header: &[&str], rows: &[Vec<String>]) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !header.is_empty() {
        writer.write_record(header.iter().map(|name| csv_cell(name)))?;
    }
    rows.iter().try_for_each(|row| writer.write_record(row.iter().map(|cell| csv_cell(cell))))?;
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// A cell as a CSV file has it. What a spreadsheet would take for a formula gets a
/// quote in front, which spreadsheets take as the sign of text; a number, and the
/// dash for none, is left alone.
///
/// Source: OWASP, "CSV Injection".
fn csv_cell(cell: &str) -> String {
    let begins_a_formula =
        cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) && cell != "-";
    let is_number = || serde_json::from_str::<serde_json::Number>(cell).is_ok();
    let mark = if begins_a_formula && !is_number() { "'" } else { "" };
    format!("{mark}{}", printable(cell))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells() {
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some(&json!("x"))), "x");
        assert_eq!(cell(Some(&json!({"a": [1]}))), "{\"a\":[1]}");
    }

    #[test]
    fn a_cell_of_csv_is_text() {
        for (cell, shown) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1+1", "'+1+1"),
            ("-1+1", "'-1+1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", "'\\u0009=1"),
            ("－1＋1", "'－1＋1"),
            ("-", "-"),
            ("-1.5", "-1.5"),
            ("a=1", "a=1"),
        ] {
            let row = vec![vec![cell.to_owned()]];
            assert_eq!(String::from_utf8(csv(&[], &row).unwrap()).unwrap(), format!("{shown}\n"));
        }
        let header = csv(&["=a", "b\u{1b}"], &[]).unwrap();
        assert_eq!(String::from_utf8(header).unwrap(), "'=a,b\\u001b\n");
    }

    #[test]
    fn a_cell_looks_like_no_other_row() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a gw9     completed", "x\ngw9: completed"])];
        let shown = text(&["A", "B\n"], &rows, Some(30));
        assert!(shown.lines().all(|line| !line.starts_with("gw9")), "{shown}");
        assert_eq!(shown.lines().next(), Some("A        a gw9     completed"));
    }

    const HEADER: [&str; 3] = ["DEVICE", "OUTCOME", "WHY"];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["gw1", "completed", "-"]),
            row(["gw2", "refused", "the device refused with status 423: apt holds it"]),
        ]
    }

    #[test]
    fn as_wide_as_it_is_where_nobody_looks() {
        let expected = "\
DEVICE  OUTCOME    WHY
gw1     completed  -
gw2     refused    the device refused with status 423: apt holds it";
        assert_eq!(text(&HEADER, &rows(), None), expected);
        assert_eq!(text(&HEADER, &rows(), Some(67)), expected);
    }

    #[test]
    fn the_widest_column_is_wrapped() {
        let expected = "\
DEVICE  OUTCOME    WHY
gw1     completed  -
gw2     refused    the device refused
                   with status 423: apt
                   holds it";
        assert_eq!(text(&HEADER, &rows(), Some(40)), expected);
        let pairs = [vec!["device".to_owned(), "a long name that goes on and on".to_owned()]];
        assert_eq!(text(&[], &pairs, Some(24)), "device  a long name that\n        goes on and on");
    }

    #[test]
    fn each_row_from_top_to_bottom_where_there_is_no_room() {
        let expected = "\
DEVICE   gw1
OUTCOME  completed
WHY      -

DEVICE   gw2
OUTCOME  refused
WHY      the device refused
         with status 423:
         apt holds it";
        assert_eq!(text(&HEADER, &rows(), Some(28)), expected);
    }

    const COLUMNS: [Column; 4] = [
        Column { name: "DEVICE", rank: 0, is_optional: false },
        Column { name: "LAST REBOOT", rank: 2, is_optional: false },
        Column { name: "OUTCOME", rank: 1, is_optional: false },
        Column { name: "HEALTH", rank: 3, is_optional: true },
    ];

    fn list(health: &str, terminal: Option<u16>) -> Vec<String> {
        let same = |text: &str| Cell { long: text.to_owned(), short: text.to_owned() };
        let time = Cell { long: "2026-11-22 12:59:59 CET (3 h ago)".to_owned(), short: "3 h ago".to_owned() };
        list_lines(&COLUMNS, &[vec![same("gw1\n"), time, same("completed"), same(health)]], terminal)
    }

    #[test]
    fn a_row_of_a_list_has_one_line() {
        let row = "gw1\\u000a  2026-11-22 12:59:59 CET (3 h ago)  completed";
        let all = ["DEVICE     LAST REBOOT                        OUTCOME", row];
        assert_eq!(list("-", None), all);
        assert_eq!(list("-", Some(55)), all);
        assert_eq!(list("running", None)[1], format!("{row}  running"));
        let short = "gw1\\u000a  3 h ago      completed";
        assert_eq!(list("running", Some(42))[1], format!("{short}  running"));
        assert_eq!(list("running", Some(41)), ["DEVICE     LAST REBOOT  OUTCOME", short]);
        assert_eq!(list("-", Some(20)), ["DEVICE     OUTCOME", "gw1\\u000a  completed"]);
        assert_eq!(list("-", Some(12)), ["DEVICE", "gw1\\u000a"]);
        assert_eq!(list("-", Some(6)), ["DEVICE", "gw1\\u…"]);
    }
}
