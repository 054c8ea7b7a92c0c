//! Scheduled jobs: one method call or twin change for many devices, now or
//! later.
//!
//! [`job`] says what a job is and looks like, [`device_job`] how it goes with
//! one of the job's devices. [`Jobs`] keeps both durably and knows nothing of
//! the hub; the runner of jobs, which stands above the hub, carries them out. A
//! job survives the emulator's end. Whether a call that was under way then has
//! reached its device, nobody knows; since a call reaches its device at most
//! once, such a call has failed and is not repeated.
//!
//! Source: "Schedule jobs on multiple devices", "Queries for IoT Hub jobs" and
//! the REST reference of the job client.

pub mod device_job;
pub mod job;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use iotdm_proto::Time;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::clock::now;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::store::{Batch, DEVICE_JOBS, JOBS, Store};
use device_job::{DeviceJob, DeviceJobStatus, statistics};
use iotdm_proto::Identity;
use job::{Job, JobStatus};

/// How long a job is kept after its end: 30 days. Source: "Schedule jobs on
/// multiple devices".
const HISTORY: Duration = Duration::from_secs(30 * 24 * 3600);

/// All jobs.
pub struct Jobs {
    inner: Mutex<Inner>,
    /// Changes when a job is created or cancelled.
    changed: watch::Sender<()>,
    /// Changes when the new status of a device's part has been written, or
    /// could not be.
    saved: watch::Sender<()>,
}

struct Inner {
    store: Store,
    jobs: BTreeMap<String, Entry>,
}

/// A job with its devices.
struct Entry {
    job: Job,
    devices: BTreeMap<Identity, DeviceJob>,
    /// The devices whose next status is being written. Until that status is on
    /// disk nobody sees it, and nobody else changes the device's part.
    saving: BTreeSet<Identity>,
}

