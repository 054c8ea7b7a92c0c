//! Words of strangers: which characters could make a text pose as something that
//! it is not, and the same text without them.
//!
//! A terminal obeys control characters, a line end begins a line (in a journal: a
//! field) that seems to be somebody else's, and a bidirectional override shows
//! words in an order that nobody wrote. Source: Unicode Standard Annex 9
//! (explicit directional formatting), Unicode Technical Report 36.

/// Whether a character is one of those: a control character (C0, DEL, C1), a line
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
}
