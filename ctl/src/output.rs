//! Where text goes: results to stdout, everything else to stderr.
//!
//! Nothing here panics on a closed pipe: an error of stdout is returned, and
//! what stderr cannot take is dropped.

mod pasted;
pub(crate) mod screen;
mod secrets;
mod table;

use std::fmt;
use std::io::{self, Write as _};

use console::{Style, Term};
pub(crate) use iotdm_proto::text::line as printable;
use iotdm_proto::text::lines;
use serde::Serialize;

pub(crate) use self::pasted::arguments;
use self::screen::aside;
pub(crate) use self::secrets::has_secret;
use self::secrets::masked;
pub(crate) use self::table::list_lines;
pub use self::table::{Cell, Column, cell};

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
    /// Numbers for Prometheus; only of `status`.
    Prometheus,
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

    /// Writes a line for people. Whatever a device has put into it, it is one line
    /// and steers no terminal.
    pub fn line(self, line: fmt::Arguments<'_>) -> io::Result<()> {
        write(&printable(&line.to_string()))
    }

    /// Writes a value as JSON: on one line as `jsonl`, else indented.
    pub fn json(self, value: &impl Serialize) -> io::Result<()> {
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(value)?,
            Format::Text | Format::Json | Format::Csv | Format::Prometheus => {
                serde_json::to_string_pretty(value)?
            }
        };
        write(&lines(&text))
    }

    /// Writes several values as JSON: each on a line as `jsonl`, else an array.
    pub fn array(self, values: &[impl Serialize]) -> io::Result<()> {
        match self.format {
            Format::Jsonl => values.iter().try_for_each(|value| self.json(value)),
            Format::Text | Format::Json | Format::Csv | Format::Prometheus => self.json(&values),
        }
    }

    /// Writes a table, without a header where `header` is empty.
    pub fn table(self, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        if self.format == Format::Csv {
            let table = table::csv(header, rows)?;
            return aside(|| io::stdout().lock().write_all(&table));
        }
        let terminal = Term::stdout();
        let width = terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns);
        write(&table::text(header, rows, width))
    }
}

impl Output {
    /// Writes a list for people, in which each row has one line.
    pub fn list(self, columns: &[Column], rows: &[Vec<Cell>]) -> io::Result<()> {
        let terminal = Term::stdout();
        let width = terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns);
        let lines = list_lines(columns, rows, width);
        write(&lines.join("\n"))
    }
}

/// Writes to stdout, with a line's end.
fn write(text: &str) -> io::Result<()> {
    aside(|| writeln!(io::stdout().lock(), "{text}"))
}

/// Writes a line to stderr: progress, a warning or an error. Whatever is in it,
/// it is one line, steers no terminal and shows no secret.
pub fn say(line: fmt::Arguments<'_>) {
    say_as(line, &Style::new());
}

/// Writes a line as [`say`] does, which stands out by its style where stderr is a
/// terminal and the environment does not refuse colour (`NO_COLOR`).
pub(crate) fn say_as(line: fmt::Arguments<'_>, style: &Style) {
    let line = style.clone().for_stderr().apply_to(sayable(&line.to_string()));
    let _ = aside(|| writeln!(io::stderr().lock(), "{line}"));
}

/// Text as [`say`] writes it.
pub(crate) fn sayable(text: &str) -> String {
    printable(&masked(text))
}

/// Writes why a command line was not understood, in the lines that clap has made
/// of it. An argument may be anything, so that none gets a line of its own.
pub(crate) fn say_misunderstood(error: &clap::Error, arguments: impl Iterator<Item = String>) {
    let mut text = error.render().to_string();
    for argument in arguments {
        // As it was given, or the value or the file's name in it.
        let value = argument.split_once('=').map_or(argument.as_str(), |(_, value)| value);
        for part in [&argument, value, value.trim_start_matches('@')] {
            let shown = printable(part);
            if shown != part {
                text = text.replace(part, &shown);
            }
        }
    }
    text.trim_end().lines().for_each(|line| say(format_args!("{line}")));
}
