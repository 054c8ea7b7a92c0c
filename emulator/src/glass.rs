//! The page that shows the hub in a browser, as text: nothing of it is loaded from
//! elsewhere, and its policy lets the browser run and show nothing but what stands in
//! it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("glass/page.html");
const LOOKING: &str = include_str!("glass/looking.html");
const CLOSED: &str = include_str!("glass/closed.html");
const STYLE: &str = include_str!("glass/style.css");
const SCRIPT: &str = include_str!("glass/script.js");

/// The page for who has come in.
pub static LOOKING_PAGE: LazyLock<String> = LazyLock::new(|| page(&LOOKING.replace("{script}", SCRIPT)));

/// The page's `Content-Security-Policy`.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// The page for who may not come in, which says why and what to do. Neither `title` nor
/// `reason` may be of strangers.
pub fn closed_page(title: &'static str, reason: &'static str) -> String {
    page(&CLOSED.replace("{title}", title).replace("{reason}", reason))
}

fn page(body: &str) -> String {
    PAGE.replace("{style}", STYLE).replace("{body}", body)
}

/// As policies name an inline script or style.
fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        for page in [LOOKING_PAGE.clone(), closed_page("a", "b")] {
            assert!(!["{style}", "{body}", "{script}", "{title}"].iter().any(|left| page.contains(left)));
            for foreign in ["http:", "https:", "src=", "@import", "url(", "onclick", "style="] {
                assert!(!page.contains(foreign), "{foreign}");
            }
            assert_eq!(page.matches("<link ").count(), 1, "the empty icon alone");
        }
        // What makes markup of text. (The policy has browsers refuse them as well.)
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(sink), "{sink}");
        }
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }
}
