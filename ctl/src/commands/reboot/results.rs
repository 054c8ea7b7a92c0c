//! The results of a run on stdout, which may stop taking them while devices are
//! being rebooted.

use std::cell::Cell;
use std::io;

use crate::exit::Exit;
use crate::output::{Output, say};

/// Where the results of a run go. That nobody reads them any more
/// (`… | grep -m1 completed`), or that the disk is full, is said once and ends no
/// run: devices are under way, and what they come to is in the journal.
pub(super) struct Results {
    output: Output,
    /// What stopped stdout from taking results, if anything did.
    lost: Cell<Option<io::ErrorKind>>,
}

impl Results {
    /// Results in the form of `output`.
    pub(super) fn new(output: Output) -> Self {
        Results { output, lost: Cell::default() }
    }

    /// The form of the results.
    pub(super) fn form(&self) -> Output {
        self.output
    }

    /// Has `write` write something, unless stdout has stopped taking results.
    pub(super) fn print(&self, write: impl FnOnce(Output) -> io::Result<()>) {
        if self.lost.get().is_some() {
            return;
        }
        if let Err(error) = write(self.output) {
            self.lost.set(Some(error.kind()));
            say(format_args!(
                "iotdm-ctl: standard output takes no more results ({error}); the run goes on without it"
            ));
        }
    }

    /// The exit code of a run that came to `exit`. A reader that had enough changes
    /// nothing; results that were wanted and could not be written do.
    pub(super) fn exit(&self, exit: Exit) -> Exit {
        match (self.lost.get(), exit) {
            (None | Some(io::ErrorKind::BrokenPipe), exit) => exit,
            (Some(_), Exit::Done) => Exit::Failure,
            (Some(_), exit) => exit,
        }
    }
}
