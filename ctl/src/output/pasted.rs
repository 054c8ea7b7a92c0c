//! Words in lines that somebody may paste into a shell.

/// Arguments for a command line, quoted so that bash, zsh and fish take each as
/// one word without anything else happening, behind `--` where one of them would
/// be taken for an option. They have to be the last of their command line.
pub(crate) fn arguments<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let options = words.iter().any(|word| word.starts_with('-')).then(|| "--".to_owned());
    options.into_iter().chain(words.into_iter().map(quoted)).collect::<Vec<_>>().join(" ")
}

/// A word as bash, zsh and fish take it. Quotes and backslashes are outside of the
/// quotes, as in `'it'\''s'`: inside, the three do not agree on what they mean.
fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/,@+".contains(&b);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        let outside = |c: char| if "'\\".contains(c) { format!("'\\{c}'") } else { c.to_string() };
        format!("'{}'", word.chars().map(outside).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn plain_words_stay_as_they_are() {
        assert_eq!(arguments(["gw1", "a.b:c@d"]), "gw1 a.b:c@d");
        assert_eq!(arguments(["zz$(id)", "it's"]), "'zz$(id)' 'it'\\''s'");
        assert_eq!(arguments(["gw1", "--yes"]), "-- gw1 --yes");
        assert_eq!(arguments([""]), "''");
    }

    #[test]
    fn a_shell_gives_the_words_back() {
        let words =
            ["zz$(touch$IFS.pwned)", "q;id", "it's", "=ls", "a!!", "*?", "#x", "a'$(id)'b", "~", "a b\\"];
        for shell in ["bash", "zsh", "fish"] {
            let line = format!("printf '%s\\n' {}", arguments(words));
            let shown = Command::new(shell).args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(shown.stdout).unwrap(), words.join("\n") + "\n", "{shell}");
        }
    }
}
