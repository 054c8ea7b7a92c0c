//! Text from a device, a hub or a file, made harmless where it leaves for a
//! terminal, a pipe or a file: the one border for sentences, tables, CSV, JSON,
//! progress and errors.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// Characters that a reader does not see, beside the control characters: they
/// have no width, or they turn the text around them. These are Unicode's format
/// characters, line separators and default ignorable code points.
///
/// Source: Unicode 16, DerivedCoreProperties.txt (Default_Ignorable_Code_Point)
/// and DerivedGeneralCategory.txt (Cf, Zl, Zp).
const UNSEEN: [RangeInclusive<char>; 31] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{600}'..='\u{605}',
    '\u{61c}'..='\u{61c}',
    '\u{6dd}'..='\u{6dd}',
    '\u{70f}'..='\u{70f}',
    '\u{890}'..='\u{891}',
    '\u{8e2}'..='\u{8e2}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{110bd}'..='\u{110bd}',
    '\u{110cd}'..='\u{110cd}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
    // Braille's empty pattern is seen as a blank, and Hangul's filler above as
    // one as well. The rest are private use characters, of which fonts for
    // terminals make arrows and prompts.
    '\u{2800}'..='\u{2800}',
    '\u{e000}'..='\u{f8ff}',
    '\u{f0000}'..='\u{ffffd}',
    '\u{100000}'..='\u{10fffd}',
    // What is not a character at all.
    '\u{fdd0}'..='\u{fdef}',
    '\u{fffe}'..='\u{ffff}',
];

/// `text` as one line in which everything is seen: line ends, other control
/// characters and [`UNSEEN`] ones are written as JSON writes them (`\u001b`).
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |_| false)
}

/// `json`, which is JSON text, as [`printable`] makes it, but for its line feeds.
/// serde_json has escaped those that are in strings, so that the rest are its own
/// layout; it is still the same JSON.
pub(crate) fn printable_json(json: &str) -> String {
    escaped(json, |c| c == '\n')
}

fn escaped(text: &str, is_layout: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_layout(c) || !is_unseen(c) {
            shown.push(c);
        } else {
            // JSON writes what is beyond 16 bits as two surrogates.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

fn is_unseen(c: char) -> bool {
    c.is_control() || (!c.is_ascii() && UNSEEN.iter().any(|range| range.contains(&c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_cannot_steer_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2Jb\u{9b}c\u{7f} ü — 漢字 👍"),
            "a\\u001b[2Jb\\u009bc\\u007f ü — 漢字 👍"
        );
        for c in ('\0'..=char::MAX).filter(|c| c.is_control()) {
            let shown = printable(&c.to_string());
            assert_eq!(shown, format!("\\u{:04x}", u32::from(c)));
        }
    }

    #[test]
    fn a_line_stays_one_line_that_reads_as_it_is_written() {
        assert_eq!(printable("x\r\ngw2: completed"), "x\\u000d\\u000agw2: completed");
        for c in "\u{2028}\u{2029}\u{85}\u{202e}\u{2066}\u{2069}\u{200e}\u{61c}\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}"
            .chars()
        {
            assert_eq!(printable(&format!("a{c}b")), format!("a\\u{:04x}b", u32::from(c)));
        }
        assert_eq!(printable("\u{e0041}"), "\\udb40\\udc41", "an invisible letter");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"k\u{202e}\u{e0041}": ["\u{9b}2J\n\u{7f}", "\u{1b}"]});
        let shown = printable_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.chars().any(|c| is_unseen(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
