//! Holds `docs/device-interface.md` against the types: each table of the page
//! has the keys or words of its type and no others, each key's row has the
//! key's type and limits, and each example can be read as what it shows.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::health::HealthState;
use crate::method::{ErrorCode, MethodName};
use crate::reply::{BootHistoryReply, CancelReply, Granted, RebootReply, RefusalReply, StatusReply};
use crate::report::{
    BootCause, BootDetail, Clock, Feature, RebootErrorCode, RebootStatus, Report, RequestedBy,
};
use crate::request::{
    CancelRequest, DEFAULT_WAIT, DELAY_SECONDS, MAX_AHEAD, MAX_ID, MAX_IGNORED, MAX_IGNORED_CHARS,
    MAX_OPERATOR, MAX_REASON, OnInhibitor, OnPreflight, RebootRequest, Terms, WAIT_SECONDS, Wish,
};
use crate::{Time, full, twin};

const PAGE: &str = include_str!("../../docs/device-interface.md");

/// The page's part below one heading, up to the next one.
#[derive(Debug, Default)]
struct Part {
    heading: String,
    /// The rows of the table, of which there is one at most, without its head.
    rows: Vec<Vec<String>>,
    /// The table's head.
    columns: Vec<String>,
    examples: Vec<Value>,
}

impl Part {
    /// What the rows are about: the code in their first cells.
    fn subjects(&self) -> Vec<String> {
        self.rows.iter().map(|row| code(&row[0])).collect()
    }

    /// The cell of `column` in the row about `subject`, if there is such a
    /// column.
    fn cell(&self, subject: &str, column: &str) -> Option<&str> {
        let column = self.columns.iter().position(|name| name == column)?;
        let row = self.rows.iter().find(|row| code(&row[0]) == subject)?;
        Some(&row[column])
    }
}

fn parts() -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let part = parts.last_mut().unwrap();
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if language == "json" {
                let example = serde_json::from_str(&block.join("\n"));
                part.examples.push(example.unwrap_or_else(|error| panic!("{}: {error}", part.heading)));
            }
        } else if line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().replace('`', "");
            parts.push(Part { heading, ..Part::default() });
        } else if let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) {
            let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
            if part.columns.is_empty() {
                part.columns = cells;
                assert_eq!(lines.next(), Some("|---".repeat(part.columns.len()) + "|").as_deref());
            } else {
                assert_eq!(cells.len(), part.columns.len(), "{}: {row}", part.heading);
                part.rows.push(cells);
            }
        }
    }
    parts
}

fn part<'a>(parts: &'a [Part], heading: &str) -> &'a Part {
    let mut found = parts.iter().filter(|part| part.heading == heading);
    let part = found.next().unwrap_or_else(|| panic!("no heading {heading:?}"));
    assert!(found.next().is_none(), "two headings {heading:?}");
    part
}

/// The one code span that `cell` consists of.
fn code(cell: &str) -> String {
    let span = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    span.filter(|span| !span.contains('`'))
        .unwrap_or_else(|| panic!("not a key or a word: {cell}"))
        .to_owned()
}

/// The code spans in `cell`.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn keys(object: &Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// The objects whose keys the page tells, each under its heading.
fn objects() -> Vec<(&'static str, Value)> {
    let (status, refusal, report) =
        (json(&full::status_reply()), json(&full::refusal_reply()), json(&full::report()));
    vec![
        ("rebootDevice: payload", json(&full::reboot_request())),
        ("rebootDevice: reply", json(&full::reboot_reply())),
        ("cancelReboot: payload", json(&full::cancel_request())),
        ("cancelReboot: reply", json(&full::cancel_reply())),
        ("inhibitors", json(&full::inhibitor())),
        ("preflight", json(&full::preflight_check())),
        ("getRebootStatus: reply", status),
        ("ifItHangs", json(&full::if_it_hangs())),
        ("getBootHistory: reply", json(&full::boot_history_reply())),
        ("boots", json(&full::past_boot())),
        ("error", refusal["error"].clone()),
        ("Reported: reboot.error", report["reboot"]["error"].clone()),
        ("Reported: reboot", report["reboot"].clone()),
        ("Reported: boot", report["boot"].clone()),
        ("Reported: health", report["health"].clone()),
        ("Reported: rebootRequired", report["rebootRequired"].clone()),
        ("Reported: agent", report["agent"].clone()),
        ("Reported: deviceInformation", report["deviceInformation"].clone()),
        ("Reported: the keys", report),
        ("The wish", json(&full::wish())),
    ]
}

