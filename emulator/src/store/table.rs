//! What the store keeps, by kind and name.

use bytes::Bytes;

/// A table: JSON by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Tells the table in the file; never given to another one.
    number: u8,
    /// What the table is called, also in the databases of earlier versions.
    name: &'static str,
}

/// Devices by id.
pub const DEVICES: Table = Table { number: 1, name: "devices" };
/// Jobs by id.
pub const JOBS: Table = Table { number: 2, name: "jobs" };
/// The devices' parts of jobs, by `job/device`.
pub const DEVICE_JOBS: Table = Table { number: 3, name: "device-jobs" };
/// Cloud-to-device messages, by `device/number`.
pub const MESSAGES: Table = Table { number: 4, name: "messages" };
/// Configurations by id.
pub const CONFIGURATIONS: Table = Table { number: 5, name: "configurations" };
/// Enrolments, by kind and id.
pub const ENROLMENTS: Table = Table { number: 6, name: "enrolments" };
/// Registrations, by registration id.
pub const REGISTRATIONS: Table = Table { number: 7, name: "registrations" };
/// What belongs to the hub itself, such as its policies.
pub(super) const HUB: Table = Table { number: 8, name: "hub" };

/// Every table.
pub(super) const TABLES: [Table; 8] =
    [DEVICES, JOBS, DEVICE_JOBS, MESSAGES, CONFIGURATIONS, ENROLMENTS, REGISTRATIONS, HUB];

/// A change of one named value.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) table: Table,
    pub(super) name: Bytes,
    pub(super) change: Change,
}

/// What becomes of a value.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// It is removed, if it is there.
    Remove,
    /// It is this JSON from now on.
    Put(Bytes),
    /// It changes as this JSON says, in the words of whose table it is in.
    Patch(Bytes),
}

impl Table {
    /// The number that stands for the table in the file.
    pub(super) fn number(self) -> u8 {
        self.number
    }

    /// What the table is called.
    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// The table with this number.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        TABLES.into_iter().find(|table| table.number == number)
    }
}