impl Jobs {
    /// The jobs in the store. The ones that were running go on.
    pub fn open(store: Store) -> Result<Self> {
        let mut jobs: BTreeMap<String, Entry> =
            store.all::<Job>(JOBS)?.into_iter().map(|(id, job)| (id, Entry::new(job))).collect();
        for (name, mut device_job) in store.all::<DeviceJob>(DEVICE_JOBS)? {
            let (id, device) = name.split_once('/').context("a stored part of a job names no device")?;
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

    /// Takes a new job on, and forgets jobs that ended more than 30 days ago.
    pub fn create(&self, job: Job) -> Result<Value, HubRefusal> {
        let mut inner = self.lock();
        inner.forget_before(job.created.before(HISTORY))?;
        if inner.jobs.contains_key(&job.id) {
            return Err(ErrorCode::JobAlreadyExists.because(format!("a job with id {} exists", job.id)));
        }
        let entry = Entry::new(job);
        inner.put(&entry, &[])?;
        let json = entry.json();
        inner.jobs.insert(entry.job.id.clone(), entry);
        drop(inner);
        self.changed.send_replace(());
        Ok(json)
    }

    /// The job as services see it. Of one that is not there the service says that
    /// its status is unknown, which official clients go by.
    pub fn json(&self, id: &str) -> Value {
        let unknown = || json!({ "jobId": id, "type": "unknown", "status": "unknown" });
        self.lock().jobs.get(id).map_or_else(unknown, Entry::json)
    }

    /// Cancels a job that has not ended. Devices whose turn has not come are
    /// left alone; calls under way are not called back.
    pub fn cancel(&self, id: &str) -> Result<Value, HubRefusal> {
        let json = self.lock().change(id, |entry| {
            if entry.job.status.is_end() {
                let message = format!("the job is {} already", entry.job.status.name());
                return Err(ErrorCode::OperationNotAllowedInCurrentState.because(message));
            }
            entry.job.end(JobStatus::Cancelled, now());
            Ok(entry.end_pending(&DeviceJobStatus::Canceled))
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

    /// Looks at the devices' parts of all jobs, as queries over `devices.jobs`
    /// show them, until `look` breaks. Each comes with its name, by which a
    /// later look can go on `after` it.
    pub fn scan_devices(&self, after: Option<&str>, mut look: impl FnMut(String, Value) -> ControlFlow<()>) {
        let inner = self.lock();
        for (id, entry) in &inner.jobs {
            for (device, device_job) in &entry.devices {
                let name = name(id, device);
                // Names are compared by their parts, since '/' sorts after some of
                // the characters of ids.
                if after.is_some_and(|after| name.split_once('/') <= after.split_once('/')) {
                    continue;
                }
                if look(name, device_job.json(&entry.job, device)).is_break() {
                    return;
                }
            }
        }
    }

    /// The jobs that have to begin or go on now, and when the next of the
    /// others has to. Marks jobs that wait for their time as scheduled.
    pub(crate) fn due(&self, now: Time) -> Result<(Vec<String>, Option<Time>), HubRefusal> {
        let mut inner = self.lock();
        let (due, later): (Vec<_>, Vec<_>) = inner
            .jobs
            .values()
            .filter(|entry| !entry.job.status.is_end())
            .map(|entry| (entry.job.start, entry.job.id.clone(), entry.job.status))
            .partition(|(start, _, status)| *start <= now || *status == JobStatus::Running);
        for (_, id, _) in later.iter().filter(|(_, _, status)| *status == JobStatus::Queued) {
            inner.change(id, |entry| {
                entry.job.status = JobStatus::Scheduled;
                Ok(Vec::new())
            })?;
        }
        let next = later.iter().map(|(start, _, _)| *start).min();
        Ok((due.into_iter().map(|(_, id, _)| id).collect(), next))
    }

    /// The job `id` as it is now, if there is one.
    pub(crate) fn job(&self, id: &str) -> Option<Job> {
        self.lock().jobs.get(id).map(|entry| entry.job.clone())
    }

    /// Marks a job as running. A job that has not begun before gets `devices`
    /// for its devices. Returns the devices whose turn has not come.
    pub(crate) fn begin(&self, id: &str, devices: Vec<Identity>) -> Result<Vec<Identity>, HubRefusal> {
        let mut inner = self.lock();
        inner.change(id, |entry| {
            if entry.job.status.is_end() || entry.job.status == JobStatus::Running {
                return Ok(Vec::new());
            }
            entry.job.status = JobStatus::Running;
            entry.job.began = Some(now());
            entry.devices = devices.into_iter().map(|device| (device, DeviceJob::new(now()))).collect();
            Ok(entry.devices.keys().cloned().collect())
        })?;
        let entry = inner.jobs.get(id).ok_or_else(|| not_found(id))?;
        let pending =
            entry.devices.iter().filter(|(_, device_job)| device_job.status == DeviceJobStatus::Pending);
        Ok(pending.map(|(device, _)| device.clone()).collect())
    }

    /// Notes how it goes with a device: the new `status` is shown once it is
    /// durable. `false`, and no effect, when the device's part has ended
    /// already. Runs in a task of its own, so that a caller that is dropped
    /// cannot leave on disk what is never shown.
    pub(crate) async fn note(
        self: &Arc<Self>,
        id: &str,
        device: &Identity,
        status: DeviceJobStatus,
    ) -> Result<bool, HubRefusal> {
        let mut batch = Batch::default();
        let (store, device_job) = {
            let Inner { store, jobs } = &mut *self.lock();
            let entry = jobs.get_mut(id).ok_or_else(|| not_found(id))?;
            let open = entry.devices.get(device).filter(|found| !found.status.is_end());
            let Some(mut device_job) = open.cloned() else { return Ok(false) };
            device_job.become_now(status, now());
            batch.put(DEVICE_JOBS, &name(id, device), &device_job).map_err(HubRefusal::internal)?;
            entry.saving.insert(device.clone());
            (store.clone(), device_job)
        };
        let (jobs, id, device) = (self.clone(), id.to_owned(), device.clone());
        let save = async move {
            let written = store.write_along(batch).await;
            if let Some(entry) = jobs.lock().jobs.get_mut(&id) {
                entry.saving.remove(&device);
                if written.is_ok() {
                    entry.devices.insert(device, device_job);
                }
            }
            jobs.saved.send_replace(());
            written
        };
        let written = tokio::spawn(save).await.map_err(HubRefusal::internal)?;
        written.map_err(HubRefusal::internal)?;
        Ok(true)
    }

    /// Ends a job that cannot begin with any device, as failed with `why`.
    pub(crate) fn fail(&self, id: &str, why: &HubRefusal) -> Result<(), HubRefusal> {
        self.lock().change(id, |entry| {
            if !entry.job.status.is_end() {
                entry.job.failure_reason = Some(why.reason().to_owned());
                entry.job.end(JobStatus::Failed, now());
            }
            Ok(Vec::new())
        })?;
        Ok(())
    }

    /// Ends a job that was not cancelled, once all that is being written has
    /// been; devices whose part has not ended by then have failed with `why`.
    pub(crate) async fn finish(&self, id: &str, why: &HubRefusal) -> Result<(), HubRefusal> {
        let mut saved = self.saved.subscribe();
        let is_saving = || self.lock().jobs.get(id).is_some_and(|entry| !entry.saving.is_empty());
        while is_saving() {
            // Never an error: `self` has the sender.
            let _ = saved.changed().await;
        }
        self.lock().change(id, |entry| {
            let open = entry.end_open(&DeviceJobStatus::failed(why));
            if !entry.job.status.is_end() {
                entry.job.end(JobStatus::Completed, now());
            }
            Ok(open)
        })?;
        Ok(())
    }

    /// Changes when a job is created or cancelled.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Changes a job and writes it together with the devices' parts that
    /// `change` returns; returns how services see the job then. When the change
    /// cannot be kept, nothing happens.
    fn change(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Entry) -> Result<Vec<Identity>, HubRefusal>,
    ) -> Result<Value, HubRefusal> {
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

    /// Writes a job and its parts for `devices`.
    fn put(&self, entry: &Entry, devices: &[Identity]) -> Result<(), HubRefusal> {
        let write = || -> Result<()> {
            let mut batch = Batch::default();
            batch.put(JOBS, &entry.job.id, &entry.job)?;
            for device in devices {
                if let Some(device_job) = entry.devices.get(device) {
                    batch.put(DEVICE_JOBS, &name(&entry.job.id, device), device_job)?;
                }
            }
            self.store.write(batch)
        };
        block_in_place(write).map_err(HubRefusal::internal)
    }

    /// Forgets the jobs that ended before `limit`.
    fn forget_before(&mut self, limit: Time) -> Result<(), HubRefusal> {
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
                self.store.write(batch)
            };
            block_in_place(remove).map_err(HubRefusal::internal)?;
        }
        Ok(())
    }
}

impl Entry {
    fn new(job: Job) -> Self {
        Entry { job, devices: BTreeMap::new(), saving: BTreeSet::new() }
    }

    fn json(&self) -> Value {
        self.job.json(statistics(self.devices.values().map(|device_job| &device_job.status)))
    }

    /// Ends the parts whose turn has not come.
    fn end_pending(&mut self, status: &DeviceJobStatus) -> Vec<Identity> {
        self.end_where(status, |found| *found == DeviceJobStatus::Pending)
    }

    /// Ends the parts that have not ended.
    fn end_open(&mut self, status: &DeviceJobStatus) -> Vec<Identity> {
        self.end_where(status, |found| !found.is_end())
    }

    /// Ends the parts of a status for which `which` holds, except those that
    /// are being written, and returns their devices.
    fn end_where(
        &mut self,
        status: &DeviceJobStatus,
        which: impl Fn(&DeviceJobStatus) -> bool,
    ) -> Vec<Identity> {
        let mut ended = Vec::new();
        let Entry { devices, saving, .. } = self;
        let open = |device: &Identity, found: &DeviceJob| which(&found.status) && !saving.contains(device);
        for (device, device_job) in devices.iter_mut().filter(|(device, found)| open(device, found)) {
            device_job.become_now(status.clone(), now());
            ended.push(device.clone());
        }
        ended
    }
}

/// The name of a device's part of a job, in the store and in continuations.
fn name(id: &str, device: &Identity) -> String {
    format!("{id}/{device}")
}

fn not_found(id: &str) -> HubRefusal {
    ErrorCode::JobNotFound.because(format!("{id}: no such job"))
}
