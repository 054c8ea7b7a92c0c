//! Secrets that somebody has given where none belongs, such as on the command
//! line, kept out of messages: these end up in logs and on screens.

/// What stands in place of a secret.
const MASK: &str = "***";

/// What comes before a secret, in lower case; each ends with an equals sign.
///
/// Source: the connection strings and tokens of IoT Hub, and the parameters of
/// Microsoft Entra ID.
const BEFORE: [&str; 5] = ["sharedaccesskey=", "sig=", "client_secret=", "password=", "accesskey="];

/// The least length of base64 text that is taken for a key: a key of a hub or of
/// DPS has at least 16 bytes, which are 24 characters.
const LEAST_KEY: usize = 24;

/// The lengths of a secret that Microsoft Entra ID makes for an application.
const LEAST_SECRET: usize = 32;

/// `text` with everything that looks like a secret masked.
pub(crate) fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_of_a_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(c.len_utf8()));
        shown.push_str(&masked_word(word));
        rest = after;
    }
    shown
}

/// Whether `text` looks as if it were a secret itself or had one in it.
pub(crate) fn has_secret(text: &str) -> bool {
    masked(text) != text
}

/// Whether `c` can be in a secret, be it a key, a token or percent-encoded.
fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_~.-%".contains(c)
}

fn masked_word(word: &str) -> String {
    // Most words have no equals sign, and looking for each name in each of them would be
    // a twelfth of what a fleet's device costs.
    let after = word.contains('=').then(|| {
        // ASCII only, so that the places are the same in both.
        let lower = word.to_ascii_lowercase();
        BEFORE.iter().filter_map(|name| Some(lower.find(name)? + name.len())).min()
    });
    match after.flatten().map(|at| word.split_at(at)) {
        Some((name, "")) => name.to_owned(),
        Some((name, _)) => format!("{name}{MASK}"),
        None if is_key(word) || is_web_token(word) || is_application_secret(word) => MASK.to_owned(),
        None => word.to_owned(),
    }
}

/// Whether a word is a key in base64.
fn is_key(word: &str) -> bool {
    let bare = word.trim_end_matches('=');
    let padded = word.len() - bare.len();
    word.len() >= LEAST_KEY
        && word.len().is_multiple_of(4)
        && matches!(padded, 1 | 2)
        && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// Whether a word is a token of Microsoft Entra ID: three parts, of which the
/// first is JSON in base64.
fn is_web_token(word: &str) -> bool {
    word.starts_with("eyJ") && word.matches('.').count() >= 2
}

/// Whether a word is an application's secret of Microsoft Entra ID: letters and
/// digits of all kinds, and a tilde.
fn is_application_secret(word: &str) -> bool {
    let has = |kind: fn(&char) -> bool| word.chars().any(|c| kind(&c));
    word.len() >= LEAST_SECRET
        && word.contains('~')
        && !word.contains('/')
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        for (text, shown) in [
            (
                format!("x 'HostName=h;SharedAccessKeyName=service;SharedAccessKey={KEY}': no"),
                "x 'HostName=h;SharedAccessKeyName=service;SharedAccessKey=***': no".to_owned(),
            ),
            ("hostname=h;sharedaccesskey=c2Vj".to_owned(), "hostname=h;sharedaccesskey=***".to_owned()),
            (
                "SharedAccessSignature sr=h&sig=eA%3D%3D&se=1&skn=service".to_owned(),
                "SharedAccessSignature sr=h&sig=***&se=1&skn=service".to_owned(),
            ),
            (
                format!("--group-key-file {KEY}: No such file"),
                "--group-key-file ***: No such file".to_owned(),
            ),
            ("eyJ0eXAi.eyJhdWQi.c2ln".to_owned(), "***".to_owned()),
            (
                "/home/x/aB18Q~Zk3456789012345678901234567".to_owned(),
                "/home/x/aB18Q~Zk3456789012345678901234567".to_owned(),
            ),
            ("aB18Q~Zk34567890123456789012345678901".to_owned(), "***".to_owned()),
        ] {
            assert_eq!(masked(&text), shown);
            assert_eq!(has_secret(&text), text != shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "6aadb16a-6738-4b2a-91e9-5a16d41625b1 AAAAAAAAAAM=",
            "/home/operator/Hubs/Production/Europe-West/hub.connection-string: No such file or directory",
            "SharedAccessKey= is empty ü →",
            "7B0C1A5C3D0E4F9A7B0C1A5C3D0E4F9A7B0C1A5C3D0E4F9A7B0C1A5C3D0E4F9A",
            "",
        ] {
            assert_eq!(masked(text), text);
        }
    }
}
