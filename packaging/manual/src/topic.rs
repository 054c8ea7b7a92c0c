//! Pages that are written by hand.

use clap_mangen::roff::{Roff, roman};

use crate::help;

/// The pages: path below the root, and content.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let preflight = page(
        "iotdm-preflight",
        "7",
        "checks of whether a machine would come back from a reboot",
        include_str!("../iotdm-preflight.txt"),
    );
    vec![("usr/share/man/man7/iotdm-preflight.7", preflight)]
}

fn page(name: &str, section: &str, about: &str, text: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TH", [name, section, "", concat!("iotdm ", env!("CARGO_PKG_VERSION")), "iotdm"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {about}"))]);
    help::render(&help::sections("", text), &mut roff);
    roff.to_roff()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_parts() {
        for (path, page) in all() {
            for part in [".SH DESCRIPTION", ".SH CHECKS", ".SH FILES", ".SH EXAMPLES", ".SH \"SEE ALSO\""] {
                assert!(page.contains(part), "{path}: {part}: {page}");
            }
        }
    }
}
