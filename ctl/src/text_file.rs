//! Files of text that people make with all kinds of programs: what such a program
//! has put around the text is taken away or named.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The quotes of shells, JSON and word processors.
const QUOTES: [char; 10] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '«', '»'];

/// The mark before the text by which some editors say that it is UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads the text at `path`, or on stdin where that is `-`. Text in UTF-8, with or
/// without a byte order mark, and in UTF-16 with one is taken; the result has no
/// mark. The error says what is wrong, and what to do.
pub fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut bytes),
        _ => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| error.to_string())?;
    decoded(bytes)
}

/// The text that `bytes` are.
pub(crate) fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks();
        let text = String::from_utf16(&pairs.iter().copied().map(unit).collect::<Vec<_>>());
        text.ok()
            .filter(|_| rest.is_empty())
            .ok_or_else(|| "this is broken UTF-16; save it as UTF-8".to_owned())
    };
    let text = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes)?,
        _ => String::from_utf8(bytes).map_err(|error| {
            let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: this is not UTF-8; save the file as UTF-8")
        })?,
    };
    if text.contains('\0') {
        return Err("this is no text, or UTF-16 without a byte order mark; save it as UTF-8".to_owned());
    }
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map_or_else(|| text.clone(), str::to_owned))
}

/// What stands around a text and is no part of it, in a sentence that ends with
/// what to do. For texts that may be secrets: nothing of them is repeated.
pub fn surrounded_by(text: &str) -> Option<&'static str> {
    let bare = text.trim();
    let quoted = in_quotes(bare).is_some() || (bare.starts_with(QUOTES) && !bare.starts_with('"'));
    match () {
        () if text.starts_with(BYTE_ORDER_MARK) || text.starts_with("\u{ef}\u{bb}\u{bf}") => Some(
            "a byte order mark stands before it, as some editors write it: save the text as UTF-8 without one",
        ),
        () if quoted => Some("quotes stand around it: leave them out"),
        () => None,
    }
}

/// What is between the quotes, if quotes stand around a text.
pub fn in_quotes(text: &str) -> Option<&str> {
    text.trim().strip_prefix(QUOTES)?.strip_suffix(QUOTES).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_programs_text_is_the_same_text() {
        let utf_16 = |mark: u16, order: fn(u16) -> [u8; 2]| {
            [mark].into_iter().chain("gw1\r\nü\n".encode_utf16()).flat_map(order).collect::<Vec<u8>>()
        };
        for bytes in [
            "gw1\r\nü\n".as_bytes().to_vec(),
            "\u{feff}gw1\r\nü\n".as_bytes().to_vec(),
            utf_16(0xfeff, u16::to_le_bytes),
            utf_16(0xfeff, u16::to_be_bytes),
        ] {
            assert_eq!(decoded(bytes.clone()).as_deref(), Ok("gw1\r\nü\n"), "{bytes:?}");
        }
        for (bytes, why) in [
            (&b"gw1\ngw2\xfc\n"[..], "line 2: this is not UTF-8"),
            (b"\xff\xfeg", "broken UTF-16"),
            (b"g\0w\0", "UTF-16 without a byte order mark"),
        ] {
            let error = decoded(bytes.to_vec()).unwrap_err();
            assert!(error.contains(why) && error.contains("save"), "{error}");
        }
    }

    #[test]
    fn what_stands_around() {
        for (text, says) in [
            ("\u{feff}HostName=h", Some("byte order mark")),
            ("\"HostName=h\"", Some("quotes")),
            ("'HostName=h'\n", Some("quotes")),
            ("“HostName=h”", Some("quotes")),
            ("HostName=h", None),
            ("\"gw1", None),
        ] {
            let found = surrounded_by(text);
            assert_eq!(found.is_some(), says.is_some(), "{text}");
            assert!(found.unwrap_or_default().contains(says.unwrap_or_default()), "{text}");
        }
        assert_eq!(in_quotes(" \"gw1\" "), Some("gw1"));
    }
}
