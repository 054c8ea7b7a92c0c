//! Reads a secret from a file.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr;

use crate::error::Usage;
use crate::output::say;

/// Reads the secret in the file at `path`, and warns if everybody can read that
/// file. `what` is the option or the key of `ctl.toml` that names the file.
pub(super) fn read<T: FromStr>(what: &str, path: &Path) -> Result<T, Usage>
where
    T::Err: Display,
{
    let refuse = |why: String| Usage(format!("{what} {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let secret = text.parse().map_err(|error| refuse(format!("{error}")))?;
    let open = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if open {
        say(format_args!(
            "iotdm-ctl: warning: everybody can read the key in {0}; chmod 600 {0}",
            path.display()
        ));
    }
    Ok(secret)
}
