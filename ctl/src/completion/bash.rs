//! Completion for bash, which inserts what it is given as it is: an id such as
//! `a;reboot` would be two commands.
//!
//! The script hands over the line as it is typed. What is typed already stays as it
//! is; what is added is quoted, in the way that suits the quotes at the cursor.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::env::EnvCompleter;

/// Completion for bash.
pub(super) struct Bash;

/// `COMP_LINE` up to the cursor is the line as it is typed, and `$2` the part of
/// it that bash will replace, which begins after the last of COMP_WORDBREAKS. The
/// array is filled line by line, since an unquoted expansion would put the names
/// of files in place of a `*`.
const SCRIPT: &str = r#"_clap_complete_FUNCTION() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(VARIABLE=bash COMPLETER -- "${COMP_LINE:0:COMP_POINT}" "$2" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace
    fi
}
if [[ ${BASH_VERSINFO[0]} -gt 4 || ${BASH_VERSINFO[0]} -eq 4 && ${BASH_VERSINFO[1]} -ge 4 ]]; then
    complete -o bashdefault -o nosort -F _clap_complete_FUNCTION BIN
else
    complete -o bashdefault -F _clap_complete_FUNCTION BIN
fi
"#;

/// A command line up to the cursor, taken apart as bash does.
#[derive(Debug, PartialEq)]
struct Line {
    /// The words without their quotes; the last one is at the cursor.
    words: Vec<String>,
    /// The last word as it is typed.
    typed: String,
    /// The quotes that are open at the cursor.
    open: Open,
}

/// The quotes that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Single,
    Double,
}

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let script = SCRIPT.replace("FUNCTION", &name.replace('-', "_")).replace("VARIABLE", variable);
        out.write_all(script.replace("COMPLETER", completer).replace("BIN", bin).as_bytes())
    }

    /// Writes the candidates, each on a line. `given` is the line up to the cursor
    /// and the part of it that bash will replace.
    fn write_complete(
        &self,
        command: &mut clap::Command,
        given: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let [line, replaced] = given.as_slice() else { return Ok(()) };
        let (Some(line), Some(replaced)) = (line.to_str().and_then(scan), replaced.to_str()) else {
            return Ok(());
        };
        let words: Vec<OsString> = line.words.iter().map(OsString::from).collect();
        let last = words.len().saturating_sub(1);
        for candidate in super::candidates(command, words, last, folder)? {
            let completed = candidate.get_value().to_str().and_then(|value| line.completed(value, replaced));
            if let Some(completed) = completed {
                writeln!(out, "{completed}")?;
            }
        }
        Ok(())
    }
}

/// Takes a line apart. `None` if the last word holds an expansion, whose value is
/// not known here.
fn scan(line: &str) -> Option<Line> {
    let (mut words, mut word, mut typed) = (Vec::new(), None::<String>, String::new());
    let (mut open, mut expands) = (Open::None, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if open == Open::None && (c.is_whitespace() || ";|&".contains(c)) {
            words.extend(word.take());
            if !c.is_whitespace() {
                words.clear();
            }
            (typed, expands) = (String::new(), false);
            continue;
        }
        let word = word.get_or_insert_default();
        match (open, c) {
            (Open::None, '\'') => open = Open::Single,
            (Open::None, '"') => open = Open::Double,
            (Open::Single, '\'') | (Open::Double, '"') => open = Open::None,
            (Open::None | Open::Double, '\\') => match chars.next() {
                // Nothing is escaped yet: what is added may begin with an escape.
                None => break,
                Some(escaped) => {
                    if open == Open::Double && !"$`\"\\".contains(escaped) {
                        word.push('\\');
                    }
                    word.push(escaped);
                    typed.extend([c, escaped]);
                    continue;
                }
            },
            (Open::None | Open::Double, '$' | '`') => expands = true,
            (Open::None, '(' | ')' | '<' | '>') => expands = true,
            _ => word.push(c),
        }
        typed.push(c);
    }
    words.push(word.unwrap_or_default());
    // Assignments before the command are none of its words.
    let assignments = words.iter().take_while(|word| word.contains('=')).count();
    words.drain(..assignments.min(words.len() - 1));
    (!expands && words.len() > 1).then_some(Line { words, typed, open })
}

