//! Jobs: one method call or twin change for many devices, now or later.
//!
//! [`job`] says what a job is and looks like, [`outcome`] what became of each
//! device; [`Jobs`] keeps both durably, [`runner`] carries them out. A job
//! survives the emulator's end; of a call that was under way then, nobody knows
//! whether the device got it, and since a call reaches its device at most once
//! it is failed, not repeated.
//!
//! Source: "Schedule jobs on multiple devices", "Queries for IoT Hub jobs" and
//! the REST reference of the job client.

pub mod job;
pub mod outcome;
pub mod runner;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use iotdm_proto::Time;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::device::now;
use crate::error::{Code, HubError};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::store::{Batch, DEVICE_JOBS, JOBS, Store};
use job::{Job, Status};
use outcome::{DeviceJob, Outcome};

/// Ended jobs are kept for so long, as the documentation says.
const HISTORY: Duration = Duration::from_secs(30 * 24 * 3600);

/// All jobs.
pub struct Jobs {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    /// Changes when an outcome has been written.
    saved: watch::Sender<()>,
}

struct Inner {
    store: Store,
    jobs: BTreeMap<String, Entry>,
}

struct Entry {
    job: Job,
    devices: BTreeMap<Identity, DeviceJob>,
    /// Those whose next outcome is being written. Until it is on disk nobody
    /// sees it, and nobody else changes it.
    saving: BTreeSet<Identity>,
}

impl Jobs {
    /// The jobs in the store. Those that were running go on.
    pub fn open(store: Store) -> Result<Self> {
        let mut jobs: BTreeMap<String, Entry> =
            store.all::<Job>(JOBS)?.into_iter().map(|(id, job)| (id, Entry::new(job))).collect();
        for (name, mut device_job) in store.all::<DeviceJob>(DEVICE_JOBS)? {
            let (id, device) = name.split_once('/').context("a stored outcome of a job names no device")?;
            let entry = jobs.get_mut(id).with_context(|| format!("the stored job {id:?} is missing"))?;
            device_job.resume(&entry.job.work, now());
            entry.devices.insert(device.parse()?, device_job);
        }
        Ok(Jobs {
            inner: Mutex::new(Inner { store, jobs }),
            changed: watch::channel(()).0,
            saved: watch::channel(()).0,
        })
    }

    /// Takes a new job on, and forgets those that ended long ago.
    pub fn create(&self, job: Job) -> Result<Value, HubError> {
        let mut inner = self.lock();
        inner.forget_before(job.created.before(HISTORY))?;
        if inner.jobs.contains_key(&job.id) {
            return Err(Code::JobAlreadyExists.because(format!("a job with id {} exists", job.id)));
        }
        let entry = Entry::new(job);
        inner.put(&entry, &[])?;
        let json = entry.json();
        inner.jobs.insert(entry.job.id.clone(), entry);
        drop(inner);
        self.changed.send_replace(());
        Ok(json)
    }

    /// The job as services see it.
    pub fn json(&self, id: &str) -> Result<Value, HubError> {
        self.lock().jobs.get(id).map(Entry::json).ok_or_else(|| not_found(id))
    }

    /// Ends a job that has not ended. Devices that were not begun are left
    /// alone; calls under way are not called back.
    pub fn cancel(&self, id: &str) -> Result<Value, HubError> {
        let json = self.lock().change(id, |entry| {
            if entry.job.status.is_end() {
                let message = format!("the job is {} already", entry.job.status.name());
                return Err(Code::InvalidOperation.because(message));
            }
            entry.job.end(Status::Cancelled, now());
            Ok(entry.end_pending(&Outcome::Canceled))
        })?;
        self.changed.send_replace(());
        Ok(json)
    }

    /// Looks at the jobs after `after`, in the order of their ids, until
    /// `look` breaks.
    pub fn scan(&self, after: Option<&str>, mut look: impl FnMut(&Job, Value) -> ControlFlow<()>) {
        let inner = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = inner.jobs.range::<str, _>((start, Bound::Unbounded));
        let _ = range.try_for_each(|(_, entry)| look(&entry.job, entry.json()));
    }

