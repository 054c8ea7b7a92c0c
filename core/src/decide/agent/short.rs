//! The report made short: whatever others choose as names and messages, all of it fits
//! into 10 KiB of the twin's 32, which other programs of the device share.

use iotdm_proto::device_information::DeviceInformation;
use iotdm_proto::report::Report;

/// The longest name of a unit, package or kernel that is reported, in bytes of JSON.
const MAX_NAME: usize = 100;
/// The longest text about the daemon itself, likewise.
const MAX_TEXT: usize = 250;

/// The report with each name and text cut to its length.
pub(super) fn short(mut report: Report) -> Report {
    if let Some(health) = &mut report.health {
        health.failed_units.iter_mut().for_each(|unit| cut(unit, MAX_NAME));
    }
    if let Some(reboot) = &mut report.reboot {
        reboot.waiting_for.iter_mut().for_each(|unit| cut(unit, MAX_NAME));
        reboot.failed_before.iter_mut().for_each(|unit| cut(unit, MAX_NAME));
    }
    if let Some(need) = &mut report.reboot_required {
        need.reasons.iter_mut().for_each(|reason| cut(reason, MAX_NAME));
        let kernels = [&mut need.running_kernel, &mut need.installed_kernel];
        kernels.into_iter().flatten().for_each(|kernel| cut(kernel, MAX_NAME));
    }
    if let Some(agent) = &mut report.agent {
        let texts = [&mut agent.damaged_record, &mut agent.wish_error];
        texts.into_iter().flatten().for_each(|text| cut(text, MAX_TEXT));
    }
    if let Some(information) = &mut report.device_information {
        let DeviceInformation {
            mark: _,
            manufacturer,
            model,
            sw_version,
            os_name,
            processor_architecture,
            processor_manufacturer,
            total_storage: _,
            total_memory: _,
        } = information;
        let texts =
            [manufacturer, model, sw_version, os_name, processor_architecture, processor_manufacturer];
        texts.into_iter().flatten().for_each(|text| cut(text, MAX_NAME));
    }
    report
}

/// Cuts the text off where its JSON would be longer than so many bytes.
fn cut(text: &mut String, max: usize) {
    let mut length = 0;
    let end = text.char_indices().find(|(_, char)| {
        length += match char {
            '"' | '\\' => 2,
            char if char.is_control() => 6,
            char => char.len_utf8(),
        };
        length > max
    });
    if let Some((end, _)) = end {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as it is in JSON, to the byte, and never in the middle of a character.
    #[test]
    fn a_text_is_as_long_as_its_json_may_be() {
        for (text, max, expected) in [
            ("plain", 5, "plain"),
            ("plain", 4, "plai"),
            ("caf\u{e9}", 5, "caf\u{e9}"),
            ("caf\u{e9}", 4, "caf"),
            // Two bytes each, and six.
            ("\"\\a", 5, "\"\\a"),
            ("\"\\a", 4, "\"\\"),
            ("a\u{1}b", 8, "a\u{1}b"),
            ("a\u{1}b", 7, "a\u{1}"),
            ("a\u{1}b", 6, "a"),
        ] {
            let mut short = text.to_owned();
            cut(&mut short, max);
            assert_eq!(short, expected, "{text:?} in {max}");
            assert!(serde_json::to_string(&short).unwrap().len() - 2 <= max, "{text:?} in {max}");
        }
    }
}
