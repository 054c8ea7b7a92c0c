//! Shows on stderr what goes on while a command runs: on a terminal one line per
//! device, which is redrawn as things change; elsewhere a line for each change.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{say, sayable};

/// The progress of a command, on stderr.
pub struct Progress {
    /// The lines that are redrawn, if stderr is a terminal.
    screen: Option<MultiProgress>,
    /// The line that counts the devices, if there are several.
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
}

/// How often a spinner is redrawn: 8 times a second, which looks like movement.
const TICK: Duration = Duration::from_millis(120);

impl Progress {
    /// The progress of a command for `devices` devices.
    pub fn new(devices: usize) -> Self {
        let screen = MultiProgress::new();
        if screen.is_hidden() {
            return Progress { screen: None, total: None };
        }
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
            let bar = ProgressBar::new_spinner().with_style(style("{wide_msg}"));
            match &self.total {
                Some(total) => screen.insert_before(total, bar),
                None => {
                    let bar = screen.add(bar).with_style(style("{spinner} {wide_msg}"));
                    bar.enable_steady_tick(TICK);
                    bar
                }
            }
        });
        Track { progress: self, device: device.to_string(), bar, trail: RefCell::default() }
    }

    /// Writes a line that is about no device's state, and stays.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        self.aside(|| say(line));
    }

    /// Calls `write`, which writes to the terminal, while the redrawn lines are
    /// out of the way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.screen {
            Some(screen) => screen.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(total) = &self.total {
            total.finish_and_clear();
        }
        if let Some(screen) = &self.screen {
            let _ = screen.clear();
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
            trail.push_str(" → ");
        }
        trail.push_str(state);
        bar.set_message(sayable(&format!("{}: {trail}", self.device)));
    }

    /// Writes a remark about the device that is no new state.
    pub fn remark(&self, remark: fmt::Arguments<'_>) {
        self.progress.say(format_args!("{}: {remark}", self.device));
    }

    /// Writes the last line about the device, which stays in place of the one that
    /// was redrawn.
    pub fn finish(&self, state: fmt::Arguments<'_>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.remark(state);
    }
}

impl Drop for Track<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(total) = &self.progress.total {
            total.inc(1);
        }
        if let (Some(screen), Some(bar)) = (&self.progress.screen, &self.bar) {
            screen.remove(bar);
        }
    }
}

/// The style of a template of indicatif. The templates of this file all parse;
/// one that did not would show as a plain spinner in the first run.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
