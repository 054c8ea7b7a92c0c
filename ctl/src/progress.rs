//! Shows on stderr what goes on while a command runs: on a terminal one line per
//! device, which is redrawn as things change; elsewhere a line for each change.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use console::Style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::screen::redraws;
use crate::output::{say, say_as, sayable};

/// The progress of a command, on stderr.
pub struct Progress {
    /// The lines that are redrawn, if stderr is a terminal.
    screen: Option<MultiProgress>,
    /// The line that counts the devices, if there are several. It is the first,
    /// since a terminal shows as many lines as it has, from the first on.
    total: Option<ProgressBar>,
}

/// The progress of one device.
pub struct Track<'a> {
    progress: &'a Progress,
    device: String,
    /// The device's line, if stderr is a terminal.
    bar: Option<ProgressBar>,
    /// The states that the device has come through.
    trail: RefCell<String>,
    /// Whether the last line about the device has been written.
    has_ended: Cell<bool>,
}

/// How the last line about a device stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// All is as it should be.
    Good,
    /// Something failed.
    Bad,
    /// Neither.
    Plain,
}

/// What stands between two states of a device.
const ARROW: &str = " → ";

/// How often a spinner is redrawn: 8 times a second, which looks like movement.
const TICK: Duration = Duration::from_millis(120);

impl Progress {
    /// The progress of a command for `devices` devices.
    pub fn new(devices: usize) -> Self {
        let screen = MultiProgress::new();
        if screen.is_hidden() {
            return Progress { screen: None, total: None };
        }
        redraws(Some(screen.clone()));
        let total = (devices > 1).then(|| {
            let bar = ProgressBar::new(u64::try_from(devices).unwrap_or(u64::MAX));
            let bar =
                screen.add(bar).with_style(style("{spinner} {pos} of {len} done, {elapsed} {wide_bar}"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Progress { screen: Some(screen), total }
    }

    /// Begins the line of a device.
    pub fn track(&self, device: &impl fmt::Display) -> Track<'_> {
        let bar = self.screen.as_ref().map(|screen| {
            let bar = ProgressBar::new_spinner();
            if self.total.is_some() {
                return screen.add(bar).with_style(style("{wide_msg}"));
            }
            let bar = screen.add(bar).with_style(style("{spinner} {wide_msg}"));
            bar.enable_steady_tick(TICK);
            bar
        });
        let device = device.to_string();
        Track { progress: self, device, bar, trail: RefCell::default(), has_ended: Cell::default() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.finish_and_clear();
        }
        if let Some(screen) = &self.screen {
            let _ = screen.clear();
            redraws(None);
        }
    }
}

impl Track<'_> {
    /// The device has come to `state`. `more` says more about it where each
    /// change has a line of its own.
    pub fn now(&self, state: &str, more: &str) {
        let Some(bar) = &self.bar else { return say(format_args!("{}: {state}{more}", self.device)) };
        let mut trail = self.trail.borrow_mut();
        if !trail.is_empty() {
            trail.push_str(ARROW);
        }
        trail.push_str(state);
        bar.set_message(sayable(&format!("{}: {trail}", self.device)));
    }

    /// The device is in the same state still, of which there is now more to say. Where
    /// each change has a line of its own, it gets one only if it `is_news`.
    pub fn still(&self, state: &str, is_news: bool) {
        let Some(bar) = &self.bar else {
            return if is_news {
                say(format_args!("{}: {state}", self.device))
            };
        };
        let mut trail = self.trail.borrow_mut();
        let before = trail.rfind(ARROW).map_or(0, |at| at + ARROW.len());
        trail.truncate(before);
        trail.push_str(state);
        bar.set_message(sayable(&format!("{}: {trail}", self.device)));
    }

    /// Writes a remark about the device that is no new state.
    pub fn remark(&self, remark: fmt::Arguments<'_>) {
        say(format_args!("{}: {remark}", self.device));
    }

    /// Writes the last line about the device, which stays in place of the one that
    /// was redrawn. A bad one is an error message of the program.
    pub fn finish(&self, state: fmt::Arguments<'_>, tone: Tone) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.has_ended.set(true);
        let device = &self.device;
        match tone {
            Tone::Good => say_as(format_args!("{device}: {state}"), &Style::new().green()),
            Tone::Bad => say_as(format_args!("iotdm-ctl: {device}: {state}"), &Style::new().red()),
            Tone::Plain => say(format_args!("{device}: {state}")),
        }
    }
}

impl Drop for Track<'_> {
    fn drop(&mut self) {
        if let (Some(screen), Some(bar)) = (&self.progress.screen, &self.bar) {
            bar.finish_and_clear();
            screen.remove(bar);
        }
        // A device whose run was interrupted is not done.
        if let Some(total) = self.progress.total.as_ref().filter(|_| self.has_ended.get()) {
            total.inc(1);
        }
    }
}

/// The style of a template of indicatif. The templates of this file all parse;
/// one that did not would show as a plain spinner in the first run.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
