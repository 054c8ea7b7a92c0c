//! The program `iotdm-ctl`. Everything is in the library beside it, so that the
//! manual pages and the tests can use it as well.

use std::process::ExitCode;

fn main() -> ExitCode {
    iotdm_ctl::main().into()
}
