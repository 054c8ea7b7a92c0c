//! The version of the service's interface that a request asks for, which decides
//! what a body shows: clients know no more than their version has.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// An `api-version`, such as `2021-04-12` or `2020-05-31-preview`. Later ones are
/// greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(String);

impl ApiVersion {
    /// The version that shows everything.
    pub fn latest() -> Self {
        ApiVersion("9999".into())
    }

    /// Whether twins tell the model that their device has named. Source: the
    /// recorded twins of 2020-03-13, which do not, and those of 2021-04-12.
    pub fn has_models(&self) -> bool {
        self.0.as_str() >= "2020-05-31"
    }

    /// Whether identities and twins tell the scopes of all parents; IoT Edge
    /// devices below others came with 2020-09-30.
    pub fn has_parent_scopes(&self) -> bool {
        self.0.as_str() >= "2020-09-30"
    }
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Infallible;

    /// The latest version, where the request names none.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let named = parts.uri.query().unwrap_or_default().split('&').find_map(|pair| {
            let (name, version) = pair.split_once('=')?;
            (name.eq_ignore_ascii_case("api-version") && !version.is_empty()).then(|| version.to_owned())
        });
        Ok(named.map_or_else(ApiVersion::latest, ApiVersion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_shows() {
        for (version, models, parents) in [
            ("2018-06-30", false, false),
            ("2020-03-13", false, false),
            ("2020-05-31-preview", true, false),
            ("2020-09-30", true, true),
            ("2021-04-12", true, true),
        ] {
            let version = ApiVersion(version.into());
            assert_eq!((version.has_models(), version.has_parent_scopes()), (models, parents), "{version:?}");
        }
        assert!(ApiVersion::latest().has_models());
    }
}
