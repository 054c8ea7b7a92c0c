//! Whether an initrd is whole: one that was cut off, as by a full `/boot` or a
//! power cut during an upgrade, ends in a machine that does not come back.
//!
//! An initrd is a row of cpio archives, the last of them compressed. Source: the
//! kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// The program that tests each kind of compressed data, by the bytes that the data
/// begin with.
const TESTS: [(&[u8], &[&str]); 7] = [
    (b"\x1f\x8b", &["gzip", "-t"]),
    (b"\x28\xb5\x2f\xfd", &["zstd", "-q", "-t"]),
    (b"\xfd7zXZ\0", &["xz", "-t"]),
    (b"\x5d\0\0", &["xz", "--format=lzma", "-t"]),
    (b"\x02\x21\x4c\x18", &["lz4", "-q", "-t"]),
    (b"BZh", &["bzip2", "-t"]),
    (b"\x89LZO", &["lzop", "-t"]),
];
/// The length of an entry's header, in bytes.
const HEADER: usize = 110;
/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!\0";
/// The longest name that an entry can have, in bytes: `PATH_MAX`.
const MAX_NAME: u64 = 4096;
/// What gzip ends with where it has something to say about data that are whole.
const GZIP_WARNS: i32 = 2;

/// Errors tell why the initrd is not whole.
pub fn check(file: &Path) -> anyhow::Result<()> {
    let opened = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    whole(BufReader::new(opened)).with_context(|| format!("{} is not whole", file.display()))
}

fn whole(mut source: BufReader<File>) -> anyhow::Result<()> {
    let mut ended = false;
    loop {
        let start = source.fill_buf()?;
        if start.is_empty() {
            ensure!(ended, "it ends before its last archive does");
            return Ok(());
        }
        if start.starts_with(b"0707") {
            ended = entry(&mut source)?;
        } else if start.starts_with(b"\0") && ended {
            // Between archives there may be zeros.
            let zeros = start.iter().take_while(|byte| **byte == 0).count();
            source.consume(zeros);
        } else {
            return compressed(source);
        }
    }
}

/// Passes over an entry; tells whether it was the last of its archive.
fn entry(source: &mut BufReader<File>) -> anyhow::Result<bool> {
    let mut header = [0; HEADER];
    source.read_exact(&mut header)?;
    let number = |place: usize| {
        let digits = header.get(place..place + 8).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).context("an entry has no valid header")
    };
    let (length, name_length) = (number(54)?, number(94)?);
    ensure!(name_length <= MAX_NAME, "an entry has no valid header");
    let mut name = Vec::new();
    source.take(name_length).read_to_end(&mut name)?;
    ensure!(name.len() as u64 == name_length, "it ends within an entry");
    // Name and content are padded to multiples of 4 bytes.
    let padding = |length: u64| length.next_multiple_of(4) - length;
    let rest = padding(HEADER as u64 + name_length) + length + padding(length);
    let last = name == TRAILER;
    // Padding may be missing at the very end.
    let least = if last { 0 } else { rest - padding(length) };
    let left = source.get_ref().metadata()?.len() - source.stream_position()?;
    ensure!(least <= left, "it ends within an entry");
    source.seek_relative(i64::try_from(rest.min(left))?)?;
    Ok(last)
}

/// Has the rest tested by the program for its kind.
fn compressed(mut source: BufReader<File>) -> anyhow::Result<()> {
    let start = source.fill_buf()?;
    let Some((_, test)) = TESTS.iter().find(|(magic, _)| start.starts_with(magic)) else {
        bail!("it has data of an unknown kind where an archive should begin");
    };
    let [program, arguments @ ..] = test else { bail!("no program tests it") };
    let position = source.stream_position()?;
    let mut file = source.into_inner();
    file.seek(SeekFrom::Start(position))?;
    let tested = Command::new(program).args(arguments).stdin(file).stdout(Stdio::null()).output();
    let tested = match tested {
        // Without the program nobody can tell.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        tested => tested.with_context(|| format!("{program} cannot be run"))?,
    };
    if tested.status.success() || (*program == "gzip" && tested.status.code() == Some(GZIP_WARNS)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tested.stderr);
    bail!("{}", said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or(program).trim())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// A cpio archive with one file of this length.
    fn archive(length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, length) in [("kernel/x86/microcode\0", length), ("TRAILER!!!\0", 0)] {
            let numbers = [1, 0o100_644, 0, 0, 1, 0, length, 0, 0, 0, 0, name.len(), 0];
            bytes.extend(b"070701");
            numbers.iter().for_each(|number| bytes.extend(format!("{number:08X}").into_bytes()));
            bytes.extend(name.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.resize((bytes.len() + length).next_multiple_of(4), 7);
        }
        bytes
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        gzip.stdin.take().unwrap().write_all(bytes).unwrap();
        gzip.wait_with_output().unwrap().stdout
    }

    #[test]
    fn what_is_whole_passes_and_every_truncation_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |bytes: &[u8]| {
            fs::write(file.path(), bytes).unwrap();
            super::check(file.path()).map_err(|error| format!("{error:#}"))
        };
        let (early, zeros, main) = (archive(301), vec![0; 512], gzipped(&archive(5000)));
        let whole = [early.clone(), zeros.clone(), main.clone()].concat();
        for good in [early.clone(), main.clone(), whole.clone(), [whole.clone(), zeros].concat()] {
            assert_eq!(check(&good), Ok(()));
        }
        // Cut off where only the early archive is left, nobody can tell.
        let only_early = early.len() - 3..early.len() + 512;
        for length in (0..whole.len()).step_by(7).filter(|length| !only_early.contains(length)) {
            let said = check(&whole[..length]).unwrap_err();
            assert!(said.contains(" is not whole: "), "{length}: {said}");
        }
        let said = check(&[early, b"\0\0\0\0ELF".to_vec()].concat()).unwrap_err();
        assert!(said.ends_with("it has data of an unknown kind where an archive should begin"), "{said}");
        assert!(super::check(Path::new("/nowhere")).unwrap_err().to_string().contains("cannot be read"));
    }
}
