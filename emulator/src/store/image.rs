//! What the frames of a store add up to: the values of all tables, unparsed.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use bytes::Bytes;

use super::frames::{self, Frame, HEAD};
use super::table::{Change, Row, TABLES, Table};

/// How large a frame gets where many values are written at once, in bytes.
const LARGE_FRAME: usize = 1 << 20;

/// A value as it is stored: its JSON, and how it has changed since, in the order of
/// the changes.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The whole value as it was last written.
    pub json: Bytes,
    /// Its changes since.
    pub patches: Vec<Bytes>,
}

/// The values of all tables, by the table's number and by name. There are few tables, and
/// their numbers are found sooner than hashed.
#[derive(Default)]
pub(super) struct Image(BTreeMap<u8, HashMap<Bytes, Raw>>);

impl Image {
    /// What the file `bytes` has, and where its last whole frame ends.
    pub(super) fn read(bytes: &Bytes) -> Result<(Self, usize)> {
        let mut image = Image::default();
        let end = frames::read(bytes, |row| image.apply(row))?;
        Ok((image, end))
    }

    /// Takes a change in.
    pub(super) fn apply(&mut self, row: Row) -> Result<()> {
        let table = self.0.entry(row.table.number()).or_default();
        match row.change {
            Change::Remove => drop(table.remove(&row.name)),
            Change::Put(json) => drop(table.insert(row.name, Raw { json, patches: Vec::new() })),
            Change::Patch(patch) => {
                let value = table.get_mut(&row.name);
                value.context("a value that is not there has a change")?.patches.push(patch);
            }
        }
        Ok(())
    }

    /// The value of this name.
    pub(super) fn get(&self, table: Table, name: &str) -> Option<&Raw> {
        self.0.get(&table.number())?.get(name.as_bytes())
    }

    /// All values of a table, by name, in the order of the names.
    pub(super) fn all(&self, table: Table) -> Result<Vec<(String, Raw)>> {
        let values = self.0.get(&table.number()).into_iter().flatten();
        let named = |(name, raw): (&Bytes, &Raw)| {
            let text = std::str::from_utf8(name).context("a stored name is no text")?;
            Ok((text.to_owned(), raw.clone()))
        };
        let mut all = values.map(named).collect::<Result<Vec<_>>>()?;
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(all)
    }

    /// About how many bytes a file would have with nothing but these values.
    pub(super) fn size(&self) -> usize {
        let size = |(name, raw): (&Bytes, &Raw)| {
            let changes: usize = raw.patches.iter().map(Bytes::len).sum();
            name.len() + raw.json.len() + changes.min(raw.json.len())
        };
        self.0.values().flatten().map(size).sum()
    }

    /// The bytes of a file with nothing but these values, up to the seal that ends it,
    /// each value as short as `fold` makes it: handed a table and a value with changes, `fold` returns the JSON
    /// that they come to, where it can.
    pub(super) fn write(
        &self,
        fold: impl Fn(Table, &Raw) -> Result<Option<Vec<u8>>>,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        write(HEAD)?;
        write(&Frame::seal()?)?;
        let mut frame = Frame::new();
        for table in TABLES {
            for (name, raw) in self.0.get(&table.number()).into_iter().flatten() {
                let (json, patches) = match fold(table, raw)? {
                    Some(json) => (json.into(), &[][..]),
                    None => (raw.json.clone(), raw.patches.as_slice()),
                };
                let row = |change| Row { table, name: name.clone(), change };
                frame.push(&row(Change::Put(json)))?;
                for patch in patches {
                    frame.push(&row(Change::Patch(patch.clone())))?;
                }
                if frame.len() > LARGE_FRAME {
                    write(&std::mem::replace(&mut frame, Frame::new()).finish()?)?;
                }
            }
        }
        write(&frame.finish()?)
    }
}
