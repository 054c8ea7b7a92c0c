//! The keys in the emulator's memory stay there.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::DEADLINE;

/// No user whom a file belongs to.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn its_users_other_programs_cannot_look_into_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut user = dir.path().metadata().unwrap().uid();
    // Root may look into everything, so that it has to be tried as somebody else,
    // who may not even reach the place where programs are built.
    let (program, data) = (dir.path().join("program"), dir.path().join("data"));
    // By a program of its own: what this one had open for writing, another test's child could
    // still have, and then it cannot be run.
    let copied =
        std::process::Command::new("cp").arg(iotdm_tests::program("iotdm-emulator")).arg(&program).status();
    assert!(copied.unwrap().success());
    std::fs::create_dir(&data).unwrap();
    let mut command = Command::new(&program);
    if user == 0 {
        user = NOBODY;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command.args(["serve", "--mqtt-port", "0", "--https-port", "0", "--data"]).arg(&data);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
    assert!(line.expect("a ready line").starts_with("ready"));
    // What the kernel does not let other programs look into belongs to root here,
    // and neither a core file nor /proc/PID/mem is to be had. Source: proc(5).
    let owner = std::fs::metadata(format!("/proc/{}/mem", child.id().unwrap())).unwrap().uid();
    assert_ne!(owner, user);
}
