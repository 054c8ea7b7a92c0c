//! The bytes of the store's file: a head, and frames behind each other.
//!
//! The head is the 16 bytes `iotdm-store 1\n\0\0`. A frame is what was made durable
//! by one sync: four bytes that begin each frame and stand in no JSON, the length of
//! its rows, a CRC-32 of the length and the rows (both numbers of 4 bytes, the lowest
//! first), and the rows. A row is the table's number, what happens (0 removed, 1 put,
//! 2 patched), the lengths of name and JSON (4 bytes each), name and JSON. Behind the
//! last frame there may be zeros: room that is written before it is needed, since a
//! disk syncs faster what does not make a file longer.
//!
//! A crash can tear the last frame only, as each is synced before the next one is
//! written; nobody was told of what is in it, and it counts as not there. What a crash
//! tears is not all written: the file ends too soon, or has zeros there. Where a frame
//! has all its bytes and another checksum, or is torn and a whole one comes after it, the
//! disk has lost what it had confirmed: such a file is damaged, and not read.
//!
//! A file that is written at once, from an earlier version's database or anew, begins
//! and ends with a seal, which is a frame without rows. It gets its name only when it is
//! all there, so where the second seal is missing, it is damaged as well.

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::table::{Change, Row, Table};

/// How the file begins.
pub(super) const HEAD: &[u8; 16] = b"iotdm-store 1\n\0\0";

/// How each frame begins: with bytes that UTF-8, and so JSON, never has.
const FRAME: &[u8; 4] = b"\xf5fr\xff";

/// What helps where a file is damaged.
const REMEDY: &str = "put a copy of the directory back, or remove it to begin afresh";

/// The length of what stands before a frame's rows.
const FRAME_HEAD: usize = 12;

/// Rows that become one frame.
pub(super) struct Frame(Vec<u8>);

/// What a file is by its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing was ever confirmed in it: a first start was killed.
    New,
    /// Frames follow the head.
    Frames,
    /// An earlier version's database.
    Database,
    /// A later version's file.
    Later,
    /// No store.
    Other,
}

/// What file begins so.
pub(super) fn kind(bytes: &[u8]) -> Kind {
    let unwritten = || bytes.iter().all(|byte| *byte == 0);
    if bytes.starts_with(HEAD) {
        Kind::Frames
    } else if bytes.starts_with(b"redb") {
        Kind::Database
    } else if bytes.starts_with(b"iotdm-store ") && bytes.len() >= HEAD.len() {
        Kind::Later
    } else if HEAD.starts_with(bytes) || unwritten() {
        Kind::New
    } else {
        Kind::Other
    }
}

/// Hands each row of the file `bytes` to `each`, in their order; returns where the
/// last whole frame ends.
pub(super) fn read(bytes: &Bytes, mut each: impl FnMut(Row) -> Result<()>) -> Result<usize> {
    let (mut at, mut seals, mut sealed) = (HEAD.len(), 0, false);
    while let Some(rows) = frame(bytes, at) {
        let end = at + FRAME_HEAD + rows.len();
        if rows.is_empty() {
            sealed |= at == HEAD.len();
            seals += 1;
        }
        read_rows(&rows, &mut each).with_context(|| format!("what stands at byte {at} is unreadable"))?;
        at = end;
    }
    // Most often nothing or zeros are left.
    let rest = bytes.get(at..).unwrap_or_default();
    let begins = |(place, byte): (usize, &u8)| (*byte == FRAME[0]).then_some(at + place);
    let mut candidates = rest.iter().enumerate().filter_map(begins).filter(|place| *place > at);
    if let Some(later) = candidates.find(|place| frame(bytes, *place).is_some()) {
        bail!(
            "it is damaged at byte {at}, and not by a crash, since what was confirmed later stands at byte {later}; \
             {REMEDY}"
        );
    }
    if sealed && seals < 2 {
        bail!(
            "it is damaged at byte {at}, and not by a crash, since its end was durable before its name; {REMEDY}"
        );
    }
    if !is_torn(rest) {
        bail!(
            "it is damaged at byte {at}, and not by a crash, which would have left something out; {REMEDY}"
        );
    }
    Ok(at)
}

