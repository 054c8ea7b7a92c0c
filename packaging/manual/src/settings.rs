//! iotdm-agentd.toml(5), made from the comments of the shipped file.

use clap_mangen::roff::{Roff, bold, roman};

use crate::help;

const SHIPPED: &str = include_str!("../../../config/agentd.toml");
const MORE: &str = include_str!("../iotdm-agentd.toml.txt");

/// A line of the shipped file.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    /// `[hub]`
    Section(&'a str),
    /// `#keep_alive = "4m"`: a key and its default, commented out.
    Setting(&'a str),
    /// `# Words.`
    Comment(&'a str),
    Empty,
}

/// The whole page.
pub(crate) fn page() -> String {
    let mut roff = Roff::new();
    let source = concat!("iotdm ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["iotdm-agentd.toml", "5", "", source, "iotdm"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("iotdm-agentd.toml - configuration of iotdm-agentd")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman("/etc/iotdm/agentd.toml")]);
    roff.control("br", []);
    roff.text([roman("/etc/iotdm/agentd.toml.d/*.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    describe(SHIPPED, &mut roff);
    help::render(&help::sections("", MORE), &mut roff);
    roff.to_roff()
}

/// Each comment with the setting below it.
fn describe(shipped: &str, roff: &mut Roff) {
    let mut words = Vec::new();
    for line in shipped.lines().map(line).chain([Line::Empty]) {
        match line {
            Line::Comment(comment) => words.push(comment),
            Line::Setting(setting) => {
                let (key, default) = setting.split_once('=').unwrap_or((setting, ""));
                roff.control("TP", []);
                roff.text([bold(key.trim()), roman(" = "), roman(default.trim())]);
                prose(&mut words, roff);
            }
            Line::Section(_) | Line::Empty => {
                if !words.is_empty() {
                    roff.control("PP", []);
                    prose(&mut words, roff);
                }
                if let Line::Section(name) = line {
                    roff.control("SS", [name]);
                }
            }
        }
    }
}

fn prose(words: &mut Vec<&str>, roff: &mut Roff) {
    for text in words.drain(..) {
        if text.is_empty() {
            roff.control("sp", []);
        } else {
            roff.text([roman(text)]);
        }
    }
}

fn line(text: &str) -> Line<'_> {
    let uncommented = text.strip_prefix('#').unwrap_or(text);
    if text.is_empty() {
        Line::Empty
    } else if uncommented.starts_with('[') {
        Line::Section(uncommented)
    } else if uncommented.starts_with(|first: char| first.is_ascii_alphabetic()) {
        Line::Setting(uncommented)
    } else {
        Line::Comment(uncommented.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_belongs_to_the_setting_below_it() {
        let mut roff = Roff::new();
        describe(
            "# All.\n\n[hub]\n# Idle.\n#\n# Or not.\n#keep_alive = \"4m\"\n#[log]\n#level = 1\n",
            &mut roff,
        );
        assert_eq!(
            roff.to_roff(),
            ".PP\nAll.\n.SS [hub]\n.TP\n\\fBkeep_alive\\fR = \"4m\"\nIdle.\n.sp\nOr not.\n\
             .SS [log]\n.TP\n\\fBlevel\\fR = 1\n"
        );
    }

    #[test]
    fn every_setting_of_the_shipped_file_is_described() {
        let page = page();
        let settings: Vec<_> =
            SHIPPED.lines().map(line).filter(|line| matches!(line, Line::Setting(_))).collect();
        assert!(settings.len() >= 10, "{settings:?}");
        assert_eq!(page.matches(".TP\n").count(), settings.len());
        for text in page.split(".TP\n").skip(1) {
            let words = text.lines().nth(1).unwrap_or_default();
            assert!(words.starts_with(char::is_alphabetic) || words.starts_with('"'), "no words: {text}");
        }
    }
}