    /// Looks at what jobs did to devices, as `devices.jobs` shows it, each
    /// with a name to go on after.
    pub fn scan_devices(&self, after: Option<&str>, mut look: impl FnMut(String, Value) -> ControlFlow<()>) {
        let inner = self.lock();
        for (id, entry) in &inner.jobs {
            for (device, device_job) in &entry.devices {
                let name = name(id, device);
                // Compared by its parts: '/' sorts after some characters of ids.
                if after.is_some_and(|after| name.split_once('/') <= after.split_once('/')) {
                    continue;
                }
                if look(name, device_job.json(&entry.job, device)).is_break() {
                    return;
                }
            }
        }
    }

    /// The jobs that have to begin or go on now, and when the next one has
    /// to. Marks those that wait for their time as scheduled.
    fn due(&self, now: Time) -> Result<(Vec<String>, Option<Time>), HubError> {
        let mut inner = self.lock();
        let (due, later): (Vec<_>, Vec<_>) = inner
            .jobs
            .values()
            .filter(|entry| !entry.job.status.is_end())
            .map(|entry| (entry.job.start, entry.job.id.clone(), entry.job.status))
            .partition(|(start, _, status)| *start <= now || *status == Status::Running);
        for (_, id, _) in later.iter().filter(|(_, _, status)| *status == Status::Queued) {
            inner.change(id, |entry| {
                entry.job.status = Status::Scheduled;
                Ok(Vec::new())
            })?;
        }
        let next = later.iter().map(|(start, _, _)| *start).min();
        Ok((due.into_iter().map(|(_, id, _)| id).collect(), next))
    }

    /// The job, as it is now.
    fn job(&self, id: &str) -> Option<Job> {
        self.lock().jobs.get(id).map(|entry| entry.job.clone())
    }

    /// Marks a job as running, for `devices` if it has not begun before;
    /// returns those that are left to do.
    fn begin(&self, id: &str, devices: Vec<Identity>) -> Result<Vec<Identity>, HubError> {
        let mut inner = self.lock();
        inner.change(id, |entry| {
            if entry.job.status.is_end() || entry.job.status == Status::Running {
                return Ok(Vec::new());
            }
            entry.job.status = Status::Running;
            entry.job.began = Some(now());
            entry.devices = devices.into_iter().map(|device| (device, DeviceJob::new(now()))).collect();
            Ok(entry.devices.keys().cloned().collect())
        })?;
        let entry = inner.jobs.get(id).ok_or_else(|| not_found(id))?;
        let pending = entry.devices.iter().filter(|(_, device_job)| device_job.outcome == Outcome::Pending);
        Ok(pending.map(|(device, _)| device.clone()).collect())
    }

    /// Notes how it goes with a device, once that is durable; `false`, and no
    /// effect, when the job has already done with it. In a task of its own,
    /// since the job's end must not come between the disk and what is shown.
    async fn note(hub: &Arc<Hub>, id: &str, device: &Identity, outcome: Outcome) -> Result<bool, HubError> {
        let mut batch = Batch::default();
        let (store, device_job) = {
            let Inner { store, jobs } = &mut *hub.jobs.lock();
            let entry = jobs.get_mut(id).ok_or_else(|| not_found(id))?;
            let open = entry.devices.get(device).filter(|found| !found.outcome.is_end());
            let Some(mut device_job) = open.cloned() else { return Ok(false) };
            device_job.become_now(outcome, now());
            batch.put(DEVICE_JOBS, &name(id, device), &device_job).map_err(HubError::internal)?;
            entry.saving.insert(device.clone());
            (store.clone(), device_job)
        };
        let (hub, id, device) = (hub.clone(), id.to_owned(), device.clone());
        let save = async move {
            let written = store.write_along(batch).await;
            if let Some(entry) = hub.jobs.lock().jobs.get_mut(&id) {
                entry.saving.remove(&device);
                if written.is_ok() {
                    entry.devices.insert(device, device_job);
                }
            }
            hub.jobs.saved.send_replace(());
            written
        };
        let written = tokio::spawn(save).await.map_err(HubError::internal)?;
        written.map_err(HubError::internal)?;
        Ok(true)
    }