/// Whether `rest`, in which no whole frame begins, can be what a crash leaves of one: a
/// frame that is not all there, or nothing.
fn is_torn(rest: &[u8]) -> bool {
    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEAD>() else { return true };
    let [m0, m1, m2, m3, l0, l1, l2, l3, s0, s1, s2, s3] = *head;
    if m0 == 0 || written < FRAME_HEAD {
        return true;
    }
    // Rows of which the sum is right are all there, so the bytes before them have changed.
    // The last row's last byte is one of a name or of JSON, and never zero.
    let rows = behind.get(..written - FRAME_HEAD).unwrap_or_default();
    let length = u32::try_from(rows.len()).unwrap_or_default().to_le_bytes();
    if !rows.is_empty() && crc(length, rows) == u32::from_le_bytes([s0, s1, s2, s3]) {
        return false;
    }
    if [m0, m1, m2, m3] != *FRAME {
        return has_gap(rest.get(..written).unwrap_or_default());
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let Some(rows) = behind.get(..length) else { return true };
    rows.last().is_none_or(|byte| *byte == 0) || has_gap(head) || has_gap(rows)
}

/// Whether more zeros follow each other than a frame can have, which are at most 9: a row
/// without name and JSON.
fn has_gap(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte != 0).any(|zeros| zeros.len() > 9)
}

/// The rows of the frame at `at`, if a whole one stands there.
fn frame(bytes: &Bytes, at: usize) -> Option<Bytes> {
    let head = bytes.get(at..at.checked_add(FRAME_HEAD)?)?;
    let (magic, numbers) = head.split_first_chunk::<4>()?;
    let (length, rest) = numbers.split_first_chunk::<4>()?;
    let sum = rest.first_chunk::<4>()?;
    if magic != FRAME {
        return None;
    }
    let begin = at + FRAME_HEAD;
    let end = begin.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let rows = bytes.get(begin..end)?;
    (crc(*length, rows) == u32::from_le_bytes(*sum)).then(|| bytes.slice(begin..end))
}

fn crc(length: [u8; 4], rows: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(rows);
    hasher.finalize()
}

fn read_rows(rows: &Bytes, each: &mut impl FnMut(Row) -> Result<()>) -> Result<()> {
    let mut left = rows.clone();
    while !left.is_empty() {
        let short = "a row has fewer bytes than it says";
        let head = left.first_chunk::<10>().copied().context(short)?;
        let [table, what, n0, n1, n2, n3, j0, j1, j2, j3] = head;
        let length = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (name, json) = (length([n0, n1, n2, n3]), length([j0, j1, j2, j3]));
        let mut row = left.split_off(head.len());
        let whole = name.checked_add(json).filter(|whole| *whole <= row.len()).context(short)?;
        left = row.split_off(whole);
        let json = row.split_off(name);
        let table = Table::of_number(table).with_context(|| format!("no table has the number {table}"))?;
        let change = match what {
            0 => Change::Remove,
            1 => Change::Put(json),
            2 => Change::Patch(json),
            other => bail!("no change has the number {other}"),
        };
        each(Row { table, name: row, change })?;
    }
    Ok(())
}

impl Frame {
    /// A frame without rows.
    pub(super) fn new() -> Self {
        Frame([&FRAME[..], &[0; FRAME_HEAD - 4]].concat())
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &Row) -> Result<()> {
        let (what, json): (u8, &[u8]) = match &row.change {
            Change::Remove => (0, &[]),
            Change::Put(json) => (1, json),
            Change::Patch(json) => (2, json),
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map(u32::to_le_bytes);
        self.0.extend([row.table.number(), what]);
        self.0.extend(length(&row.name)?);
        self.0.extend(length(json)?);
        self.0.extend_from_slice(&row.name);
        self.0.extend_from_slice(json);
        Ok(())
    }

    /// How many bytes it has so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes for the file; none where there are no rows.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        if self.len() == FRAME_HEAD { Ok(Vec::new()) } else { self.with_head() }
    }

    /// The bytes of a frame without rows.
    pub(super) fn seal() -> Result<Vec<u8>> {
        Frame::new().with_head()
    }

