//! Files that hold secrets: read with a warning where others can read them, and
//! written so that only their owner can.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::str::FromStr;
use std::{fs, io};

use anyhow::Context as _;
use nix::unistd::{AccessFlags, Gid, Group, access, getegid};

use crate::error::Usage;
use crate::output::{arguments, has_secret, say};
use crate::prompt;
use crate::text_file::surrounded_by;

/// The most bytes that are read of a secret: 64 KiB, far more than any token has.
const MOST: u64 = 64 * 1024;

/// Reads the secret in the file at `path`, and warns if others than its owner can
/// read that file. A secret that somebody pastes into a terminal is not shown
/// there. `what` is the option or the key of `ctl.toml` that names the file.
pub fn read<T: FromStr>(what: &str, path: &Path) -> Result<T, Usage>
where
    T::Err: Display,
{
    if has_secret(&path.to_string_lossy()) {
        return Err(Usage(format!(
            "{what} takes the name of a file, and what was given looks like the secret itself; write the secret \
             to a file that only you can read, and give that file's name"
        )));
    }
    let refuse = |why: String| Usage(format!("{what} {}: {why}", path.display()));
    let mut file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let text = if file.is_terminal() {
        prompt::unseen(&file, &format!("{what}: paste the secret and press Enter (it is not shown): "))
    } else {
        whole(&mut file)
    };
    let text = text.map_err(|error| refuse(error.to_string()))?;
    if let Some(around) = surrounded_by(&text) {
        return Err(refuse(around.to_owned()));
    }
    let secret = text.parse().map_err(|error| refuse(format!("{error}")))?;
    if let Some(others) =
        file.metadata().ok().filter(|found| found.is_file()).and_then(|found| readers(&found))
    {
        let remedy = arguments(path.to_str());
        say(format_args!("iotdm-ctl: warning: {others} can read the key in {remedy}; chmod 600 {remedy}"));
    }
    Ok(secret)
}

/// Reads the secret in the file at `path` once more, without a word to the user. The
/// inner error says why there is none; `None` if the file is none that could be read
/// twice, such as a terminal.
pub fn read_again<T: FromStr>(path: &Path) -> Option<Result<T, String>>
where
    T::Err: Display,
{
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return None;
    }
    let text = File::open(path).and_then(|mut file| whole(&mut file)).map_err(|error| error.to_string());
    Some(text.and_then(|text| text.parse().map_err(|error: T::Err| error.to_string())))
}

/// The content of a file that holds a secret.
fn whole(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {} KiB and holds no secret", MOST / 1024)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8; save the text as UTF-8"))
}

/// Who can read a file beside its owner and root, if anybody. A group that is the
/// reader's own is on most systems one that has no other members.
fn readers(file: &fs::Metadata) -> Option<String> {
    let group = Gid::from_raw(file.gid());
    match file.mode() {
        mode if mode & 0o004 != 0 => Some("everybody".to_owned()),
        mode if mode & 0o040 != 0 && group != getegid() => {
            let name =
                Group::from_gid(group).ok().flatten().map_or_else(|| group.to_string(), |found| found.name);
            Some(format!("the group {name}"))
        }
        _ => None,
    }
}

/// Writes `text` and a line feed to the file at `path`. The file is replaced as
/// a whole, so that a key never stands in a file that is half written or that
/// others can read. What is no regular file is left as it is, and is an error.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    check_kind(path)?;
    replace(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a file could be written at `path`; an error says why not. To be called
/// before a secret is made, which would be lost if it could not be written.
pub fn check(path: &Path) -> anyhow::Result<()> {
    check_kind(path)?;
    let folder = folder(path);
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| {
        let (path, folder) = (path.display(), folder.display());
        Usage(format!("--out {path}: no file can be made in {folder}: {}", error.desc()))
    })?;
    let tried = tempfile::NamedTempFile::new_in(folder).map(drop);
    tried.with_context(|| format!("cannot write {}", path.display()))
}

/// Refuses to replace what is no regular file. A link is not followed: whoever
/// can make one would choose where the secret goes.
fn check_kind(path: &Path) -> Result<(), Usage> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    let remedy = "give the name of a file that does not exist yet, or of a regular one";
    Err(Usage(format!("--out {}: this is {what}, which would be replaced; {remedy}", path.display())))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder(path))?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The folder that the file at `path` is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_readable_file_is_replaced_by_a_private_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(check(&path).is_ok() && check(&directory.path().join("gone/x")).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "old").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("gone"), at("dangling")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (path, what) in [
            (at("link"), "a symbolic link"),
            (at("dangling"), "a symbolic link"),
            (at("fifo"), "a FIFO"),
            (at("socket"), "a socket"),
            (directory.path().to_owned(), "a directory"),
            ("/dev/null".into(), "a device"),
            ("/dev/stdout".into(), "a symbolic link"),
        ] {
            let before = fs::symlink_metadata(&path).unwrap();
            for error in [check(&path).unwrap_err(), write(&path, "new").unwrap_err()] {
                assert!(error.is::<Usage>() && error.to_string().contains(what), "{error}");
            }
            let after = fs::symlink_metadata(&path).unwrap();
            assert_eq!((before.ino(), before.file_type()), (after.ino(), after.file_type()), "{path:?}");
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "old");
        assert!(!at("gone").exists());
    }

    #[test]
    fn no_file_can_be_made_where_there_is_no_folder() {
        let error = check(Path::new("/nonexistent/key")).unwrap_err();
        assert!(error.is::<Usage>());
        assert_eq!(
            error.to_string(),
            "--out /nonexistent/key: no file can be made in /nonexistent: No such file or directory"
        );
    }

    #[test]
    fn who_else_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "x").unwrap();
        let own = getegid().as_raw();
        let readers = |mode: u32, gid: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            // Giving a file to a group that one is not in takes root's rights.
            std::os::unix::fs::chown(&path, None, Some(gid)).ok()?;
            Some(readers(&fs::metadata(&path).unwrap()))
        };
        assert_eq!(readers(0o640, own), Some(None));
        assert_eq!(readers(0o604, own), Some(Some("everybody".into())));
        if let Some(found) = readers(0o640, own + 54_321) {
            assert_eq!(found, Some(format!("the group {}", own + 54_321)));
            assert_eq!(readers(0o600, own + 54_321), Some(None));
        }
    }

    #[test]
    fn the_secret_in_place_of_its_file_is_not_repeated() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        for given in
            [key.to_owned(), format!("/home/x/HostName=h;SharedAccessKeyName=s;SharedAccessKey={key}")]
        {
            let error = read::<String>("token_file", Path::new(&given)).unwrap_err().to_string();
            assert!(error.contains("takes the name of a file") && !error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_file_without_end_holds_no_secret() {
        let error = read::<String>("token_file", Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("more than 64 KiB"), "{error}");
    }
}
