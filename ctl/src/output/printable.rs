//! Text from a device, a hub or a file, made harmless for a terminal.

/// `text` with control characters but the line feed written as JSON writes
/// them (`\u001b`), so that JSON stays JSON. Its own escaping leaves out those
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
