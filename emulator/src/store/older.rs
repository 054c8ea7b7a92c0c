//! The stores of earlier versions: redb databases, which are read once and become
//! files of the form that is written today.

use std::fs::File;

use anyhow::Result;
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::image::Image;
use super::table::{Change, Row, TABLES};

/// A database that was opened, and what is in it. It is locked until it is dropped.
pub(super) struct Older {
    pub(super) image: Image,
    _database: Database,
}

impl Older {
    /// Reads the database in `file`, in the state after its last commit.
    pub(super) fn read(file: File) -> Result<Self> {
        let database = Database::builder().create_with_backend(FileBackend::new(file)?)?;
        let (transaction, mut image) = (database.begin_read()?, Image::default());
        for table in TABLES {
            let definition = TableDefinition::<&str, &[u8]>::new(table.name());
            let rows = match transaction.open_table(definition) {
                // Not every version had every table.
                Err(TableError::TableDoesNotExist(_)) => continue,
                rows => rows?,
            };
            for row in rows.iter()? {
                let (name, json) = row?;
                let change = Change::Put(Bytes::copy_from_slice(json.value()));
                image.apply(Row { table, name: name.value().to_owned().into(), change })?;
            }
        }
        drop(transaction);
        Ok(Older { image, _database: database })
    }

    /// What was in the database, which is closed.
    pub(super) fn into_image(self) -> Image {
        self.image
    }
}
