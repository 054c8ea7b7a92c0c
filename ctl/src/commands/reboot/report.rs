//! The report of a run, made of its journal: one HTML file that needs nothing else,
//! for a browser and for paper.

use std::fmt::Write as _;

use iotdm_proto::{DeviceId, ModuleId, Time};

use super::device_outcome::DeviceOutcome;
use super::journal::Story;
use super::outcome::Outcome;
use super::summary::counts;
use crate::exit::Exit;
use crate::output::{cell, printable};

/// How wide the picture is, in its own units.
const WIDTH: f64 = 1000.0;
/// Where the bars begin; left of them are the names.
const LEFT: f64 = 180.0;
/// How high the picture is at most; with many devices the bars get thinner.
const HIGHEST: f64 = 2400.0;
/// How high a device's row is where there is room, in the same units.
const ROW: f64 = 14.0;
/// How high a row has to be for a name beside it.
const ROW_WITH_NAME: f64 = 9.0;
/// Where the first row begins, below the times.
const TOP: f64 = 24.0;

const STYLE: &str = "\
body{font:15px/1.45 sans-serif;color:#1a1a1a;margin:2em auto;max-width:64em;padding:0 1em}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
dl{display:grid;grid-template-columns:max-content auto;gap:.2em 1.2em}dt{color:#555}dd{margin:0}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25em .8em .25em 0;\
border-bottom:1px solid #ddd;vertical-align:top;overflow-wrap:anywhere}\
svg{width:100%;height:auto}text{font:10px sans-serif;fill:#444}\
.good{color:#12662f}.bad{color:#a81515}.open{color:#666}\
rect.good{fill:#2f9e57}rect.bad{fill:#d23b3b}rect.open{fill:#b9b9b9}line{stroke:#ddd}\
@media print{body{margin:0;max-width:none;font-size:11px}h2{break-after:avoid}tr{break-inside:avoid}}";

/// What is told of one device.
struct Row<'a> {
    device: &'a DeviceId,
    group: String,
    called: Option<Time>,
    /// How long it was from the call to the outcome, in seconds.
    seconds: Option<f64>,
    /// Whether there is no outcome yet of a call.
    is_open: bool,
    outcome: Outcome,
    why: &'a str,
}

/// The report as HTML.
pub(super) fn html(story: &Story) -> String {
    let plan = &story.plan;
    let rows: Vec<Row<'_>> = rows(story);
    let request = plan.request.payload();
    let outcome = |device: &DeviceId| story.outcomes.get(device).map_or(Outcome::NotStarted, |on| on.outcome);
    let asked = |key: &str| request.get(key).map(|value| cell(Some(value)));
    let ended = rows.iter().filter_map(|row| Some(row.called?.after(duration(row.seconds?)))).max();
    let title = format!("Reboot of {}", counts(plan.devices.iter().map(outcome)));
    let facts = [
        ("Hub", Some(plan.hub.clone())),
        ("Module", plan.module.as_ref().map(ModuleId::to_string)),
        ("Request", Some(plan.request.id().to_string())),
        ("Asked for by", asked("operator")),
        ("Reason", asked("reason")),
        ("Began", Some(plan.at.to_string())),
        ("Last outcome", ended.map(|time| time.to_string())),
        ("Away", away(&rows)),
    ];
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<dl>",
        title = escaped(&title)
    );
    for (name, fact) in facts {
        if let Some(fact) = fact {
            let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&fact));
        }
    }
    page.push_str("</dl>\n");
    picture(&mut page, &rows);
    let failed: Vec<&Row<'_>> = rows.iter().filter(|row| class(row.outcome) == "bad").collect();
    if !failed.is_empty() {
        page.push_str("<h2>What failed, and why</h2>\n");
        table(&mut page, &["Device", "Group", "Outcome", "Why"], &failed, |row| {
            [row.device.to_string(), row.group.clone(), row.outcome.words().to_owned(), row.why.to_owned()]
        });
    }
    page.push_str("<h2>All devices</h2>\n");
    table(
        &mut page,
        &["Device", "Group", "Called", "Outcome after"],
        &rows.iter().collect::<Vec<_>>(),
        |row| {
            let called = row.called.map_or_else(|| "-".to_owned(), |time| time.to_string());
            let after =
                row.seconds.map_or_else(String::new, |seconds| format!(" after {}", friendly(seconds)));
            let note = match class(row.outcome) == "good" && !row.why.is_empty() {
                true => format!("; {}", row.why),
                false => String::new(),
            };
            let outcome = format!("{}{after}{note}", row.outcome.words());
            [row.device.to_string(), row.group.clone(), called, outcome]
        },
    );
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(
        page,
        "<p class=\"open\">Made by iotdm-ctl {version}. All times are UTC.</p>\n</body></html>\n"
    );
    page
}

