//! The emulator takes a directory only if it is empty or its own, and leaves
//! alone what it has not written.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use iotdm_tests::Hub;

use crate::support::command;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Writes a file, with the directories above it.
fn put(file: &Path) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "precious").unwrap();
}

fn is_untouched(file: &Path) {
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious", "{}", file.display());
}

/// Runs `serve` on the directory, which has to be refused in one line; the line.
async fn refused(dir: &Path) -> String {
    let error = failed(dir).await;
    assert!(error.contains("cannot use the data directory"), "{error}");
    assert!(error.contains("another directory with --data"), "no remedy: {error}");
    error
}

/// Runs `serve` on the directory, which has to fail with one line; the line. A port that is
/// in use ends the program where nothing else does.
async fn failed(dir: &Path) -> String {
    let blocker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = blocker.local_addr().unwrap().port().to_string();
    let mut command = command();
    command.args(["serve", "--device", "gw1", "--mqtt-port", &port, "--https-port", "0", "--data"]).arg(dir);
    let output = command.output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    error
}

#[tokio::test]
async fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let precious =
        [dir.path().join("devices/photo"), dir.path().join("devices/gw1"), dir.path().join("notes")];
    precious.iter().for_each(|file| put(file));
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let error = refused(dir.path()).await;
    assert!(error.contains(dir.path().to_str().unwrap()) && error.contains("store.redb"), "{error}");
    precious.iter().for_each(|file| is_untouched(file));
    assert_eq!(mode(dir.path()), 0o755);
    assert_eq!(dir.path().read_dir().unwrap().count(), 2, "nothing was added");
}

#[tokio::test]
async fn no_mode_is_changed_and_what_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for open in [0o1777, 0o777, 0o775] {
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(open)).unwrap();
        let error = refused(dir.path()).await;
        assert!(error.contains("chmod go-w"), "{error}");
        assert_eq!(mode(dir.path()), open);
    }
    // One that others may only look into is taken as it is.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    assert_eq!((mode(dir.path()), mode(&dir.path().join("devices"))), (0o755, 0o700));
    assert_eq!(mode(&hub.data().join("devices/gw1")), 0o600);
}

#[tokio::test]
async fn no_link_is_followed() {
    for link in ["devices", "policies", "store.redb", "ca.pem", "devices/gw1", "policies/service"] {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // An emulator's directory, in which somebody replaced something.
        drop(Hub::start_in(dir.path(), &["--device", "gw1"]));
        let (link, target) = (dir.path().join(link), elsewhere.path().join("target"));
        if link.is_dir() {
            std::fs::remove_dir_all(&link).unwrap();
            put(&target.join("gw1"));
        } else {
            std::fs::remove_file(&link).unwrap();
            put(&target);
        }
        symlink(&target, &link).unwrap();
        let error = refused(dir.path()).await;
        assert!(error.contains(link.to_str().unwrap()) && error.contains("symbolic link"), "{error}");
        is_untouched(&if target.is_dir() { target.join("gw1") } else { target });
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 1, "nothing was added");
    }

    let (dir, link) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = link.path().join("link");
    symlink(dir.path(), &link).unwrap();
    let error = refused(&link).await;
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn another_users_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Root can give an empty directory away; anybody else meets one of root's.
    let others = if dir.path().metadata().unwrap().uid() == 0 {
        chown(dir.path(), Some(65534), Some(65534)).unwrap();
        dir.path().to_owned()
    } else {
        PathBuf::from("/usr")
    };
    let error = refused(&others).await;
    assert!(error.contains("another user"), "{error}");
    assert!(!others.join("store.redb").exists());
}

#[tokio::test]
async fn what_a_kill_left_goes_and_what_it_did_not_write_stays() {
    let dir = tempfile::tempdir().unwrap();
    drop(Hub::start_in(dir.path(), &["--device", "gw1"]));
    let (photo, album) = (dir.path().join("devices/photo"), dir.path().join("devices/album/photo"));
    put(&photo);
    put(&album);
    let dead = dir.path().join("devices/dead");
    std::fs::write(&dead, "HostName=localhost;DeviceId=dead;SharedAccessKey=a2V5\n").unwrap();
    let half = dir.path().join(".writing-half");
    std::fs::write(&half, "HostN").unwrap();
    let _again = Hub::start_in(dir.path(), &[]);
    is_untouched(&photo);
    is_untouched(&album);
    assert!(!dead.exists() && !half.exists());
}

#[tokio::test]
async fn a_first_start_that_was_killed_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb"), "").unwrap();
    drop(Hub::start_in(dir.path(), &["--device", "gw1"]));

    // Also one that never came to confirm anything.
    let dir = tempfile::tempdir().unwrap();
    let error = failed(dir.path()).await;
    assert!(error.contains("cannot listen"), "{error}");
    let _hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
}

#[tokio::test]
async fn a_store_that_was_lost_is_no_first_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Hub::start_in(dir.path(), &["--device", "gw1"]));
    let (store, device) = (dir.path().join("store.redb"), dir.path().join("devices/gw1"));
    let before = std::fs::read(&device).unwrap();
    let length = usize::try_from(store.metadata().unwrap().len()).unwrap();
    for left in [vec![0; length], Vec::new()] {
        std::fs::write(&store, &left).unwrap();
        let error = failed(dir.path()).await;
        assert!(error.contains("store.redb") && error.contains("put a copy"), "{error}");
        assert_eq!(std::fs::read(&store).unwrap(), left);
        assert_eq!(std::fs::read(&device).unwrap(), before);
    }
}

#[tokio::test]
async fn a_name_that_no_shell_or_terminal_should_see_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = dir.path().join("a\u{1b}]0;x\u{7}\nready");
    let error = refused(&hostile).await;
    assert!(!error.trim_end().contains(|c: char| c.is_control()), "{error:?}");
    assert!(!hostile.exists());
    for arguments in [&["env"][..], &["trust"], &["fault", "list"], &["events"]] {
        let output = command().args(arguments).arg("--data").arg(&hostile).output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(output.stdout.is_empty());
        assert!(!error.trim_end().contains(|c: char| c.is_control()), "{arguments:?}: {error:?}");
    }
}
