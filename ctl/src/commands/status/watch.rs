//! `status --watch`: the devices on the screen, those first that need attention; a
//! line for each change where there is no terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::time::Duration;

use console::{Term, style};
use jiff::Zoned;
use tokio::time::{Instant, sleep_until};

use super::attention::{Attention, counts};
use super::row::{COLUMNS, DeviceStatus, Times};
use super::{Now, now};
use crate::cli::StatusArgs;
use crate::error::or_interrupt;
use crate::exit::Exit;
use crate::hub::{HubClient, HubError};
use crate::natural;
use crate::output::{Format, Output, list_lines, printable, say};

/// The pause between two looks where the command line gives none.
const PAUSE: Duration = Duration::from_secs(10);

/// How much of the pause a query takes at least: 15 of the 20 queries in a minute
/// that the smallest hub takes, so that others can ask as well.
///
/// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and throttling".
const PER_QUERY: Duration = Duration::from_secs(4);

/// Watches the devices until Ctrl-C. Once they have been seen, a hub that is away
/// or throttles does not end it.
pub(super) async fn run(hub: &HubClient, output: Output, args: &StatusArgs) -> anyhow::Result<Exit> {
    let notice = || "interrupted: stopped watching; nothing was changed".to_owned();
    or_interrupt(watch(hub, output, args), notice).await
}

