//! Text of strangers on its way to a terminal, a log or a pipe.
//!
//! A terminal obeys control characters; a line end begins a line that seems to be
//! somebody else's; characters without width and those that turn the direction of
//! writing show words that nobody wrote. Source: Unicode Standard Annex 9,
//! Unicode Technical Report 36.

use std::fmt::{self, Write};

/// Whether a character is one of those: a control character (C0, DEL, C1), a
/// line or paragraph separator, a mark or override of direction, or a format
/// character without width.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// The text as one line: each character that could deceive is written as JSON
/// escapes it, `\u001b`. So JSON stays JSON, and means the same.
pub fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// The text with its line ends, and otherwise as [`line`] has it: for a text of
/// several lines of which the program itself has made the line ends.
pub fn lines(text: &str) -> String {
    escaped(text, |c| c == '\n')
}

/// How a record of the log shows a field; its message is a field as well.
pub fn log_field(
    writer: &mut tracing_subscriber::fmt::format::Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    let value = line(&format!("{value:?}"));
    if field.name() == "message" { writer.write_str(&value) } else { write!(writer, "{field}={value}") }
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_deceptive(c) || is_kept(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each end of each range, and the neighbours outside.
    #[test]
    fn what_deceives_is_escaped_and_nothing_else() {
        let deceptive = "\0\n\r\t\u{1b}\u{1f}\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\
            \u{2060}\u{206f}\u{feff}\u{e0000}\u{e007f}";
        let shown = line(deceptive);
        assert!(shown.is_ascii() && !shown.contains(|c: char| c.is_control()), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&format!("\"{shown}\"")).unwrap(), deceptive);
        let plain =
            " ~\u{a0}ü€\u{200a}\u{2010}\u{2027}\u{202f}\u{205f}\u{2070}\u{fefe}\u{ff00}\u{1f680}\u{e0080}";
        assert_eq!((line(plain).as_str(), lines(plain).as_str()), (plain, plain));
        assert_eq!(lines("a\nb\r"), "a\nb\\u000d");
    }
}
