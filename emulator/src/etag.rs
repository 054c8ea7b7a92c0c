//! Etags, and `If-Match`: a client changes something only if its etag is still
//! the one that the client has read.
//!
//! The hub's etags are counters in base64: of identities and configurations a
//! decimal number, of twins eight bytes. What clients may write in `If-Match`, and
//! what it means, differs by resource; all of it comes down to [`IfMatch`].
//! Source: the recorded tests of the .NET service SDK; for etags without quotes,
//! issues of the Java SDK (292, 574), the Node SDK (606) and the Python SDK (716).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::random::{self, NoRandom};
use crate::refusal::{ErrorCode, HubRefusal};

/// The etag of a configuration that was just made: the number 1.
pub const FIRST_OF_CONFIGURATION: &str = "MQ==";

/// What a client demands of the current etag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing: the client sent no `If-Match`.
    Absent,
    /// `""`: there must be nothing yet.
    Empty,
    /// Any etag will do: `*`, or `"*"`.
    Any,
    /// This etag, which stood in quotes; here it has none.
    Etag(String),
    /// Text without quotes, which is no etag in HTTP.
    Bare(String),
}

impl IfMatch {
    /// Reads the header: `"etag"`, `W/"etag"`, `*`, `"*"` or `""`.
    pub fn parse(header: &str) -> Self {
        let text = header.trim();
        let quoted = text.strip_prefix("W/").unwrap_or(text).strip_prefix('"');
        match quoted.and_then(|rest| rest.strip_suffix('"')) {
            Some("") => IfMatch::Empty,
            Some("*") => IfMatch::Any,
            Some(etag) => IfMatch::Etag(etag.to_owned()),
            None if text == "*" => IfMatch::Any,
            None if text.is_empty() => IfMatch::Empty,
            None => IfMatch::Bare(text.to_owned()),
        }
    }

    /// Reads an etag within JSON, where it has no quotes of its own. Without one
    /// any etag will do, also where a bulk change names a mode that is about
    /// etags.
    pub fn in_json(etag: Option<&str>) -> Self {
        match etag.map(|etag| etag.trim().trim_matches('"')) {
            None | Some("" | "*") => IfMatch::Any,
            Some(etag) => IfMatch::Etag(etag.to_owned()),
        }
    }

    /// Whether a PUT of an identity or configuration creates it, rather than
    /// changes it.
    pub fn creates(&self) -> bool {
        matches!(self, IfMatch::Absent | IfMatch::Empty)
    }

    /// Refuses with 412 unless `current`, the etag of an identity, is what the
    /// client demands. To change or delete one, a client has to demand something.
    pub fn check_numbered(&self, current: &str) -> Result<(), HubRefusal> {
        let failed = |why: String| Err(ErrorCode::PreconditionFailed.because(why));
        match self {
            IfMatch::Any => Ok(()),
            IfMatch::Etag(wanted) if wanted == current => Ok(()),
            IfMatch::Etag(wanted) => match (number(current), number(wanted)) {
                (Some(existing), Some(new)) => failed(format!(
                    "Precondition failed: Device version did not match, existingVersion:{existing} newVersion:{new}"
                )),
                _ => failed("Precondition failed: Invalid ETag".into()),
            },
            IfMatch::Absent | IfMatch::Empty | IfMatch::Bare(_) => {
                failed("Precondition failed: Invalid ETag".into())
            }
        }
    }

    /// Refuses with 412 unless `current`, the etag of a configuration, is what the
    /// client demands. The official Python client writes these etags without quotes.
    pub fn check_configuration(&self, current: &str) -> Result<(), HubRefusal> {
        match self {
            IfMatch::Bare(wanted) => IfMatch::Etag(wanted.clone()).check_numbered(current),
            _ => self.check_numbered(current),
        }
    }

    /// Refuses with 412 unless `current`, the etag of a twin, is what the client
    /// demands. A client that writes its etag without quotes demands nothing.
    pub fn check_twin(&self, current: &str) -> Result<(), HubRefusal> {
        match self {
            IfMatch::Etag(wanted) if wanted != current => {
                Err(ErrorCode::PreconditionFailed.because("PreconditionFailed, ETag may be invalid."))
            }
            _ => Ok(()),
        }
    }