async fn watch(hub: &HubClient, output: Output, args: &StatusArgs) -> anyhow::Result<Exit> {
    let mut missing = BTreeSet::new();
    let mut seen = now(hub, args, &mut missing).await?;
    if !args.devices.is_empty() && seen.statuses.is_empty() {
        return Ok(seen.exit);
    }
    let mut view = View::new(output);
    let mut trouble: Option<String> = None;
    loop {
        let began = Instant::now();
        let pause = pause(args.interval, seen.queries);
        match trouble.take() {
            None => view.show(hub, &mut seen.statuses, pause)?,
            Some(error) => view.show_trouble(hub, &seen.statuses, &error)?,
        }
        sleep_until(began + pause).await;
        match now(hub, args, &mut missing).await {
            Ok(now) => seen = Now { queries: now.queries.max(1), ..now },
            Err(error) if is_transient(&error) => trouble = Some(format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
}

/// The pause between two looks that take so many queries each.
fn pause(given: Option<Duration>, queries: u32) -> Duration {
    given.unwrap_or_else(|| PAUSE.max(PER_QUERY * queries))
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref()).any(HubError::is_transient)
}

/// Where the devices are shown.
enum View {
    /// A terminal that is redrawn.
    Screen(Screen),
    /// Lines for what has changed.
    Lines { output: Output, before: BTreeMap<String, DeviceStatus>, has_begun: bool },
}

/// A terminal whose cursor is hidden until this is dropped.
struct Screen {
    terminal: Term,
}

impl View {
    fn new(output: Output) -> Self {
        let terminal = Term::stdout();
        if output.is_text() && terminal.is_term() {
            let _ = terminal.hide_cursor().and_then(|()| terminal.clear_screen());
            View::Screen(Screen { terminal })
        } else {
            View::Lines { output, before: BTreeMap::new(), has_begun: false }
        }
    }

    /// Shows the devices as they are now, or what has changed.
    fn show(&mut self, hub: &HubClient, statuses: &mut [DeviceStatus], pause: Duration) -> io::Result<()> {
        statuses.sort_by(|a, b| {
            let by_name = || natural::compare(a.device(), b.device());
            Attention::of(a).cmp(&Attention::of(b)).then_with(by_name)
        });
        match self {
            View::Screen(screen) => {
                let every = format!("every {} s", pause.as_secs_f64().round());
                screen.draw(hub, statuses, &every)
            }
            View::Lines { output, before, has_begun } => {
                lines(*output, statuses, before, !*has_begun)?;
                *has_begun = true;
                Ok(())
            }
        }
    }

    /// Shows that the devices could not be seen again.
    fn show_trouble(&mut self, hub: &HubClient, statuses: &[DeviceStatus], error: &str) -> io::Result<()> {
        match self {
            View::Screen(screen) => screen.draw(hub, statuses, &format!("not seen since: {error}")),
            View::Lines { .. } => {
                say(format_args!("iotdm-ctl: {error}"));
                Ok(())
            }
        }
    }
}

/// Writes a line for each device that is not as it was `before`. At first that is
/// a count of all and those that need attention; as JSON, all.
fn lines(
    output: Output,
    statuses: &[DeviceStatus],
    before: &mut BTreeMap<String, DeviceStatus>,
    is_first: bool,
) -> io::Result<()> {
    let as_json = output.format() == Format::Jsonl;
    if is_first && !as_json {
        output.line(format_args!("{} {}", clock(), counts(statuses)))?;
    }
    for status in statuses {
        let known = before.insert(status.device().to_owned(), status.clone());
        let is_new = known.as_ref().is_none_or(|known| !known.looks_like(status));
        match (is_new, as_json) {
            (false, _) => {}
            (true, true) => output.json(status)?,
            (true, false) if is_first && Attention::of(status) == Attention::None => {}
            (true, false) => output.line(format_args!("{} {}", clock(), sentence(status)))?,
        }
    }
    let is_there = |device: &String| statuses.iter().any(|status| status.device() == device);
    let gone: Vec<String> = if before.len() == statuses.len() {
        Vec::new()
    } else {
        before.keys().filter(|device| !is_there(device)).cloned().collect()
    };
    for device in gone {
        before.remove(&device);
        if !as_json {
            output.line(format_args!("{} {device}: not there any more", clock()))?;
        }
    }
    io::stdout().lock().flush()
}

/// How a device is, in one line.
fn sentence(status: &DeviceStatus) -> String {
    let cells = status.cells(&Times::now());
    let named = COLUMNS.iter().zip(&cells).skip(1).filter(|(_, cell)| cell.short != "-");
    let told: Vec<String> =
        named.map(|(column, cell)| format!("{} {}", column.name.to_lowercase(), cell.long)).collect();
    format!("{}: {}", status.device(), told.join(", "))
}

/// The local time of day.
fn clock() -> String {
    Zoned::now().strftime("%H:%M:%S").to_string()
}

impl DeviceStatus {
    /// Whether somebody who looks at the devices would see the same.
    fn looks_like(&self, other: &Self) -> bool {
        self.record() == other.record() && self.health_in_words() == other.health_in_words()
    }
}

impl Screen {
    /// Draws the devices, as many as there is room for. `note` is the end of the
    /// first line.
    fn draw(&self, hub: &HubClient, statuses: &[DeviceStatus], note: &str) -> io::Result<()> {
        let (height, width) = self.terminal.size();
        let title = format!("{}  {}  {note}  {}", clock(), counts(statuses), hub.endpoint());
        let times = Times::now();
        let cells: Vec<_> = statuses.iter().map(|status| status.cells(&times)).collect();
        let table = list_lines(&COLUMNS, &cells, Some(width));
        let mut shown = vec![style(cut(&title, width)).bold().to_string(), String::new()];
        let room = usize::from(height).saturating_sub(shown.len() + 1);
        let is_full = table.len() > room;
        let rows = table.len().min(if is_full { room.saturating_sub(1) } else { room });
        for (index, line) in table.iter().take(rows).enumerate() {
            let status = index.checked_sub(1).and_then(|index| statuses.get(index));
            shown.push(match status.map(Attention::of) {
                None => style(line).dim().to_string(),
                Some(Attention::Trouble) => style(line).red().to_string(),
                Some(Attention::OnTheWay | Attention::Disconnected) => style(line).yellow().to_string(),
                Some(_) => line.clone(),
            });
        }
        if is_full {
            let more = format!("… and {} more", table.len() - rows);
            shown.push(cut(&more, width));
        }
        // Each line is cleared to its end and the rest below the last one, so that
        // nothing flickers.
        let picture: String = shown.iter().map(|line| format!("{line}\u{1b}[K\r\n")).collect();
        let mut out = io::stdout().lock();
        write!(out, "\u{1b}[H{picture}\u{1b}[J")?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
    }
}

/// A line as wide as the terminal at most, whatever is in it.
fn cut(line: &str, width: u16) -> String {
    console::truncate_str(&printable(line), usize::from(width), "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_hub_takes_the_queries() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(None, 0), seconds(10), "named devices need no query");
        assert_eq!(pause(None, 1), seconds(10));
        assert_eq!(pause(None, 20), seconds(80), "2,000 devices: 15 queries in a minute");
        assert_eq!(pause(Some(seconds(2)), 20), seconds(2), "who has a bigger hub says so");
    }
}
