//! The commands that change the identities of devices, for one device or many.

use std::cell::Cell;
use std::collections::BTreeSet;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use iotdm_proto::{DeviceId, ModuleId};
use serde_json::{Value, json};

use super::CHUNK;
use crate::cli::ManyArgs;
use crate::commands::selection::{Conditions, each_once, in_a_question, selected};
use crate::device_file;
use crate::error::or_interrupt;
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, HubError, HubRefusal};
use crate::output::{Output, say};
use crate::prompt::confirm;

/// How many devices are worked on at once. The registry takes less than two
/// requests in a second, so that more would only wait.
const AT_ONCE: usize = 8;

/// The devices of a command.
pub(super) struct Many {
    /// The devices, each once.
    pub(super) devices: Vec<DeviceId>,
    /// Whether the command line names exactly one device: such a command prints
    /// what it always has.
    pub(super) is_one: bool,
    /// The module of each device that is meant, if not the device itself.
    module: Option<ModuleId>,
}

/// What became of the devices so far.
#[derive(Default)]
pub(super) struct Changed {
    done: Vec<DeviceId>,
    failed: Vec<(DeviceId, String, Exit)>,
    /// Whether it is modules of the devices that were changed.
    are_modules: bool,
}

impl Many {
    /// The devices that the command line means. `None` if a file or a condition
    /// means none, which has been said then.
    pub(super) async fn of(hub: &HubClient, args: &ManyArgs) -> anyhow::Result<Option<Self>> {
        let conditions = Conditions::given(hub, args.condition.as_ref(), args.where_module.as_ref())?;
        let devices = each_once(match (conditions, &args.from) {
            (Some(conditions), _) => selected(hub, conditions).await?,
            (None, Some(path)) => device_file::devices("--from", path)?,
            (None, None) => args.devices.clone(),
        });
        if devices.is_empty() {
            say(format_args!("iotdm-ctl: no device is selected, nothing was changed"));
            return Ok(None);
        }
        let is_one = args.devices.len() == 1;
        Ok(Some(Many { devices, is_one, module: hub.module().cloned() }))
    }

    /// Asks whether to do what `verb` says, unless the answer was given on the
    /// command line. `more` is what the question adds, if anything.
    pub(super) async fn may(
        &self,
        hub: &HubClient,
        command: &str,
        args: &ManyArgs,
        (verb, more): (&str, &str),
    ) -> anyhow::Result<()> {
        let question = format!("{verb} {}{more}?", in_a_question(hub, &self.devices));
        if args.yes || confirm(command, question).await? {
            Ok(())
        } else {
            anyhow::bail!("nothing was changed")
        }
    }

    /// Does `work` for each device, some at a time, and says how each went: `word`
    /// is what the devices then are. After a failure of the hub's own, no other
    /// device is begun.
    pub(super) async fn each(
        &self,
        output: Output,
        word: &str,
        work: impl AsyncFn(&DeviceId) -> anyhow::Result<()>,
    ) -> anyhow::Result<Changed> {
        let mut changed = Changed { are_modules: self.module.is_some(), ..Changed::default() };
        let (stopped, count) = (Cell::new(false), Cell::new(0));
        let one = async |device: &DeviceId| {
            if stopped.get() {
                return None;
            }
            let result = work(device).await;
            let hubs_own = |error: &anyhow::Error| {
                error.chain().filter_map(|cause| cause.downcast_ref()).any(HubError::is_hubs_own)
            };
            stopped.set(stopped.get() || result.as_ref().is_err_and(hubs_own));
            Some((device.clone(), result))
        };
        let all = async {
            let mut results = stream::iter(&self.devices).map(one).buffer_unordered(AT_ONCE);
            while let Some(result) = results.next().await {
                let Some((device, result)) = result else { continue };
                match result {
                    Ok(()) => {
                        if output.is_text() {
                            output.line(format_args!("{device} {word}"))?;
                        }
                        count.set(count.get() + 1);
                        changed.done.push(device);
                    }
                    Err(error) if exit_of(&error) == Exit::Done => return Err(error),
                    Err(error) => changed.fail(device, &error, exit_of(&error)),
                }
            }
            Ok(())
        };
        let many = self.devices.len();
        or_interrupt(all, || {
            format!("interrupted: {} of {many} devices {word}, and a few more may be", count.get())
        })
        .await?;
        if stopped.get() {
            changed.note_unbegun(&self.devices);
        }
        Ok(changed)
    }