    /// Refuses with 412 unless `current`, an etag of the provisioning service, is
    /// what the client demands, if anything.
    pub fn check(&self, current: &str) -> Result<(), HubRefusal> {
        match self {
            IfMatch::Etag(wanted) | IfMatch::Bare(wanted) if wanted != current => {
                Err(ErrorCode::PreconditionFailed
                    .because("the etag does not match; read the current one again"))
            }
            _ => Ok(()),
        }
    }
}

/// The etag of an identity that was just made: a number of nine digits.
pub fn first() -> Result<String, NoRandom> {
    Ok(STANDARD.encode((100_000_000 + u64::from(random::number()?) % 900_000_000).to_string()))
}

/// The etag that follows `etag`, of an identity or configuration.
pub fn next(etag: &str) -> Result<String, NoRandom> {
    match number(etag).and_then(|number| number.checked_add(1)) {
        Some(next) => Ok(STANDARD.encode(next.to_string())),
        // Stores of earlier versions have etags that are no numbers.
        None => first(),
    }
}

/// The etag of a twin that was just made.
pub fn first_of_twin() -> String {
    STANDARD.encode(1_u64.to_be_bytes())
}

/// The etag that follows `etag`, of a twin.
pub fn next_of_twin(etag: &str) -> String {
    let bytes = STANDARD.decode(etag).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    STANDARD.encode(bytes.map_or(0, u64::from_be_bytes).wrapping_add(1).to_be_bytes())
}

/// The number that an etag of an identity or configuration stands for.
fn number(etag: &str) -> Option<u64> {
    String::from_utf8(STANDARD.decode(etag).ok()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etag(text: &str) -> IfMatch {
        IfMatch::Etag(text.into())
    }

    #[test]
    fn all_spellings() {
        for (text, expected) in [
            ("*", IfMatch::Any),
            ("\"*\"", IfMatch::Any),
            ("\"\"", IfMatch::Empty),
            ("", IfMatch::Empty),
            ("\"AAA=\"", etag("AAA=")),
            (" W/\"AAA=\" ", etag("AAA=")),
            ("AAA=", IfMatch::Bare("AAA=".into())),
            ("\"", IfMatch::Bare("\"".into())),
        ] {
            assert_eq!(IfMatch::parse(text), expected, "{text}");
        }
        for (text, expected) in [
            (None, IfMatch::Any),
            (Some(""), IfMatch::Any),
            (Some("*"), IfMatch::Any),
            (Some("AAA="), etag("AAA=")),
            (Some("\"AAA=\""), etag("AAA=")),
        ] {
            assert_eq!(IfMatch::in_json(text), expected, "{text:?}");
        }
    }

    #[test]
    fn identities_ask_for_a_demand_and_twins_do_not() {
        let (seven, eight) = ("Nw==", "OA==");
        for (demand, of_identity, of_twin) in [
            (IfMatch::Any, true, true),
            (etag(seven), true, true),
            (etag(eight), false, false),
            (IfMatch::Bare(seven.into()), false, true),
            (IfMatch::Bare(eight.into()), false, true),
            (IfMatch::Empty, false, true),
            (IfMatch::Absent, false, true),
        ] {
            assert_eq!(demand.check_numbered(seven).is_ok(), of_identity, "{demand:?}");
            assert_eq!(demand.check_twin(seven).is_ok(), of_twin, "{demand:?}");
            let of_configuration = of_identity || demand == IfMatch::Bare(seven.into());
            assert_eq!(demand.check_configuration(seven).is_ok(), of_configuration, "{demand:?}");
        }
        let stale = etag(seven).check_numbered(eight).unwrap_err();
        assert_eq!(stale.code, ErrorCode::PreconditionFailed);
        assert!(stale.message.ends_with("did not match, existingVersion:8 newVersion:7"), "{stale}");
        assert!(etag("x").check_numbered(eight).unwrap_err().message.ends_with("Invalid ETag"));
    }

    #[test]
    fn etags_count() {
        assert_eq!(next(FIRST_OF_CONFIGURATION).unwrap(), "Mg==");
        assert_eq!(next("OTk5").unwrap(), "MTAwMA==");
        assert_eq!(number(&first().unwrap()).unwrap().to_string().len(), 9);
        assert!(number(&next("7jmaf/yz0Xc=").unwrap()).is_some(), "from an earlier version");
        assert_eq!(first_of_twin(), "AAAAAAAAAAE=");
        assert_eq!(next_of_twin("AAAAAAAAAAE="), "AAAAAAAAAAI=");
        assert_eq!(next_of_twin("//////////8="), "AAAAAAAAAAA=");
    }
}