    fn with_head(mut self) -> Result<Vec<u8>> {
        let rows = self.0.get(FRAME_HEAD..).unwrap_or_default();
        let length = u32::try_from(rows.len()).context("too much at once")?.to_le_bytes();
        let sum = crc(length, rows).to_le_bytes();
        let head = FRAME.iter().chain(&length).chain(&sum);
        self.0.iter_mut().zip(head).for_each(|(place, byte)| *place = *byte);
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{DEVICES, JOBS};
    use super::*;

    fn row(table: Table, name: &str, change: Change) -> Row {
        Row { table, name: name.to_owned().into(), change }
    }

    /// A file with these frames, and where each ends.
    fn file(frames: &[Vec<Row>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (HEAD.to_vec(), Vec::new());
        for rows in frames {
            let mut frame = Frame::new();
            rows.iter().for_each(|row| frame.push(row).unwrap());
            bytes.extend(frame.finish().unwrap());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn three() -> (Vec<u8>, Vec<usize>) {
        file(&[
            vec![row(DEVICES, "a", Change::Put("{}".into())), row(JOBS, "", Change::Put("[1]".into()))],
            vec![row(DEVICES, "a", Change::Patch(r#"{"b":"ä"}"#.into()))],
            vec![row(DEVICES, "a", Change::Remove)],
        ])
    }

    /// The rows of a file as text, and where its last frame ends.
    fn rows(bytes: Vec<u8>) -> Result<(Vec<String>, usize)> {
        let mut rows = Vec::new();
        let end = read(&bytes.into(), |row| {
            rows.push(format!("{} {:?} {:?}", row.table.name(), row.name, row.change));
            Ok(())
        })?;
        Ok((rows, end))
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, ends) = three();
        let (read, end) = rows(bytes).unwrap();
        assert_eq!(read[1], r#"jobs b"" Put(b"[1]")"#);
        assert_eq!((read.len(), end), (4, ends[2]));
        assert_eq!(Frame::new().finish().unwrap(), Vec::<u8>::new(), "nothing to write");
    }

    #[test]
    fn wherever_a_file_is_cut_the_frames_before_are_left_and_no_half_one() {
        let (bytes, ends) = three();
        let all = rows(bytes.clone()).unwrap().0;
        let count = [0, 2, 3, 4];
        for cut in HEAD.len()..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            // Cut off, and with zeros in the place of what was not written.
            for room in [0, 5000] {
                let mut torn = bytes[..cut].to_vec();
                torn.extend(vec![0; room]);
                let (read, end) = rows(torn).unwrap();
                assert_eq!(read, all[..count[whole]], "cut at {cut}");
                let expected = if whole == 0 { HEAD.len() } else { ends[whole - 1] };
                assert_eq!(end, expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let (bytes, ends) = three();
        for place in HEAD.len()..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            // Also in the last frame, with room behind it and without.
            for room in [0, 5000] {
                let mut changed = changed.clone();
                changed.extend(vec![0; room]);
                let begin = ends.iter().rfind(|end| **end <= place).copied().unwrap_or(HEAD.len());
                let error = format!("{:#}", rows(changed).unwrap_err());
                assert!(error.contains(&format!("damaged at byte {begin},")), "{place}: {error}");
            }
        }
    }

    #[test]
    fn a_last_frame_of_which_a_sector_was_not_written_is_torn() {
        let name = |n: usize| format!("{n:0>2000}");
        let frame = |n| vec![row(DEVICES, &name(n), Change::Put("[]".into()))];
        // Wherever in a sector the frame begins.
        for first in 0..512 {
            let before = vec![row(JOBS, &"x".repeat(first), Change::Put("[]".into()))];
            let (bytes, ends) = file(&[before, frame(1)]);
            for sector in ends[0] / 512..=(ends[1] - 1) / 512 {
                let mut torn = bytes.clone();
                let unwritten = (sector * 512).max(ends[0])..((sector + 1) * 512).min(ends[1]);
                torn[unwritten].fill(0);
                torn.extend([0; 700]);
                let (read, end) = rows(torn).unwrap();
                assert_eq!((read.len(), end), (1, ends[0]), "{first}, sector {sector}");
            }
        }
    }

    #[test]
    fn what_was_written_at_once_is_all_there_or_damaged() {
        let (bytes, ends) = three();
        let seal = Frame::seal().unwrap();
        let mut sealed = [&HEAD[..], &seal, &bytes[HEAD.len()..], &seal].concat();
        let end = sealed.len();
        assert_eq!(rows(sealed.clone()).unwrap().1, end);
        for place in HEAD.len()..end {
            let (mut changed, mut cut) = (sealed.clone(), sealed[..place].to_vec());
            changed[place] ^= 1;
            cut.extend([0; 600]);
            for damaged in [changed, cut] {
                let outcome = rows(damaged);
                // A file of which nothing is left is for the directory to judge.
                let nothing = outcome.as_ref().is_ok_and(|(_, end)| *end == HEAD.len());
                assert!(outcome.is_err() || nothing && place < HEAD.len() + seal.len(), "{place}");
            }
        }
        // What is appended to it can be torn.
        sealed.extend(&bytes[HEAD.len()..ends[0] - 1]);
        assert_eq!(rows(sealed).unwrap().1, end);
    }

    #[test]
    fn a_file_is_known_by_its_beginning() {
        for (bytes, expected) in [
            (&b""[..], Kind::New),
            (b"iotdm-st", Kind::New),
            (&[0; 4096], Kind::New),
            (HEAD, Kind::Frames),
            (b"redb\x1a\x0a\xa9\x0d\x0a", Kind::Database),
            (b"iotdm-store 2\n\0\0", Kind::Later),
            (b"not a database", Kind::Other),
        ] {
            assert_eq!(kind(bytes), expected, "{bytes:?}");
        }
    }
}