    /// Ends a job that was not cancelled, once what is being written is;
    /// devices without an outcome by then have failed with `why`.
    async fn finish(&self, id: &str, why: &HubError) -> Result<(), HubError> {
        let mut saved = self.saved.subscribe();
        let is_saving = || self.lock().jobs.get(id).is_some_and(|entry| !entry.saving.is_empty());
        while is_saving() {
            // The sender is our own.
            let _ = saved.changed().await;
        }
        self.lock().change(id, |entry| {
            let open = entry.end_open(&Outcome::failed(why));
            if !entry.job.status.is_end() {
                entry.job.end(Status::Completed, now());
            }
            Ok(open)
        })?;
        Ok(())
    }

    /// Changes when a job is created or cancelled.
    fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Changes a job and those of its devices that `change` names; returns
    /// how services see it then. When it cannot be kept, nothing happens.
    fn change(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Entry) -> Result<Vec<Identity>, HubError>,
    ) -> Result<Value, HubError> {
        let mut entry = self.jobs.remove(id).ok_or_else(|| not_found(id))?;
        let before = (entry.job.clone(), entry.devices.clone());
        let kept = change(&mut entry).and_then(|devices| self.put(&entry, &devices));
        if kept.is_err() {
            (entry.job, entry.devices) = before;
        }
        let json = entry.json();
        self.jobs.insert(id.to_owned(), entry);
        kept.map(|()| json)
    }

    fn put(&self, entry: &Entry, devices: &[Identity]) -> Result<(), HubError> {
        let write = || -> Result<()> {
            let mut batch = Batch::default();
            batch.put(JOBS, &entry.job.id, &entry.job)?;
            for device in devices {
                if let Some(device_job) = entry.devices.get(device) {
                    batch.put(DEVICE_JOBS, &name(&entry.job.id, device), device_job)?;
                }
            }
            self.store.write(&batch)
        };
        block_in_place(write).map_err(HubError::internal)
    }

    fn forget_before(&mut self, limit: Time) -> Result<(), HubError> {
        let is_old = |entry: &Entry| entry.job.ended.is_some_and(|ended| ended < limit);
        let old: Vec<String> =
            self.jobs.values().filter(|entry| is_old(entry)).map(|entry| entry.job.id.clone()).collect();
        for id in old {
            let Some(entry) = self.jobs.remove(&id) else { continue };
            let remove = || -> Result<()> {
                let mut batch = Batch::default();
                batch.remove(JOBS, &id);
                for device in entry.devices.keys() {
                    batch.remove(DEVICE_JOBS, &name(&id, device));
                }
                self.store.write(&batch)
            };
            block_in_place(remove).map_err(HubError::internal)?;
        }
        Ok(())
    }
}

impl Entry {
    fn new(job: Job) -> Self {
        Entry { job, devices: BTreeMap::new(), saving: BTreeSet::new() }
    }

    fn json(&self) -> Value {
        self.job.json(self.devices.values().map(|device_job| &device_job.outcome))
    }

    fn end_pending(&mut self, outcome: &Outcome) -> Vec<Identity> {
        self.end_where(outcome, |found| *found == Outcome::Pending)
    }

    fn end_open(&mut self, outcome: &Outcome) -> Vec<Identity> {
        self.end_where(outcome, |found| !found.is_end())
    }

    fn end_where(&mut self, outcome: &Outcome, which: impl Fn(&Outcome) -> bool) -> Vec<Identity> {
        let mut ended = Vec::new();
        let Entry { devices, saving, .. } = self;
        let open = |device: &Identity, found: &DeviceJob| which(&found.outcome) && !saving.contains(device);
        for (device, device_job) in devices.iter_mut().filter(|(device, found)| open(device, found)) {
            device_job.become_now(outcome.clone(), now());
            ended.push(device.clone());
        }
        ended
    }
}

fn name(id: &str, device: &Identity) -> String {
    format!("{id}/{device}")
}

fn not_found(id: &str) -> HubError {
    Code::JobNotFound.because(format!("{id}: no such job"))
}
