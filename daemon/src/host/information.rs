//! What the machine says of itself: its firmware or device tree, its operating
//! system, kernel, processor, memory and storage.
//!
//! Source: Documentation/ABI/testing/sysfs-class-dmi of Linux, the Devicetree
//! Specification (`model`, `compatible`), os-release(5), proc(5).

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use iotdm_proto::device_information::DeviceInformation;
use rustix::fs::statvfs;
use rustix::system::uname;

const DMI: &str = "sys/class/dmi/id";
const DEVICE_TREE: &str = "sys/firmware/devicetree/base";
/// The second one is what a machine with an empty `/etc` has.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
const KERNEL: &str = "proc/sys/kernel/osrelease";
const PROCESSOR: &str = "proc/cpuinfo";
const MEMORY: &str = "proc/meminfo";

/// How much of a file is read: many times what any of them has where it matters.
const MAX_FILE: u64 = 64 * 1024;

/// What stands in the firmware of machines whose makers have not filled it in, in
/// lower case.
const UNFILLED: [&str; 13] = [
    "to be filled by o.e.m.",
    "system manufacturer",
    "system product name",
    "default string",
    "not specified",
    "not applicable",
    "not available",
    "undefined",
    "unknown",
    "none",
    "n/a",
    "o.e.m.",
    "oem",
];

/// What the machine below `root` says. What it does not say is absent.
pub fn look(root: &Path) -> DeviceInformation {
    let told = |text: Option<String>| text.as_deref().and_then(DeviceInformation::text);
    let dmi = |name: &str| read(root, &format!("{DMI}/{name}")).filter(|text| !is_unfilled(text));
    // Texts and lists of texts, each of which ends with a NUL.
    let tree = |name: &str| read(root, &format!("{DEVICE_TREE}/{name}"));
    let compatible = tree("compatible").unwrap_or_default();
    let compatible: Vec<&str> = compatible.split('\0').filter(|name| !name.is_empty()).collect();
    let maker = |name: Option<&&str>| Some(name?.split_once(',')?.0.to_owned());
    // The board comes first, and its processor last.
    let processor = || maker(compatible.last().filter(|_| compatible.len() > 1));
    let first = |text: String| text.split('\0').next().map(str::to_owned);
    DeviceInformation {
        manufacturer: told(dmi("sys_vendor").or_else(|| maker(compatible.first()))),
        model: told(dmi("product_name").or_else(|| tree("model").and_then(first))),
        sw_version: told(read(root, KERNEL)),
        os_name: told(OS_RELEASE.iter().find_map(|file| read(root, file)).as_deref().and_then(system)),
        processor_architecture: told(uname().machine().to_str().ok().map(str::to_owned)),
        processor_manufacturer: told(
            read(root, PROCESSOR).and_then(|text| value(&text, "vendor_id")).or_else(processor),
        ),
        total_storage: storage(root),
        total_memory: read(root, MEMORY)
            .and_then(|text| value(&text, "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()),
        ..DeviceInformation::default()
    }
}

fn is_unfilled(text: &str) -> bool {
    UNFILLED.contains(&text.trim().to_lowercase().as_str())
}

/// The beginning of a file, if it is one.
fn read(root: &Path, file: &str) -> Option<String> {
    let path = root.join(file);
    fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first value of `key` in lines of `key : value`.
fn value(text: &str, key: &str) -> Option<String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.into_iter().find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// The system's name with its version, else its bare name.
fn system(text: &str) -> Option<String> {
    let of = |wanted: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        // As in a shell, the last assignment counts.
        let value = pairs.rev().find(|(key, _)| key.trim() == wanted).map(|(_, value)| unquoted(value));
        value.filter(|value| !value.is_empty())
    };
    of("PRETTY_NAME").or_else(|| of("NAME"))
}

/// A value of os-release(5), which a shell would read.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    match (inside('"'), inside('\'')) {
        (_, Some(verbatim)) => verbatim.to_owned(),
        (quoted, None) => {
            let mut escaped = false;
            let mut plain = String::new();
            for char in quoted.unwrap_or(value).chars() {
                escaped = !escaped && char == '\\';
                if !escaped {
                    plain.push(char);
                }
            }
            plain
        }
    }
}

