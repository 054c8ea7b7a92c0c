//! Help texts as sections of a manual page.
//!
//! A line below an empty one that is not indented, begins with a capital letter and
//! ends with a colon begins a section, such as `Examples:`; what is indented stays as it is, everything
//! else is prose.

use clap_mangen::roff::{Roff, roman};

/// Where prose goes that stands before any heading.
const NOTES: &str = "NOTES";
/// The sections that come last, in the order that manual pages have them; all
/// others come before these.
const LAST: [&str; 5] = ["EXIT STATUS", "FILES", NOTES, "EXAMPLES", "SEE ALSO"];

/// A section: its heading and its lines.
pub(crate) struct Section<'a> {
    heading: String,
    lines: Vec<&'a str>,
}

/// The sections of a program's own help and of what is said `more`, joined
/// where they have one heading.
pub(crate) fn sections<'a>(help: &'a str, more: &'a str) -> Vec<Section<'a>> {
    let mut sections = Vec::new();
    // In a help text, prose below an example is no longer about the example.
    split(help, true, &mut sections);
    split(more, false, &mut sections);
    let place = |section: &Section| LAST.iter().position(|last| *last == section.heading);
    sections.sort_by_key(|section| place(section).map_or(0, |place| place + 1));
    sections
}

fn split<'a>(text: &'a str, prose_ends_section: bool, sections: &mut Vec<Section<'a>>) {
    let mut heading = NOTES.to_owned();
    let mut previous = "";
    for line in text.lines() {
        let begins = previous.is_empty() && !line.starts_with(' ');
        previous = line;
        if let Some(found) = heading_of(line).filter(|_| begins) {
            heading = found;
            continue;
        }
        if begins && prose_ends_section && !line.is_empty() {
            NOTES.clone_into(&mut heading);
        }
        match sections.iter_mut().find(|section| section.heading == heading) {
            Some(section) => section.lines.push(line),
            None if line.is_empty() => {}
            None => sections.push(Section { heading: heading.clone(), lines: vec![line] }),
        }
    }
}

fn heading_of(line: &str) -> Option<String> {
    let words = line.strip_suffix(':').filter(|words| words.starts_with(char::is_uppercase))?;
    Some(match words {
        "Example" => "EXAMPLES".to_owned(),
        "Exit codes" => "EXIT STATUS".to_owned(),
        _ => words.to_uppercase(),
    })
}

/// Writes the sections.
pub(crate) fn render(sections: &[Section], roff: &mut Roff) {
    for section in sections {
        roff.control("SH", [section.heading.as_str()]);
        let mut as_it_is = false;
        let mut gap = false;
        for line in &section.lines {
            if line.is_empty() {
                gap = true;
                continue;
            }
            let indented = line.starts_with(' ');
            if as_it_is && !indented {
                roff.control("fi", []);
            }
            if gap {
                roff.control("PP", []);
            }
            if indented && !as_it_is {
                roff.control("nf", []);
            }
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            (as_it_is, gap) = (indented, false);
        }
        if as_it_is {
            roff.control("fi", []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(help: &str, more: &str) -> String {
        let mut roff = Roff::new();
        render(&sections(help, more), &mut roff);
        roff.to_roff()
    }

    #[test]
    fn headings_indented_lines_and_prose() {
        let help = "Some prose.\n\nExample:\n  a b\n\n  .c d\n\nWith -o json more.\n\nExit codes:\n  0 done";
        assert_eq!(
            rendered(help, "Which hub:\n  one\n\nTwo of\nthem:\n\nand of these:\n\nExamples:\n  e f"),
            ".SH \"WHICH HUB\"\n.nf\none\n.fi\n.PP\nTwo of\nthem:\n.PP\nand of these:\n\
             .SH \"EXIT STATUS\"\n.nf\n0 done\n.fi\n\
             .SH NOTES\nSome prose.\n.PP\nWith \\-o json more.\n\
             .SH EXAMPLES\n.nf\na b\n.PP\n\\&.c d\n.PP\ne f\n.fi\n"
        );
    }
}
