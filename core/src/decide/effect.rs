//! What [`super::agent`] wants done.

use std::time::Duration;

use iotdm_proto::report::{Boot, Reboot, Report};
use iotdm_proto::{ErrorCode, Time};
use serde_json::Value;

use super::ids::GrantedRequest;
use super::record::Record;

/// What is to be done, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a call.
    Reply {
        /// The call.
        rid: String,
        /// The method's status.
        status: u16,
        /// A JSON object.
        body: Value,
    },
    /// Ask logind whether it would reboot; answered by `Event::Permission`.
    AskPermission {
        /// Have the preflight checks run as well.
        preflight: bool,
    },
    /// Ask how things are, for this call; answered by `Event::Surveyed`.
    Survey {
        /// The call.
        rid: String,
        /// Have the preflight checks run as well.
        preflight: bool,
    },
    /// Write the record and sync it; answered by `Event::Saved`.
    Save(Box<Record>),
    /// Write these requests to the file of those that were granted, and sync it;
    /// answered by `Event::Kept`. One at a time is asked for.
    Keep {
        /// In the order in which they stand in the file.
        requests: Vec<GrantedRequest>,
        /// Instead of all that the file holds; else after it.
        whole: bool,
    },
    /// Make the twin's reported properties say this; answered, once and for
    /// the newest only, by `Event::Reported`.
    Report(Box<Report>),
    /// Make the twin say this, and send it at once, past what is still to be told and
    /// although the hub has not answered what it was asked or told before: soon nobody is
    /// here to send it.
    ReportNow(Box<Report>),
    /// Ask logind to reboot; answered by `Event::RebootAsked`.
    Reboot {
        /// For the people who are logged in: why, and who asks.
        words: Option<String>,
        /// Whether block inhibitors are passed over.
        ignore_inhibitors: bool,
    },
    /// Ask whether the machine is going down, and what still holds it up;
    /// answered by `Event::Shutdown`.
    AskShutdown,
    /// From now on wait this long, or for nothing any more.
    Deadline(Option<Duration>),
    /// Tell the administrator.
    Note(Note),
}

/// A reboot that is to be announced on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// When it is for.
    pub at: Time,
    /// The request.
    pub id: String,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// What an administrator wants to find in the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A new boot was seen.
    Booted(Boot),
    /// There was no record of earlier runs, so that the twin was asked for what
    /// it remembers.
    Recalled {
        /// The request that it remembers as the newest.
        id: Option<String>,
    },
    /// The times of the running boot were taken anew from the clock.
    ClockSet(Boot),
    /// A request was accepted and recorded.
    Accepted(Box<Reboot>),
    /// A call was refused.
    Refused {
        /// The error's code.
        code: ErrorCode,
        /// The sentence.
        message: String,
    },
    /// A due reboot waits until nobody inhibits it any more.
    Waiting {
        /// The request.
        id: String,
        /// Who holds it up.
        message: String,
    },
    /// The machine is about to be asked to go down.
    Rebooting {
        /// The request.
        id: String,
    },
    /// A request ended.
    Ended(Box<Reboot>),
    /// The hub takes no report, and will not hear what became of this request: too many
    /// have ended since.
    Untold {
        /// The request.
        id: String,
    },
    /// An orderly shutdown has begun.
    ShutdownBegan,
    /// The shutdown was called off.
    ShutdownCancelled,
}
