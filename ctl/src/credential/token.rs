//! A ready-made token for a hub, and the error of having none.

use std::fmt;
use std::str::FromStr;

use iotdm_proto::Time;
use iotdm_proto::sas::SasToken;

use crate::text_file::surrounded_by;

/// A token that was made elsewhere: a SAS token, or one of Microsoft Entra ID.
#[derive(Clone)]
pub struct Token {
    /// The value of the header `Authorization`.
    pub(super) header: String,
    /// When a SAS token expires. `None` for a token of Entra ID, of which only the
    /// hub may read the content: its form may change at any time.
    pub(super) expiry: Option<Time>,
}

/// No token could be had, so the hub cannot be asked. The sentence says why and
/// what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NoToken(pub(super) String);

impl FromStr for Token {
    type Err = String;

    /// Reads a token as it stands in a file or an environment variable.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(around) = surrounded_by(text) {
            return Err(around.to_owned());
        }
        let text = text.trim();
        let bare = text.strip_prefix("Bearer ").unwrap_or(text);
        if bare.is_empty() || bare.chars().any(char::is_control) {
            return Err("expected one token: SharedAccessSignature …, or one of Entra ID".into());
        }
        if !bare.starts_with("SharedAccessSignature ") {
            return Ok(Token { header: format!("Bearer {bare}"), expiry: None });
        }
        let sas: SasToken = bare.parse().map_err(|error| format!("not a SAS token: {error}"))?;
        let seconds = i64::try_from(sas.expiry()).unwrap_or(i64::MAX);
        let expiry = Some(Time::from_unix_millis(seconds.saturating_mul(1000)));
        Ok(Token { header: bare.to_owned(), expiry })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_both_kinds() {
        for (text, header, expiry) in [
            (
                "SharedAccessSignature sr=h&sig=eA%3D%3D&se=1\n",
                Some("SharedAccessSignature sr=h&sig=eA%3D%3D&se=1"),
                Some(1),
            ),
            ("eyJ0.x.y", Some("Bearer eyJ0.x.y"), None),
            ("Bearer eyJ0.x.y", Some("Bearer eyJ0.x.y"), None),
            (" \n", None, None),
            ("a\nb", None, None),
            ("\"eyJ0.x.y\"", None, None),
            ("\u{feff}eyJ0.x.y", None, None),
            ("SharedAccessSignature sr=h", None, None),
        ] {
            let token = text.parse::<Token>();
            let found = token.as_ref().ok();
            assert_eq!(found.map(|token| token.header.as_str()), header, "{text:?}");
            let seconds = found.and_then(|token| token.expiry).map(|expiry| expiry.unix_seconds());
            assert_eq!(seconds, expiry, "{text:?}");
            assert!(!format!("{token:?}").contains("eyJ0"));
        }
    }
}