/// The words that the page tells, each list under its heading.
fn vocabularies() -> Vec<(&'static str, Vec<String>)> {
    fn words<T: ToString>(words: &[T]) -> Vec<String> {
        words.iter().map(T::to_string).collect()
    }
    vec![
        ("Direct methods", words(MethodName::ALL)),
        ("status of a granted call", words(Granted::ALL)),
        ("onInhibitor", words(OnInhibitor::ALL)),
        ("onPreflight", words(OnPreflight::ALL)),
        ("error.code", words(ErrorCode::ALL)),
        ("Reported: reboot.status", words(RebootStatus::ALL)),
        ("Reported: reboot.requestedBy", words(RequestedBy::ALL)),
        ("Reported: reboot.error.code", words(RebootErrorCode::ALL)),
        ("Reported: boot.cause", words(BootCause::ALL)),
        ("Reported: boot.clock", words(Clock::ALL)),
        ("Reported: boot.detail", words(BootDetail::ALL)),
        ("Reported: health.state", words(HealthState::ALL)),
        ("Reported: agent.features", words(Feature::ALL)),
    ]
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

#[test]
fn each_table_has_the_keys_or_words_of_its_type_and_no_others() {
    let parts = parts();
    let objects = objects().into_iter().map(|(heading, object)| (heading, keys(&object)));
    let mut known = BTreeSet::new();
    for (heading, expected) in objects.chain(vocabularies()) {
        assert_eq!(sorted(part(&parts, heading).subjects()), sorted(expected), "{heading}");
        known.insert(heading);
    }
    let with_table = parts.iter().filter(|part| !part.columns.is_empty());
    assert_eq!(with_table.map(|part| part.heading.as_str()).collect::<BTreeSet<_>>(), known);
}

#[test]
fn each_key_has_its_type() {
    fn kind(value: &Value) -> &'static str {
        match value {
            Value::String(text) if text.parse::<Time>().is_ok() => "time",
            Value::String(_) => "string",
            Value::Number(number) if number.is_u64() => "whole number",
            Value::Number(_) => "number",
            Value::Bool(_) => "true or false",
            Value::Object(_) => "object",
            Value::Array(items) if items[0].is_string() => "array of strings",
            Value::Array(_) => "array of objects",
            Value::Null => panic!("a full value has no null"),
        }
    }
    let parts = parts();
    for (heading, object) in objects() {
        for (key, value) in object.as_object().unwrap() {
            assert_eq!(part(&parts, heading).cell(key, "type"), Some(kind(value)), "{heading}: {key}");
        }
    }
}

#[test]
fn each_row_has_the_limits_of_its_key() {
    let days = MAX_AHEAD.as_secs() / (24 * 60 * 60);
    let range = |seconds: std::ops::RangeInclusive<u64>| format!("{} to {}", seconds.start(), seconds.end());
    let limits = [
        ("id", "range", format!("1 to {MAX_ID} characters of `A-Z a-z 0-9 . _ : -`")),
        ("reason", "range", format!("at most {MAX_REASON} characters")),
        ("operator", "range", format!("at most {MAX_OPERATOR} characters")),
        ("delaySeconds", "range", range(DELAY_SECONDS)),
        ("at", "range", format!("from now to {days} days ahead")),
        ("waitSeconds", "range", range(WAIT_SECONDS)),
        ("waitSeconds", "default", DEFAULT_WAIT.as_secs().to_string()),
        ("onInhibitor", "default", format!("`{}`", Terms::default().on_inhibitor())),
        ("onPreflight", "default", format!("`{}`", Terms::default().on_preflight())),
    ];
    let parts = parts();
    for (key, column, expected) in &limits {
        let cells: Vec<&str> = parts.iter().filter_map(|part| part.cell(key, column)).collect();
        assert!(!cells.is_empty(), "no {column} of {key}");
        for cell in cells {
            assert_eq!(cell, expected, "the {column} of {key}");
        }
    }
    let ignored = part(&parts, "rebootDevice: reply").cell("ignored", "meaning").unwrap();
    let told = format!("the first {MAX_IGNORED}, of each the first {MAX_IGNORED_CHARS} characters");
    assert!(ignored.contains(&told), "{told}: {ignored}");
}

