//! Words of strangers: which characters could make a text pose as something that
//! it is not, and the same text made harmless, for whoever reads it next.
//!
//! Two answers, for two readers. The daemon refuses or replaces what a terminal, a
//! journal or a direction of writing would obey ([`is_deceptive`], [`harmless`]):
//! words that people write stay as they are. The tool and the emulator show what
//! they were told, and nothing in it may go unseen ([`is_unseen`], [`line()`],
//! [`lines`]).
//!
//! A terminal obeys control characters, a line end begins a line (in a journal: a
//! field) that seems to be somebody else's, and a bidirectional override shows
//! words in an order that nobody wrote. Source: Unicode Standard Annex 9
//! (explicit directional formatting), Unicode Technical Report 36.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// Whether a character is one that is obeyed: a control character (C0, DEL, C1), a line
/// or paragraph separator, or a bidirectional embedding, override or isolate.
/// The marks U+200E, U+200F and U+061C are none: they change no order but that of
/// the neighbouring punctuation, and languages written from the right need them.
pub fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text as one line in which each character that could deceive is replaced
/// by U+FFFD, so that one sees that something stood there.
pub fn harmless(text: &str) -> String {
    text.chars().map(|char| if is_deceptive(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

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

/// Whether a reader would not see a character: a control character, or one that
/// has no width or turns the text around it.
pub fn is_unseen(char: char) -> bool {
    char.is_control() || (!char.is_ascii() && UNSEEN.iter().any(|range| range.contains(&char)))
}

/// The text as one line in which everything is seen: what would not be is written
/// as JSON escapes it (`\u001b`), so that JSON stays the same JSON.
pub fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// The text with its line feeds, and otherwise as [`line()`] has it: for a text of
/// several lines of which the program itself has made the line ends.
pub fn lines(text: &str) -> String {
    escaped(text, |char| char == '\n')
}

fn escaped(text: &str, is_layout: impl Fn(char) -> bool) -> String {
    let is_shown = |char| is_layout(char) || !is_unseen(char);
    // As nearly all text is.
    if text.chars().all(is_shown) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if is_shown(char) {
            shown.push(char);
        } else {
            // JSON writes what is beyond 16 bits as two surrogates.
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each end of each range, and its neighbour outside.
    #[test]
    fn what_deceives_is_replaced_and_nothing_else() {
        let deceptive = "\0\n\r\t\u{1b}\u{1f}\u{7f}\u{80}\u{85}\u{9b}\u{9f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}";
        let count = deceptive.chars().count();
        assert!(deceptive.chars().all(is_deceptive));
        assert_eq!(harmless(deceptive), "\u{fffd}".repeat(count));
        let plain = " ~\u{a0}ü€\u{200e}\u{200f}\u{2027}\u{202f}\u{2065}\u{206a}\u{1f680}";
        assert_eq!(harmless(plain), plain);
    }

    #[test]
    fn a_device_cannot_steer_the_terminal() {
        assert_eq!(line("a\u{1b}[2Jb\u{9b}c\u{7f} ü — 漢字 👍"), "a\\u001b[2Jb\\u009bc\\u007f ü — 漢字 👍");
        for c in ('\0'..=char::MAX).filter(|c| c.is_control()) {
            let shown = line(&c.to_string());
            assert_eq!(shown, format!("\\u{:04x}", u32::from(c)));
        }
    }

    #[test]
    fn a_line_stays_one_line_that_reads_as_it_is_written() {
        assert_eq!(line("x\r\ngw2: completed"), "x\\u000d\\u000agw2: completed");
        for c in "\u{2028}\u{2029}\u{85}\u{202e}\u{2066}\u{2069}\u{200e}\u{61c}\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}"
            .chars()
        {
            assert_eq!(line(&format!("a{c}b")), format!("a\\u{:04x}b", u32::from(c)));
        }
        assert_eq!(line("\u{e0041}"), "\\udb40\\udc41", "an invisible letter");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"k\u{202e}\u{e0041}": ["\u{9b}2J\n\u{7f}", "\u{1b}"]});
        let shown = lines(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.chars().any(|c| is_unseen(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