/// The devices by their groups, and within a group by the time of their calls.
fn rows(story: &Story) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = story
        .plan
        .devices
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let outcome = story.outcomes.get(device);
            let group = story.plan.groups.get(index).and_then(Option::as_ref);
            Row {
                device,
                group: group.map(|group| cell(Some(group))).unwrap_or_default(),
                called: story.sent.get(device).copied(),
                seconds: outcome.and_then(|outcome| outcome.told.seconds),
                is_open: outcome.is_none_or(|outcome| outcome.outcome == Outcome::TimedOut),
                outcome: outcome.map_or(Outcome::NotStarted, |outcome| outcome.outcome),
                why: outcome.and_then(DeviceOutcome::why).unwrap_or_default(),
            }
        })
        .collect();
    // Those that were not called come last in their groups.
    rows.sort_by(|a, b| {
        (&a.group, a.called.is_none(), a.called).cmp(&(&b.group, b.called.is_none(), b.called))
    });
    rows
}

/// How long the devices that came back were away.
fn away(rows: &[Row<'_>]) -> Option<String> {
    let mut seconds: Vec<f64> =
        rows.iter().filter(|row| row.outcome == Outcome::Completed).filter_map(|row| row.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let (middle, longest) = (seconds.get(seconds.len() / 2)?, seconds.last()?);
    Some(format!(
        "{} from the call to the outcome (median), {} at most",
        friendly(*middle),
        friendly(*longest)
    ))
}

/// The run over time: a bar for each device that was called.
fn picture(page: &mut String, rows: &[Row<'_>]) {
    let called: Vec<(&Row<'_>, Time)> = rows.iter().filter_map(|row| Some((row, row.called?))).collect();
    let Some(begin) = called.iter().map(|(_, time)| *time).min() else { return };
    let span = called
        .iter()
        .map(|(row, time)| time.since(begin).as_secs_f64() + row.seconds.unwrap_or(0.0))
        .fold(1.0, f64::max);
    let row_height = ROW.min(HIGHEST / f64::from(u32::try_from(called.len()).unwrap_or(u32::MAX)));
    let height = TOP + row_height * f64::from(u32::try_from(called.len()).unwrap_or(u32::MAX));
    let x = |seconds: f64| LEFT + (WIDTH - LEFT) * seconds / span;
    let _ = write!(
        page,
        "<h2>The run over time</h2>\n<svg viewBox=\"0 0 {WIDTH} {height:.1}\" role=\"img\" \
         aria-label=\"When each device was away\">"
    );
    for step in 0..=5 {
        let seconds = span * f64::from(step) / 5.0;
        let (at, anchor) = (x(seconds), if step == 5 { "end" } else { "middle" });
        let _ = write!(
            page,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"16\" y2=\"{height:.1}\"/>\
             <text x=\"{at:.1}\" y=\"11\" text-anchor=\"{anchor}\">{}</text>",
            friendly(seconds)
        );
    }
    let mut last_group = None;
    let mut y = TOP;
    for (row, time) in called {
        let start = time.since(begin).as_secs_f64();
        // A device that refused was not away; one that is not back still is.
        let seconds = row.seconds.unwrap_or(if row.is_open { span - start } else { 0.0 });
        let width = (x(start + seconds) - x(start)).max(2.0);
        let is_new = last_group != Some(&row.group);
        last_group = Some(&row.group);
        let name = match (row_height >= ROW_WITH_NAME, row.group.is_empty()) {
            (true, true) => row.device.to_string(),
            (true, false) if is_new => format!("{}: {}", row.group, row.device),
            (true, false) => row.device.to_string(),
            (false, _) => String::new(),
        };
        let bar = row_height * 0.8;
        let _ = write!(
            page,
            "<rect class=\"{}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{bar:.1}\"><title>{}</title></rect>",
            class(row.outcome),
            x(start),
            escaped(&format!("{}: {}", row.device, row.outcome.words()))
        );
        if !name.is_empty() {
            let below = y + bar;
            let shown: String = name.chars().take(30).collect();
            let _ = write!(
                page,
                "<text x=\"{}\" y=\"{below:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                escaped(&shown)
            );
        }
        y += row_height;
    }
    page.push_str("</svg>\n");
}

fn table(page: &mut String, header: &[&str], rows: &[&Row<'_>], cells: impl Fn(&Row<'_>) -> [String; 4]) {
    page.push_str("<table><thead><tr>");
    for name in header {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        let _ = write!(page, "<tr class=\"{}\">", class(row.outcome));
        for cell in cells(row) {
            let _ = write!(page, "<td>{}</td>", escaped(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table>\n");
}

/// How an outcome looks.
fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotStarted => "open",
        outcome if outcome.exit() == Exit::Done => "good",
        _ => "bad",
    }
}

/// Text as it may stand anywhere in HTML, whoever wrote it.
fn escaped(text: &str) -> String {
    let text = printable(text);
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// A duration in whole seconds, such as `4m 36s`.
fn friendly(seconds: f64) -> String {
    format!("{:#}", jiff::SignedDuration::from_secs(duration(seconds.round()).as_secs().cast_signed()))
}

fn duration(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::commands::reboot::journal::Journal;

    const JOURNAL: &str = r#"{"run":{"version":2,"at":"2026-11-22T18:00:00.000Z","hub":"hub:8443","request":{"id":"r-1","reason":"a <b> & \"c\"","operator":"alice@ops"},"way":"method","rules":{"maxInFlight":10,"canary":0,"maxFailures":null,"maxPerSecond":40},"devices":["gw1","gw2","gw3"],"groups":["north","south",null]}}
{"sent":{"device":"gw1","before":{"agent":true},"at":"2026-11-22T18:00:01.000Z"}}
{"sent":{"device":"gw2","before":{"agent":true},"at":"2026-11-22T18:00:02.000Z"}}
{"ended":{"device":"gw2","id":"r-1","outcome":"timedOut","error":"<script>alert(1)</script>\u001b[2J"}}
{"ended":{"device":"gw1","id":"r-1","outcome":"completed","rebootTime":"U","seconds":21.3}}
"#;

    #[test]
    fn tells_who_when_how_long_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, JOURNAL).unwrap();
        let page = html(&Journal::story(&path).unwrap());
        for part in [
            "<h1>Reboot of 3 devices: 1 completed, 1 timed out, 1 not started</h1>",
            "<dd>hub:8443</dd>",
            "<dd>alice@ops</dd>",
            "<dd>a &lt;b&gt; &amp; &quot;c&quot;</dd>",
            "<dd>2026-11-22T18:00:22.300Z</dd>",
            "21s from the call to the outcome (median), 21s at most",
            "<td>gw2</td><td>south</td><td>timed out</td><td>&lt;script&gt;alert(1)&lt;/script&gt;\\u001b[2J</td>",
            "<td>gw1</td><td>north</td><td>2026-11-22T18:00:01.000Z</td><td>completed after 21s</td>",
            "<td>gw3</td><td></td><td>-</td><td>not started</td>",
            "north: gw1</text>",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert_eq!(page.matches("<rect ").count(), 2, "a bar for each that was called");
        // Nothing is fetched, and nothing runs.
        for part in ["http://", "https://", "<script", "src=\"", "href"] {
            assert!(!page.contains(part), "{part}");
        }
    }
}
