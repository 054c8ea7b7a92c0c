//! Whether the machine needs a reboot: what packages say in `/run/reboot-required`,
//! and a newer kernel than the running one that is installed beside it.
//!
//! Source: the hooks of Debian's reboot-notifier and unattended-upgrades, and the
//! postinst of dbus. Where nothing of the kind is found, nothing is known.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iotdm_core::decide::need::Need;
use iotdm_proto::text::harmless;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::sighting::Sighting;

const FLAG: &str = "run/reboot-required";
/// The packages that ask for the reboot, one a line.
const PACKAGES: &str = "run/reboot-required.pkgs";
const OSRELEASE: &str = "proc/sys/kernel/osrelease";
const BOOT: &str = "boot";
/// Where this is there, the kernel is not the machine's own. Source: the container
/// interface of systemd.
const CONTAINER: &str = "run/systemd/container";
/// With one of these, a kernel's installation writes the flag.
const HOOKS: [&str; 3] = [
    "etc/kernel/postinst.d/reboot-notifier",
    "etc/kernel/postinst.d/unattended-upgrades",
    "etc/kernel/postinst.d/update-notifier",
];

/// The longest name of a package that is told, in characters.
const MAX_NAME: usize = 100;
/// How many packages are looked at: more than one upgrade brings.
const MAX_PACKAGES: usize = 256;
/// The longest list of packages that is read, in bytes.
const MAX_LIST: u64 = 64 * 1024;

/// How long to wait after a change: packages write their names one after the other.
const SETTLE: Duration = Duration::from_secs(2);

/// What is known of the machine below `root`.
pub fn look(root: &Path) -> Option<Need> {
    let running = fs::read_to_string(root.join(OSRELEASE)).ok().map(|release| harmless(release.trim()));
    let flag = root.join(FLAG).exists();
    // What stands in the list without the flag is what is left of one.
    let mut reasons = if flag { packages(&root.join(PACKAGES)) } else { Vec::new() };
    if flag && reasons.is_empty() {
        reasons.push(format!("/{FLAG}"));
    }
    let own = running.as_ref().filter(|_| !root.join(CONTAINER).exists());
    let installed = own.and_then(|running| newest(kernels(&root.join(BOOT)), running));
    let newer = installed.as_ref().zip(own).filter(|(installed, running)| is_newer(installed, running));
    let newer = newer.map(|(installed, _)| installed);
    if let Some(newer) = newer {
        let package = format!("linux-image-{newer}");
        if !reasons.contains(&package) {
            reasons.push(package);
        }
    }
    let hooked = HOOKS.iter().any(|hook| root.join(hook).exists());
    let known = flag || installed.is_some() || hooked;
    reasons.sort_unstable();
    known.then_some(Need { reasons, running_kernel: running, installed_kernel: installed })
}

/// The names in the list, each once.
fn packages(file: &Path) -> Vec<String> {
    let text = match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_LIST => {
            fs::read(file).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text);
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(|name| harmless(name).chars().take(MAX_NAME).collect()).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(MAX_PACKAGES);
    names
}

/// The releases of the kernels in the directory.
fn kernels(boot: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(boot) else { return Vec::new() };
    let release = |name: String| {
        let release = ["vmlinuz-", "vmlinux-"].iter().find_map(|kernel| name.strip_prefix(kernel))?;
        let is_whole = ![".dpkg-new", ".dpkg-tmp", ".old", ".bak"].iter().any(|end| release.ends_with(end));
        is_whole.then(|| release.to_owned())
    };
    entries.flatten().filter_map(|entry| release(entry.file_name().into_string().ok()?)).collect()
}

/// The newest of the `kernels` that are of the same flavour as the `running` one:
/// beside it there are those for other machines, on a Raspberry Pi in particular.
fn newest(kernels: Vec<String>, running: &str) -> Option<String> {
    let flavour = split(running).1;
    let alike = kernels.into_iter().filter(|kernel| split(kernel).1 == flavour);
    alike.max_by(|one, other| compare(split(one).0, split(other).0))
}

fn is_newer(installed: &str, running: &str) -> bool {
    compare(split(installed).0, split(running).0) == Ordering::Greater
}

/// Version and flavour: the flavour begins with the first part, between hyphens,
/// that begins with a letter (`6.1.0-44` and `cloud-amd64`, `6.12.25+rpt` and
/// `rpi-2712`, `5.10.103` and `v7l+`).
fn split(release: &str) -> (&str, &str) {
    let starts = release.match_indices('-').map(|(at, _)| at);
    let begins = |at: &usize| release.as_bytes().get(at + 1).is_some_and(u8::is_ascii_alphabetic);
    match starts.into_iter().find(begins) {
        Some(at) => (&release[..at], &release[at + 1..]),
        None => (release, ""),
    }
}

