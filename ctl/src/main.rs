//! The program `iotdm-ctl`. Everything is in the library beside it, so that the
//! manual pages and the tests can use it as well.

use std::process::ExitCode;

use iotdm_ctl::exit::Exit;

fn main() -> ExitCode {
    // From here on there are keys in memory: no core file, also where a program
    // collects them that heeds no limit, and no look from the user's other
    // processes.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("iotdm-ctl: cannot keep the keys out of core files: {error}");
        return Exit::Failure.into();
    }
    iotdm_ctl::main().into()
}