/// The size of the file system of `root`, in units of 1024 bytes.
fn storage(root: &Path) -> Option<u64> {
    let system = statvfs(root).ok()?;
    Some(system.f_blocks.checked_mul(system.f_frsize)? / 1024).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    fn texts(information: &DeviceInformation) -> [Option<&str>; 5] {
        let DeviceInformation { manufacturer, model, sw_version, os_name, processor_manufacturer, .. } =
            information;
        [manufacturer, model, sw_version, os_name, processor_manufacturer].map(Option::as_deref)
    }

    #[test]
    fn a_machine_with_firmware() {
        let root = machine(&[
            ("sys/class/dmi/id/sys_vendor", "Dell Inc.\n"),
            ("sys/class/dmi/id/product_name", "Edge Gateway 3003\n"),
            ("etc/os-release", "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-44-amd64\n"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Atom\nvendor_id\t: Other\n",
            ),
            ("proc/meminfo", "MemTotal:        3885396 kB\nMemFree:          1 kB\n"),
        ]);
        let said = look(root.path());
        let expected = [
            "Dell Inc.",
            "Edge Gateway 3003",
            "6.1.0-44-amd64",
            "Debian GNU/Linux 12 (bookworm)",
            "GenuineIntel",
        ];
        assert_eq!(texts(&said), expected.map(Some));
        assert_eq!(said.total_memory, Some(3_885_396));
        assert!(said.total_storage.is_some_and(|size| size > 1024), "{said:?}");
        assert!(said.processor_architecture.is_some());
    }

    #[test]
    fn a_machine_with_a_device_tree() {
        let root = machine(&[
            ("sys/firmware/devicetree/base/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            ("sys/firmware/devicetree/base/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0"),
            ("usr/lib/os-release", "PRETTY_NAME='Raspbian \"12\"'\n"),
            ("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\n"),
        ]);
        let said = look(root.path());
        let expected = [
            Some("raspberrypi"),
            Some("Raspberry Pi 4 Model B Rev 1.4"),
            None,
            Some("Raspbian \"12\""),
            Some("brcm"),
        ];
        assert_eq!(texts(&said), expected);
        // A board that names nothing but itself says nothing of its processor.
        let root = machine(&[("sys/firmware/devicetree/base/compatible", "linux,dummy-virt\0")]);
        assert_eq!(texts(&look(root.path())), [Some("linux"), None, None, None, None]);
    }

    #[test]
    fn what_is_not_said_is_not_made_up_and_what_is_said_does_no_harm() {
        let root = machine(&[]);
        let said = look(root.path());
        assert_eq!((texts(&said), said.total_memory), ([None; 5], None));
        let root = machine(&[
            ("sys/class/dmi/id/sys_vendor", "To Be Filled By O.E.M.\n"),
            ("sys/class/dmi/id/product_name", " Default string \n"),
            ("sys/firmware/devicetree/base/model", "a\u{1b}]0;x\u{7}\u{202e}\nreboot: completed\0more"),
            ("etc/os-release", "PRETTY_NAME=\"\"\nNAME=A\\ \\\"B\\\"\n# PRETTY_NAME=no\n"),
            ("proc/meminfo", "MemTotal: many\n"),
        ]);
        let long = "x".repeat(1 << 20);
        fs::write(root.path().join("proc/cpuinfo"), format!("vendor_id : {long}")).unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel/osrelease")).unwrap();
        let said = look(root.path());
        let (cut, model) = (&long[..64], "a\u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}reboot: completed");
        assert_eq!(texts(&said), [None, Some(model), None, Some("A \"B\""), Some(cut)]);
        assert_eq!(said.total_memory, None);
    }
}