/// The order of Debian's versions. Source: deb-version(7), "Sorting algorithm".
fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        let (words, rest) = parts(one, |byte| !byte.is_ascii_digit());
        let (other_words, other_rest) = parts(other, |byte| !byte.is_ascii_digit());
        let weigh = |words: &[u8]| words.iter().copied().map(weight).chain([0]).collect::<Vec<_>>();
        let (number, after) = parts(rest, u8::is_ascii_digit);
        let (other_number, other_after) = parts(other_rest, u8::is_ascii_digit);
        let by_words = weigh(words).cmp(&weigh(other_words));
        let ordering = by_words.then_with(|| value(number).cmp(&value(other_number)));
        if ordering != Ordering::Equal {
            return ordering;
        }
        (one, other) = (after, other_after);
    }
    Ordering::Equal
}

fn parts(text: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// A tilde sorts before everything, the end of a part included, and letters before
/// all else.
fn weight(byte: u8) -> i32 {
    match byte {
        b'~' => -1,
        byte if byte.is_ascii_alphabetic() => i32::from(byte),
        byte => i32::from(byte) + 256,
    }
}

/// A number without its leading zeros, by length and digits.
fn value(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let (_, digits) = digits.split_at(zeros);
    (digits.len(), digits)
}

/// Tells what is known whenever that has changed since it was `known`, until nobody
/// listens.
pub async fn watch(root: PathBuf, mut known: Option<Need>, sightings: mpsc::Sender<Sighting>) {
    let changes = match Changes::open(&root) {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!("that the machine needs a reboot is not noticed before the next start: {error}");
            return;
        }
    };
    loop {
        // Also what has changed since it was known.
        let need = look(&root);
        if need != known {
            known.clone_from(&need);
            if sightings.send(Sighting::Need(need)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            heard = changes.next() => if let Err(error) = heard {
                tracing::warn!("that the machine needs a reboot is not noticed any more: {error}");
                return;
            },
            () = sightings.closed() => return,
        }
        sleep(SETTLE).await;
        // What has come meanwhile is about to be seen.
        if changes.read().is_ok() {
            changes.watch_packages();
        }
    }
}

/// Tells of what changes in the directories, and in the list of packages.
struct Changes {
    inotify: AsyncFd<std::os::fd::OwnedFd>,
    packages: PathBuf,
}

impl Changes {
    fn open(root: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        for directory in ["run", BOOT] {
            match inotify::add_watch(&inotify, root.join(directory), names | WatchFlags::ONLYDIR) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        #[expect(deprecated, reason = "what its unsafe successor wants promised, OwnedFd promises")]
        let inotify = AsyncFd::with_interest(inotify, Interest::READABLE)?;
        let changes = Changes { inotify, packages: root.join(PACKAGES) };
        changes.watch_packages();
        Ok(changes)
    }

    /// What is added to a list that is there is no change of the directory.
    fn watch_packages(&self) {
        // Fails where there is none; that one comes is seen in the directory.
        let _ = inotify::add_watch(self.inotify.get_ref(), &self.packages, WatchFlags::CLOSE_WRITE);
    }

    /// Ready when something has changed that matters. Much comes and goes in `/run`.
    async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            if self.read()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Reads all that has been told; whether some of it matters.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut matters = false;
        loop {
            match events.next() {
                Ok(event) => {
                    matters |= event.file_name().is_none_or(|name| matters_here(&name.to_string_lossy()))
                }
                Err(Errno::AGAIN) => return Ok(matters),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn matters_here(name: &str) -> bool {
    ["reboot-required", "vmlinuz-", "vmlinux-"].iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine below a directory of its own, which runs this kernel.
    fn machine(running: &str, files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["run", "boot"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        write(root.path(), OSRELEASE, &format!("{running}\n"));
        for file in files {
            write(root.path(), file, "");
        }
        root
    }

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn a_newer_kernel_of_the_same_flavour_asks_for_a_reboot() {
        for (running, kernels, newer) in [
            ("6.1.0-44-amd64", &["6.1.0-44-amd64", "6.1.0-49-amd64"][..], Some("6.1.0-49-amd64")),
            ("6.1.0-44-amd64", &["6.1.0-44-amd64", "6.1.0-9-amd64"], None),
            ("6.1.0-44-amd64", &["6.1.0-44-amd64", "6.1.0-49-cloud-amd64", "6.1.0-49-rt-amd64"], None),
            ("6.1.0-44-amd64", &["6.12.48+deb13-amd64"], Some("6.12.48+deb13-amd64")),
            ("6.1.0-0.deb11.44-amd64", &["6.1.0-0.deb11.44-amd64", "6.1.0-44-amd64"], Some("6.1.0-44-amd64")),
            // The others are those of other models.
            (
                "6.6.31+rpt-rpi-v8",
                &["6.6.31+rpt-rpi-v8", "6.12.25+rpt-rpi-2712", "6.12.25+rpt-rpi-v7l"],
                None,
            ),
            (
                "6.6.31+rpt-rpi-2712",
                &["6.6.31+rpt-rpi-2712", "6.12.25+rpt-rpi-2712"],
                Some("6.12.25+rpt-rpi-2712"),
            ),
            ("6.6.31+rpt-rpi-v7l", &["6.12.25+rpt-rpi-v7", "6.6.62+rpt-rpi-v7l"], Some("6.6.62+rpt-rpi-v7l")),
            ("5.10.103-v7l+", &["5.15.84-v7l+", "6.1.21-v7+"], Some("5.15.84-v7l+")),
            // Half-installed, or what an administrator has kept.
            ("6.1.0-44-amd64", &["6.1.0-44-amd64", "6.1.0-49-amd64.dpkg-new", "6.1.0-50-amd64.old"], None),
        ] {
            let files: Vec<String> = kernels.iter().map(|kernel| format!("boot/vmlinuz-{kernel}")).collect();
            let root = machine(running, &files.iter().map(String::as_str).collect::<Vec<_>>());
            let need = look(root.path()).unwrap();
            let expected: Vec<String> = newer.iter().map(|newer| format!("linux-image-{newer}")).collect();
            assert_eq!(need.reasons, expected, "{running} with {kernels:?}");
            assert_eq!(need.running_kernel.as_deref(), Some(running));
            assert!(newer.is_none() || need.installed_kernel.as_deref() == newer, "{running}: {need:?}");
        }
    }

    #[test]
    fn packages_ask_for_a_reboot_by_the_flag() {
        let root = machine("6.1.0-44-amd64", &["boot/vmlinuz-6.1.0-49-amd64", FLAG]);
        write(root.path(), PACKAGES, "linux-image-6.1.0-49-amd64\ndbus\n\ndbus\nlib\u{1b}[2Jc6\n");
        let reasons = look(root.path()).unwrap().reasons;
        assert_eq!(reasons, ["dbus", "lib\u{fffd}[2Jc6", "linux-image-6.1.0-49-amd64"]);
        fs::remove_file(root.path().join(FLAG)).unwrap();
        assert_eq!(look(root.path()).unwrap().reasons, ["linux-image-6.1.0-49-amd64"]);
        fs::remove_file(root.path().join(PACKAGES)).unwrap();
        write(root.path(), FLAG, "*** System restart required ***\n");
        fs::remove_file(root.path().join("boot/vmlinuz-6.1.0-49-amd64")).unwrap();
        assert_eq!(look(root.path()).unwrap().reasons, ["/run/reboot-required"]);
    }

    #[test]
    fn where_nobody_can_tell_nothing_is_known() {
        assert_eq!(look(machine("6.1.0-44-amd64", &[]).path()), None);
        assert_eq!(look(machine("6.1.0-44-amd64", &["boot/vmlinuz-6.1.0-49-arm64"]).path()), None);
        let container = machine("6.1.0-44-amd64", &["boot/vmlinuz-6.1.0-49-amd64", CONTAINER]);
        assert_eq!(look(container.path()), None, "its kernel is the host's");
        let hooked = look(machine("6.1.0-44-amd64", &HOOKS[..1]).path()).unwrap();
        assert!(!hooked.is_required() && hooked.installed_kernel.is_none());
        fs::remove_dir_all(container.path().join("proc")).unwrap();
        write(container.path(), FLAG, "");
        assert_eq!(look(container.path()).unwrap().running_kernel, None);
    }

    #[test]
    fn versions_are_in_debians_order() {
        for (less, more) in [
            ("6.1.0-9", "6.1.0-44"),
            ("6.1", "6.1.1"),
            ("6.1~rc1", "6.1"),
            ("6.1.0-44", "6.12"),
            ("1.a", "1.+"),
            ("1", "1a"),
        ] {
            assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(compare(more, less), Ordering::Greater, "{less} {more}");
        }
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_told_once_and_only_those_that_matter() {
        let root = machine("6.1.0-44-amd64", &["boot/vmlinuz-6.1.0-44-amd64"]);
        let known = look(root.path());
        let (sightings, mut seen) = mpsc::channel(8);
        let watching = tokio::spawn(watch(root.path().to_owned(), known, sightings));
        let mut needs = async || match seen.recv().await {
            Some(Sighting::Need(Some(need))) => need.reasons,
            other => panic!("{other:?}"),
        };
        // The watch is open once it has looked; what was there before is told as well.
        write(root.path(), FLAG, "");
        assert_eq!(needs().await, ["/run/reboot-required"]);
        write(root.path(), "run/utmp", "");
        write(root.path(), PACKAGES, "dbus\n");
        assert_eq!(needs().await, ["dbus"]);
        write(root.path(), PACKAGES, "dbus\nlibc6\n");
        assert_eq!(needs().await, ["dbus", "libc6"]);
        write(root.path(), "boot/vmlinuz-6.1.0-49-amd64", "");
        assert_eq!(needs().await, ["dbus", "libc6", "linux-image-6.1.0-49-amd64"]);
        fs::remove_file(root.path().join(FLAG)).unwrap();
        assert_eq!(needs().await, ["linux-image-6.1.0-49-amd64"]);
        drop(seen);
        watching.await.unwrap();
    }
}