    /// Deletes the devices, many at a time.
    pub(super) async fn delete(&self, hub: &HubClient) -> anyhow::Result<Changed> {
        let mut changed = Changed { are_modules: self.module.is_some(), ..Changed::default() };
        for chunk in self.devices.chunks(CHUNK) {
            let change = |device| match &self.module {
                None => json!({"id": device, "importMode": "delete"}),
                Some(module) => json!({"id": device, "moduleId": module, "importMode": "delete"}),
            };
            let changes: Vec<Value> = chunk.iter().map(change).collect();
            let changes = json!(changes);
            let request = async { hub.bulk(&changes).await.context("deleting devices") };
            let done = changed.done.len();
            let notice =
                || format!("interrupted: {done} devices were deleted, and up to {} more may be", chunk.len());
            let errors = match or_interrupt(request, notice).await {
                Ok(errors) => errors,
                Err(error) => {
                    if exit_of(&error) != Exit::Interrupted {
                        say(format_args!("{done} devices were deleted"));
                    }
                    return Err(error);
                }
            };
            for device in chunk {
                match errors
                    .iter()
                    .find(|error| error.get("deviceId").and_then(Value::as_str) == Some(device.as_str()))
                {
                    None => changed.done.push(device.clone()),
                    Some(error) => {
                        let refusal = HubRefusal::of_bulk(&hub.endpoint().to_string(), error);
                        let exit = refusal.kind().into();
                        changed.fail(device.clone(), &HubError::Refused(Box::new(refusal)).into(), exit);
                    }
                }
            }
        }
        Ok(changed)
    }
}

impl Changed {
    /// Notes that a device was not changed, and says why.
    fn fail(&mut self, device: DeviceId, error: &anyhow::Error, exit: Exit) {
        let text = format!("{error:#}");
        let text = text.strip_prefix(&format!("{device}: ")).unwrap_or(&text);
        say(format_args!("iotdm-ctl: {device}: {text}"));
        self.failed.push((device, text.to_owned(), exit));
    }

    /// Notes those of all `devices` that nothing was done about, since the hub failed.
    fn note_unbegun(&mut self, devices: &[DeviceId]) {
        let failed = self.failed.iter().map(|(device, ..)| device);
        let known: BTreeSet<DeviceId> = self.done.iter().chain(failed).cloned().collect();
        let unbegun = devices.iter().filter(|device| !known.contains(*device));
        let note =
            |device: &DeviceId| (device.clone(), "not begun, since the hub failed".to_owned(), Exit::Failure);
        self.failed.extend(unbegun.map(note));
    }

    /// Prints what it came to, and returns how to exit. `word` is what the devices
    /// now are, such as `disabled`.
    pub(super) fn end(&self, output: Output, word: &str) -> anyhow::Result<Exit> {
        if output.is_text() {
            let count = self.done.len();
            let noun = match (self.are_modules, count) {
                (false, 1) => "device",
                (false, _) => "devices",
                (true, 1) => "module",
                (true, _) => "modules",
            };
            let failed = match self.failed.len() {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            output.line(format_args!("{count} {noun} {word}{failed}"))?;
        } else {
            let error =
                |(device, error, _): &(DeviceId, String, Exit)| json!({"deviceId": device, "error": error});
            let errors: Vec<Value> = self.failed.iter().map(error).collect();
            output.json(&json!({word: self.done, "errors": errors}))?;
        }
        let mut exits = self.failed.iter().map(|(.., exit)| *exit);
        Ok(match exits.next() {
            None => Exit::Done,
            // What was not begun does not count: the first failure is the hub's.
            Some(first)
                if self.done.is_empty() && exits.all(|exit| exit == first || exit == Exit::Failure) =>
            {
                first
            }
            Some(_) => Exit::RebootFailed,
        })
    }
}