impl Line {
    /// The text with which bash is to replace `replaced`, the end of the line, so
    /// that the word at the cursor becomes `value`. `None` if `value` does not begin
    /// with that word, or could not stand on a line of its own.
    fn completed(&self, value: &str, replaced: &str) -> Option<String> {
        let added = value.strip_prefix(self.words.last()?.as_str())?;
        // A backslash at the cursor is in `replaced`, but escapes nothing yet.
        let dangling = if self.open == Open::Single { None } else { replaced.strip_suffix('\\') };
        let kept = self.typed.strip_suffix(replaced).or_else(|| self.typed.strip_suffix(dangling?))?;
        if value.chars().any(char::is_control) {
            return None;
        }
        Some(format!("{}{}", self.typed.strip_prefix(kept)?, self.open.quoted(added)))
    }
}

impl Open {
    /// `text` so that bash takes it as it is, where these quotes are open and stay
    /// open. An exclamation mark would be replaced by an earlier command also in
    /// double quotes.
    ///
    /// At the end of a word readline closes the quotes, but for a word that ends in
    /// such a quote already. Such a word ends outside of quotes.
    fn quoted(self, text: &str) -> String {
        let mut quoted = String::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let is_last = chars.peek().is_none();
            match self {
                Open::None if c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-./:@%+,=".contains(c) => {
                    quoted.extend(['\\', c]);
                }
                Open::Single if c == '\'' => quoted.push_str(if is_last { "'\\'" } else { "'\\''" }),
                Open::Double if is_last && "!\"".contains(c) => {
                    quoted.push_str(if c == '!' { "\"\\!\"\"" } else { "\"\\\"" });
                }
                Open::Double if "$`\"\\".contains(c) => quoted.extend(['\\', c]),
                Open::Double if c == '!' => quoted.push_str("\"\\!\""),
                _ => quoted.push(c),
            }
        }
        quoted
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_bash_does() {
        for (line, words, typed, open) in [
            ("iotdm-ctl twin show zz", &["iotdm-ctl", "twin", "show", "zz"][..], "zz", Open::None),
            ("iotdm-ctl ", &["iotdm-ctl", ""], "", Open::None),
            (
                "iotdm-ctl --hub 'my hub' zz\\$\\(",
                &["iotdm-ctl", "--hub", "my hub", "zz$("],
                "zz\\$\\(",
                Open::None,
            ),
            ("iotdm-ctl 'zz$", &["iotdm-ctl", "zz$"], "'zz$", Open::Single),
            ("iotdm-ctl \"z\\$\\q", &["iotdm-ctl", "z$\\q"], "\"z\\$\\q", Open::Double),
            ("iotdm-ctl zz\\", &["iotdm-ctl", "zz"], "zz", Open::None),
            ("id; A=1 iotdm-ctl a:", &["iotdm-ctl", "a:"], "a:", Open::None),
        ] {
            let words = words.iter().map(ToString::to_string).collect();
            assert_eq!(scan(line), Some(Line { words, typed: typed.to_owned(), open }), "{line}");
        }
        for unknown in ["iotdm-ctl $x", "iotdm-ctl \"$x", "iotdm-ctl `i", "iotdm-ctl <(", "iotdm-ct", ""] {
            assert_eq!(scan(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn only_the_rest_of_a_word_is_inserted() {
        for (line, replaced, value, completed) in [
            ("iotdm-ctl zz", "zz", "zz$(id)", Some("zz\\$\\(id\\)")),
            ("iotdm-ctl 'zz", "zz", "zz'$(id)", Some("zz'\\''$(id)")),
            ("iotdm-ctl a:", "", "a:b", Some("b")),
            ("iotdm-ctl zz\\", "zz\\", "zz;id", Some("zz\\;id")),
            ("iotdm-ctl zz", "zz", "other", None),
            ("iotdm-ctl zz", "zz", "zz\nid", None),
            ("iotdm-ctl zz", "else", "zz1", None),
        ] {
            let found = scan(line).unwrap().completed(value, replaced);
            assert_eq!(found.as_deref(), completed, "{line} {value}");
        }
    }

    #[test]
    fn bash_gives_the_value_back_in_all_quotes() {
        let values = [
            "zz!",
            "zz\"",
            "zz'",
            "zz$(touch$IFS.pwned)",
            "zz;id",
            "zz'$(id)'",
            "zz!!x",
            "zz*?",
            "zz#=@:%",
            "zz \"`id`\\",
        ];
        for value in values {
            for (open, close) in [("zz", ""), ("'zz", "'"), ("\"zz", "\""), ("'z'z", "")] {
                let line = scan(&format!("iotdm-ctl {open}")).unwrap();
                let word = line.completed(value, open).unwrap();
                let close = if word.ends_with(close) { "" } else { close };
                let script = format!("printf %s {word}{close}");
                let shown = Command::new("bash").args(["-c", &script]).output().unwrap();
                assert_eq!(String::from_utf8(shown.stdout).unwrap(), value, "{script}");
            }
        }
    }
}
