//! The file of granted requests: a line for each, appended to and now and then
//! written anew. Each line has a checksum of its own, so that damage to one costs no
//! other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use iotdm_core::decide::ids::GrantedRequest;
use sha2::{Digest as _, Sha256};

use crate::durable;

/// The place of one such file.
#[derive(Debug, Clone)]
pub struct Ids {
    dir: PathBuf,
    file: PathBuf,
}

/// What was found in the file.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// What is whole, in the order of the lines.
    pub requests: Vec<GrantedRequest>,
    /// Where what is not whole is now, and what is wrong with it.
    pub damaged: Option<(PathBuf, String)>,
}

impl Ids {
    /// The file `name` in the state directory `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Ids { dir: dir.to_owned(), file: dir.join(name) }
    }

    /// Reads the file; one that is missing is empty. Lines that are not whole are set
    /// aside, and so is a file that cannot be read: nothing about it stops the daemon.
    pub fn load(&self) -> Found {
        let bytes = match durable::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::default(),
            Err(error) => {
                let aside = durable::unused_name(&self.file);
                let why = format!("it cannot be read: {error}");
                let damaged = match fs::rename(&self.file, &aside) {
                    Ok(()) => (aside, why),
                    Err(error) => {
                        (self.file.clone(), format!("{why}; it cannot be set aside either: {error}"))
                    }
                };
                return Found { requests: Vec::new(), damaged: Some(damaged) };
            }
        };
        let (mut requests, mut rest, mut bad) = (Vec::new(), Vec::new(), 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match parse(line) {
                Some(request) => requests.push(request),
                None => {
                    bad += 1;
                    rest.extend_from_slice(line);
                }
            }
        }
        Found { requests, damaged: (bad > 0).then(|| self.set_aside(&rest, bad)) }
    }

    /// The file itself stays until it is written anew, so that what is whole in it
    /// outlives a power cut at any instant.
    fn set_aside(&self, rest: &[u8], bad: usize) -> (PathBuf, String) {
        let aside = durable::unused_name(&self.file);
        let why = format!("{bad} of its lines are not whole");
        match durable::replace(&self.dir, &aside, rest) {
            Ok(()) => (aside, why),
            Err(error) => (self.file.clone(), format!("{why}; they cannot be set aside: {error}")),
        }
    }

    /// Writes `requests` to the end of the file, or instead of all that is in it. When
    /// it returns, they are synced; after an error some of them may be there.
    pub fn write(&self, requests: &[GrantedRequest], whole: bool) -> io::Result<()> {
        let mut bytes = Vec::new();
        for request in requests {
            let json = serde_json::to_vec(request)?;
            bytes.extend_from_slice(checksum(&json).as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(&json);
            bytes.push(b'\n');
        }
        match whole {
            true => durable::replace(&self.dir, &self.file, &bytes),
            false => durable::append(&self.file, &bytes),
        }
    }

    /// Whether the file is there.
    pub fn exists(&self) -> bool {
        self.file.exists()
    }
}

/// Reads a line: its checksum, a space, JSON and the line end, which only a line that
/// was written to its end has.
fn parse(line: &[u8]) -> Option<GrantedRequest> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(CHECKSUM)?;
    let json = json.strip_prefix(b" ")?;
    if sum != checksum(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// How many hexadecimal digits of its SHA-256 a line has: enough to notice damage,
/// and nobody else writes here.
const CHECKSUM: usize = 16;

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(CHECKSUM / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(number: usize) -> GrantedRequest {
        let id = format!("r-{number}");
        let body = json!({"id": id, "status": "accepted", "message": "m\n", "bootId": "b"});
        GrantedRequest { id, body, begun: number.is_multiple_of(2), at: Some(7_200_000) }
    }

    fn requests(numbers: std::ops::Range<usize>) -> Vec<GrantedRequest> {
        numbers.map(request).collect()
    }

    fn ids() -> (tempfile::TempDir, Ids) {
        let dir = tempfile::tempdir().unwrap();
        let ids = Ids::new(dir.path(), "ids.jsonl");
        (dir, ids)
    }

    fn whole(numbers: std::ops::Range<usize>) -> Found {
        Found { requests: requests(numbers), damaged: None }
    }

    #[test]
    fn what_is_written_is_found_in_its_order() {
        let (_dir, ids) = ids();
        assert_eq!(ids.load(), Found::default());
        // Only what is known to be there is appended to.
        assert_eq!(ids.write(&requests(0..1), false).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!ids.exists());
        ids.write(&requests(0..3), true).unwrap();
        ids.write(&requests(3..5), false).unwrap();
        assert_eq!(ids.load(), whole(0..5));
        ids.write(&requests(4..6), true).unwrap();
        assert_eq!(ids.load(), whole(4..6));
    }

    #[test]
    fn after_every_cut_what_is_whole_is_kept_and_the_rest_set_aside() {
        let (_dir, ids) = ids();
        ids.write(&requests(0..3), true).unwrap();
        let bytes = fs::read(&ids.file).unwrap();
        let ends: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        for length in 0..bytes.len() {
            fs::write(&ids.file, &bytes[..length]).unwrap();
            let found = ids.load();
            let lines = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(found.requests, requests(0..lines), "{length}");
            let rest = bytes[..length].split_at(if lines == 0 { 0 } else { ends[lines - 1] }).1;
            match found.damaged {
                None => assert!(rest.is_empty(), "{length}"),
                Some((aside, why)) => {
                    assert_eq!(fs::read(&aside).unwrap(), rest, "{length}");
                    assert!(why.contains("1 of its lines"), "{why}");
                    fs::remove_file(aside).unwrap();
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_costs_its_line_and_no_other() {
        let (_dir, ids) = ids();
        ids.write(&requests(0..3), true).unwrap();
        let bytes = fs::read(&ids.file).unwrap();
        let line = bytes.len() / 3;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&ids.file, &flipped).unwrap();
            let found = ids.load();
            // A line end that is none any more joins two lines.
            let at_end = bytes[bit / 8] == b'\n';
            let expected = if at_end && bit / 8 / line < 2 { 1 } else { 2 };
            assert_eq!(found.requests.len(), expected, "bit {bit}");
            assert!(found.requests.iter().all(|found| requests(0..3).contains(found)), "bit {bit}");
            fs::remove_file(found.damaged.unwrap().0).unwrap();
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_set_aside_or_named() {
        let (dir, ids) = ids();
        fs::create_dir(&ids.file).unwrap();
        let (aside, _) = ids.load().damaged.unwrap();
        assert_eq!(aside, dir.path().join("ids.damaged-0"));
        assert!(aside.is_dir() && !ids.exists());
        std::os::unix::fs::symlink("/etc/passwd", &ids.file).unwrap();
        let found = ids.load();
        assert_eq!(found.damaged.unwrap().0, dir.path().join("ids.damaged-1"));
        assert!(found.requests.is_empty());
        ids.write(&requests(0..1), true).unwrap();
        assert_eq!(ids.load(), whole(0..1));
    }

    #[test]
    fn nobody_else_may_read_it_and_no_link_is_followed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let (dir, ids) = ids();
        ids.write(&requests(0..1), true).unwrap();
        assert_eq!(fs::metadata(&ids.file).unwrap().permissions().mode() & 0o777, 0o600);
        let theirs = dir.path().join("theirs");
        fs::write(&theirs, "precious").unwrap();
        fs::remove_file(&ids.file).unwrap();
        symlink(&theirs, &ids.file).unwrap();
        assert!(ids.write(&requests(0..1), false).is_err());
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "precious");
    }
}
