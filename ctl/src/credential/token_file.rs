//! A token in a file that something else renews, such as a timer that logs in.

use std::cell::RefCell;
use std::path::PathBuf;

use iotdm_proto::Time;

use super::token::{NoToken, Token};
use crate::secret_file;

/// A token in a file, which is read again for each HTTP request: a run may last
/// longer than a token, and of a token of Microsoft Entra ID nobody but the hub can
/// tell the end.
pub struct TokenFile {
    path: PathBuf,
    /// The newest token that the file had.
    newest: RefCell<Token>,
}

impl TokenFile {
    /// The token file at `path`, in which `token` has been found.
    pub fn new(path: PathBuf, token: Token) -> Self {
        TokenFile { path, newest: RefCell::new(token) }
    }

    /// The newest token, which must be valid at the instant `now`. What the file has
    /// while it is written, or once it is gone, does not count as long as the token
    /// before lasts.
    pub(super) fn token(&self, now: Time) -> Result<Token, NoToken> {
        let read = secret_file::read_again::<Token>(&self.path);
        if let Some(Ok(token)) = &read {
            *self.newest.borrow_mut() = token.clone();
        }
        let token = self.newest.borrow().clone();
        match (token.expiry, read) {
            (Some(expiry), Some(Err(why))) if expiry <= now => Err(NoToken(format!(
                "the token in {} has expired, at {expiry}, and the file has no new one: {why}",
                self.path.display()
            ))),
            (Some(expiry), _) if expiry <= now => Err(NoToken(format!(
                "the token in {} has expired, at {expiry}; put a new one into it",
                self.path.display()
            ))),
            _ => Ok(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_newest_token_that_can_be_read_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let sas = |expiry: u64| format!("SharedAccessSignature sr=h&sig=eA%3D%3D&se={expiry}");
        let file = TokenFile::new(path.clone(), sas(100).parse().unwrap());
        let at = |seconds: i64| file.token(Time::from_unix_millis(seconds * 1000)).map(|token| token.header);
        assert_eq!(at(99).unwrap(), sas(100), "though the file is not there");
        assert!(at(100).unwrap_err().to_string().contains("and the file has no new one: No such file"));
        fs::write(&path, sas(100)).unwrap();
        assert!(at(100).unwrap_err().to_string().ends_with("put a new one into it"));
        fs::write(&path, sas(200)).unwrap();
        assert_eq!(at(100).unwrap(), sas(200));
        fs::write(&path, "").unwrap();
        assert_eq!(at(150).unwrap(), sas(200), "while the file is being written");
        fs::write(&path, "eyJ0.x.y\n").unwrap();
        assert_eq!(at(9999).unwrap(), "Bearer eyJ0.x.y");
    }
}
