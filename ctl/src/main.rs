//! The program `iotdm-ctl`; everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    iotdm_ctl::main().into()
}