#[test]
fn each_refusal_has_its_status_and_known_details() {
    let parts = parts();
    let codes = part(&parts, "error.code");
    let mut details = BTreeSet::from(["code", "message"]);
    for code in ErrorCode::ALL {
        assert_eq!(codes.cell(code.as_str(), "status"), Some(code.status().to_string().as_str()), "{code}");
        details.extend(spans(codes.cell(code.as_str(), "besides").unwrap()));
    }
    let refusal = json(&full::refusal_reply());
    assert_eq!(details.into_iter().collect::<Vec<_>>(), sorted(keys(&refusal["error"])));
}

#[test]
fn each_final_status_is_marked() {
    let parts = parts();
    for status in RebootStatus::ALL {
        let marked = part(&parts, "Reported: reboot.status").cell(status.as_str(), "final");
        assert_eq!(marked, Some(if status.is_final() { "yes" } else { "" }), "{status}");
    }
}

#[test]
fn each_example_can_be_read_and_has_no_other_keys() {
    fn same<T: DeserializeOwned + Serialize>(example: &Value) {
        assert_eq!(&json(&serde_json::from_value::<T>(example.clone()).unwrap()), example);
    }
    fn reboot_request(example: &Value) {
        let received = RebootRequest::parse(example.to_string().as_bytes()).unwrap();
        assert_eq!(&json(&received.request), example);
    }
    let parts = parts();
    for part in &parts {
        for example in &part.examples {
            match part.heading.as_str() {
                "Direct methods" => {
                    let method = example["methodName"].as_str().unwrap().parse();
                    assert_eq!(method, Ok(MethodName::RebootDevice));
                    reboot_request(&example["payload"]);
                }
                "rebootDevice: payload" => reboot_request(example),
                "rebootDevice: reply" => same::<RebootReply>(example),
                "cancelReboot: payload" => same::<CancelRequest>(example),
                "cancelReboot: reply" => same::<CancelReply>(example),
                "getRebootStatus: reply" => same::<StatusReply>(example),
                "getBootHistory: reply" => same::<BootHistoryReply>(example),
                "error" => same::<RefusalReply>(example),
                "Reported: the keys" => same::<Report>(example),
                "The wish" => {
                    let mut desired = twin::Object::new();
                    twin::merge(&mut desired, example.as_object().unwrap());
                    let patch = Wish::parse(&desired["reboot"]).unwrap().patch();
                    assert_eq!(sorted(keys(&patch)), sorted(keys(&example["reboot"])));
                }
                other => panic!("an example under {other:?}, of which nobody knows what it is"),
            }
        }
    }
    assert_eq!(parts.iter().map(|part| part.examples.len()).sum::<usize>(), 10);
}

#[test]
fn each_link_within_the_page_leads_to_a_heading() {
    // As hosts of Markdown make an anchor of a heading.
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let anchors: BTreeSet<String> = parts().iter().map(|part| anchor(&part.heading)).collect();
    let links: Vec<&str> = PAGE.split("](#").skip(1).map(|rest| rest.split_once(')').unwrap().0).collect();
    assert!(!links.is_empty());
    for link in links {
        assert!(anchors.contains(link), "#{link}");
    }
}
