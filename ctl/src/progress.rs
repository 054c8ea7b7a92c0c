//! What goes on while a command runs: on a terminal one line per device that
//! changes as it goes, elsewhere a line for each change.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{printable, say};

/// The progress of a command, on stderr.
pub struct Progress {
    screen: Option<MultiProgress>,
    total: Option<ProgressBar>,
}

/// The progress of one device.
pub struct Track<'a> {
    progress: &'a Progress,
    device: String,
    bar: Option<ProgressBar>,
    trail: RefCell<String>,
}

/// How often what runs on its own is drawn.
const TICK: Duration = Duration::from_millis(120);

impl Progress {
    /// That of a command for `devices` devices.
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

    /// A line of its own.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        self.aside(|| say(line));
    }

    /// Writes something while the moving lines are out of the way.
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
    /// The device has come to this; `more` is for where lines are many.
    pub fn now(&self, state: &str, more: &str) {
        let Some(bar) = &self.bar else { return say(format_args!("{}: {state}{more}", self.device)) };
        let mut trail = self.trail.borrow_mut();
        if !trail.is_empty() {
            trail.push_str(" → ");
        }
        trail.push_str(state);
        bar.set_message(printable(&format!("{}: {trail}", self.device)));
    }

    /// Something that is no step of its own.
    pub fn remark(&self, remark: fmt::Arguments<'_>) {
        self.progress.say(format_args!("{}: {remark}", self.device));
    }

    /// The device's end, which stays.
    pub fn end(&self, state: fmt::Arguments<'_>) {
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

/// The templates here are constants; one that did not parse would show in
/// the first run.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
