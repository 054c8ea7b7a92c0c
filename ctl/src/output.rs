//! Where text goes: results to stdout, everything else to stderr.
//!
//! Nothing here panics on a closed pipe: an error of stdout is returned, and
//! what stderr cannot take is dropped.

mod printable;
mod table;

use std::fmt;
use std::io::{self, Write as _};

use console::Term;
use serde::Serialize;

pub(crate) use self::printable::printable;
pub use self::table::cell;

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Sentences and tables for people.
    Text,
    /// One indented JSON document.
    Json,
    /// JSON, one value on each line.
    Jsonl,
    /// Tables as comma-separated values; only of the commands that print tables.
    Csv,
}

/// Writes results in the chosen form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Writes results in this form.
    pub fn new(format: Format) -> Self {
        Output { format }
    }

    /// The form of results.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether results are sentences and tables for people.
    pub fn is_text(self) -> bool {
        self.format == Format::Text
    }

    /// Whether results that can be a table are one.
    pub fn is_tabular(self) -> bool {
        matches!(self.format, Format::Text | Format::Csv)
    }

    /// Writes a line for people. Control characters, which may come from a
    /// device, do not reach the terminal.
    pub fn line(self, line: fmt::Arguments<'_>) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", printable(&line.to_string()))
    }

    /// Writes a value as JSON: on one line as `jsonl`, else indented.
    pub fn json(self, value: &impl Serialize) -> io::Result<()> {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value)?,
            Format::Text | Format::Json | Format::Csv => serde_json::to_string_pretty(value)?,
        };
        writeln!(io::stdout().lock(), "{}", printable(&text))
    }

    /// Writes several values as JSON: each on a line as `jsonl`, else an array.
    pub fn array(self, values: &[impl Serialize]) -> io::Result<()> {
        match self.format {
            Format::Jsonl => values.iter().try_for_each(|value| self.json(value)),
            Format::Text | Format::Json | Format::Csv => self.json(&values),
        }
    }

    /// Writes a table, without a header where `header` is empty.
    pub fn table(self, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        if self.format == Format::Csv {
            return io::stdout().lock().write_all(&table::csv(header, rows)?);
        }
        let terminal = Term::stdout();
        let width = terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns);
        writeln!(io::stdout().lock(), "{}", table::text(header, rows, width))
    }
}

/// Writes a line to stderr: progress, a warning or an error.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&line.to_string()));
}
