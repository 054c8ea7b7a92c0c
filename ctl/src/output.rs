//! Where text goes: results to stdout, all else to stderr.
//!
//! Nothing here panics on a closed pipe: stdout's errors are returned, and
//! what stderr cannot take is dropped.

mod table;

use std::fmt;
use std::io::{self, Write as _};

use console::Term;
use serde::Serialize;

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One indented JSON document.
    Json,
    /// JSON, one value per line.
    Jsonl,
    /// Tables as comma-separated values.
    Csv,
}

/// Writes results in the chosen form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Writes in this form.
    pub fn new(format: Format) -> Self {
        Output { format }
    }

    /// The form.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether results are for people.
    pub fn is_text(self) -> bool {
        self.format == Format::Text
    }

    /// Whether results are tables.
    pub fn is_tabular(self) -> bool {
        matches!(self.format, Format::Text | Format::Csv)
    }

    /// A line for people. Control characters, which may come from a device,
    /// cannot reach the terminal.
    pub fn line(self, line: fmt::Arguments<'_>) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", printable(&line.to_string()))
    }

    /// A value: on one line as `jsonl`, else indented.
    pub fn json(self, value: &impl Serialize) -> io::Result<()> {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value)?,
            Format::Text | Format::Json | Format::Csv => serde_json::to_string_pretty(value)?,
        };
        writeln!(io::stdout().lock(), "{}", printable(&text))
    }

    /// Several values: one per line as `jsonl`, else an array.
    pub fn array(self, values: &[impl Serialize]) -> io::Result<()> {
        match self.format {
            Format::Jsonl => values.iter().try_for_each(|value| self.json(value)),
            Format::Text | Format::Json | Format::Csv => self.json(&values),
        }
    }

    /// A table, without a header where that is empty.
    pub fn table(self, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        if self.format == Format::Csv {
            return io::stdout().lock().write_all(&table::csv(header, rows)?);
        }
        let terminal = Term::stdout();
        let width = terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns);
        writeln!(io::stdout().lock(), "{}", table::text(header, rows, width))
    }
}

/// A line to stderr: progress, a warning or an error.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&line.to_string()));
}

/// `text` with control characters but the line feed written as JSON writes
/// them, so that JSON stays what it is: its own escaping leaves out those
/// above 0x7e, which some terminals obey.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_cannot_steer_the_terminal() {
        let json = printable(&serde_json::to_string("\u{9b}2J").unwrap_or_default());
        assert_eq!(json, "\"\\u009b2J\"");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}c ü"), "a\\u001b[2Jb\n\\u009bc ü");
    }
}
