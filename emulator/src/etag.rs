//! `If-Match`: a client changes something only if its etag is still the one
//! that the client has read.
//!
//! The header, an etag in the body of a bulk change and that of a job all
//! come down to this one type.

use crate::refusal::{ErrorCode, HubRefusal};

/// What a client demands of the current etag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing: the client sent no `If-Match`.
    Absent,
    /// Any etag will do: `*`.
    Any,
    /// This etag, without its quotes.
    Etag(String),
}

impl IfMatch {
    /// Reads what a client wrote: `"etag"`, the bare etag, `*` or `"*"`.
    pub fn parse(text: &str) -> Self {
        match text.trim().trim_matches('"') {
            "*" => IfMatch::Any,
            etag => IfMatch::Etag(etag.to_owned()),
        }
    }

    /// Refuses with 412 unless the `current` etag is what the client demands.
    pub fn check(&self, current: &str) -> Result<(), HubRefusal> {
        match self {
            IfMatch::Etag(wanted) if wanted != current => {
                Err(ErrorCode::PreconditionFailed
                    .because("the etag does not match; read the current one again"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings() {
        for (text, expected) in [
            ("*", IfMatch::Any),
            ("\"*\"", IfMatch::Any),
            ("\"AAA=\"", IfMatch::Etag("AAA=".into())),
            ("AAA=", IfMatch::Etag("AAA=".into())),
        ] {
            assert_eq!(IfMatch::parse(text), expected);
        }
    }

    #[test]
    fn only_an_etag_can_fail_to_match() {
        assert!(IfMatch::Absent.check("a").is_ok() && IfMatch::Any.check("a").is_ok());
        assert!(IfMatch::Etag("a".into()).check("a").is_ok());
        let refusal = IfMatch::Etag("a".into()).check("b").unwrap_err();
        assert_eq!(refusal.code, ErrorCode::PreconditionFailed);
    }
}
