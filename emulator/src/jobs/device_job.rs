//! One device's part of a job: how the job goes with that device, and the JSON
//! that queries over `devices.jobs` show.

use iotdm_proto::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::job::{Job, Work};
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

/// One device's part of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceJob {
    /// How the job goes with the device.
    // Stores of earlier versions have it as "outcome".
    #[serde(alias = "outcome")]
    pub status: DeviceJobStatus,
    /// When the job began for all its devices.
    created: Time,
    /// When the status last changed.
    updated: Time,
    /// When the device's turn came.
    started: Option<Time>,
    /// When the part ended.
    ended: Option<Time>,
}

/// How a job goes with one device. Source of the states: the .NET SDK's
/// `DeviceJobStatus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceJobStatus {
    /// The device's turn has not come.
    Pending,
    /// The call or the change of the twin is under way.
    Running,
    /// The device has replied to the call, with this status and payload; or its
    /// twin is changed, and this is `null`.
    Completed(Value),
    /// The call was not replied to, or the twin could not be changed.
    Failed {
        /// Number and name of the error.
        code: String,
        /// What is wrong.
        description: String,
    },
    /// The job was cancelled before the device's turn came.
    Canceled,
}

impl DeviceJob {
    /// The part of a device whose turn has not come.
    pub fn new(now: Time) -> Self {
        DeviceJob { status: DeviceJobStatus::Pending, created: now, updated: now, started: None, ended: None }
    }

    /// Takes on a new status at the time `now`.
    pub fn become_now(&mut self, status: DeviceJobStatus, now: Time) {
        if status == DeviceJobStatus::Running {
            self.started = Some(now);
        }
        if status.is_end() {
            self.ended = Some(now);
        }
        (self.status, self.updated) = (status, now);
    }

    /// Takes the part up again after the emulator has ended in between: a call
    /// that was under way has failed, a change of a twin is still to be made.
    pub fn resume(&mut self, work: &Work, now: Time) {
        match (&self.status, work) {
            (DeviceJobStatus::Running, Work::Method(_)) => {
                let why = ErrorCode::GatewayTimeout.because("the hub ended while the call was under way");
                self.become_now(DeviceJobStatus::failed(&why), now);
            }
            // To change a twin a second time in the same way does no harm.
            (DeviceJobStatus::Running, Work::Twin(_)) => self.become_now(DeviceJobStatus::Pending, now),
            _ => {}
        }
    }

    /// The part as queries over `devices.jobs` show it.
    pub fn json(&self, job: &Job, device: &Identity) -> Value {
        let mut json = json!({
            "deviceId": device.device.as_str(),
            "jobId": job.id,
            "jobType": job.work.job_type(),
            "status": self.status.name(),
            "createdDateTimeUtc": self.created,
            "lastUpdatedDateTimeUtc": self.updated,
        });
        let Value::Object(fields) = &mut json else { return json };
        for (key, time) in [("startTimeUtc", self.started), ("endTimeUtc", self.ended)] {
            if let Some(time) = time {
                fields.insert(key.into(), time.to_string().into());
            }
        }
        match &self.status {
            DeviceJobStatus::Completed(response) => {
                fields.insert("outcome".into(), json!({ "deviceMethodResponse": response }));
            }
            DeviceJobStatus::Failed { code, description } => {
                fields.insert("error".into(), json!({ "code": code, "description": description }));
            }
            _ => {}
        }
        json
    }
}

impl DeviceJobStatus {
    /// The status of a part that the hub refused to carry out. How the real
    /// service writes `code` is unverified.
    pub fn failed(why: &HubRefusal) -> Self {
        let code = format!("{}-{:?}", why.code as u32, why.code);
        DeviceJobStatus::Failed { code, description: why.reason().to_owned() }
    }

    /// Whether nothing more happens to the device.
    pub fn is_end(&self) -> bool {
        !matches!(self, DeviceJobStatus::Pending | DeviceJobStatus::Running)
    }

    fn name(&self) -> &'static str {
        match self {
            DeviceJobStatus::Pending => "pending",
            DeviceJobStatus::Running => "running",
            DeviceJobStatus::Completed(_) => "completed",
            DeviceJobStatus::Failed { .. } => "failed",
            DeviceJobStatus::Canceled => "canceled",
        }
    }
}

/// The `deviceJobStatistics` of a job: how many of its devices have each
/// status.
pub(super) fn statistics<'a>(statuses: impl Iterator<Item = &'a DeviceJobStatus>) -> Value {
    let mut counts: Map<String, Value> =
        ["deviceCount", "succeededCount", "failedCount", "runningCount", "pendingCount"]
            .map(|key| (key.to_owned(), 0.into()))
            .into_iter()
            .collect();
    let mut count = |key: &str| {
        let so_far = counts.get(key).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(key.to_owned(), (so_far + 1).into());
    };
    for status in statuses {
        count("deviceCount");
        match status {
            DeviceJobStatus::Pending => count("pendingCount"),
            DeviceJobStatus::Running => count("runningCount"),
            DeviceJobStatus::Completed(_) => count("succeededCount"),
            DeviceJobStatus::Failed { .. } => count("failedCount"),
            DeviceJobStatus::Canceled => {}
        }
    }
    Value::Object(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> Time {
        format!("2026-11-22T18:36:{second:02}Z").parse().unwrap()
    }

    #[test]
    fn a_call_that_was_under_way_is_not_repeated_but_a_twin_is_changed_again() {
        let mut device_job = DeviceJob::new(at(0));
        device_job.become_now(DeviceJobStatus::Running, at(1));
        let mut of_twin = device_job.clone();
        device_job.resume(&Work::Method(json!({})), at(2));
        assert!(
            matches!(&device_job.status, DeviceJobStatus::Failed { code, .. } if code == "504101-GatewayTimeout")
        );
        of_twin.resume(&Work::Twin(json!({})), at(2));
        assert_eq!(of_twin.status, DeviceJobStatus::Pending);
    }

    #[test]
    fn a_part_that_an_earlier_version_stored_is_read() {
        let mut stored = serde_json::to_value(DeviceJob::new(at(0))).unwrap();
        let stored = stored.as_object_mut().unwrap();
        let status = stored.remove("status").unwrap();
        stored.insert("outcome".into(), status);
        assert_eq!(DeviceJob::deserialize(Value::Object(stored.clone())).unwrap(), DeviceJob::new(at(0)));
    }

    #[test]
    fn rows_and_counts() {
        let body = json!({
            "type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": {"methodName": "m"},
        });
        let job = Job::parse("j", &body, at(0)).unwrap();
        let mut done = DeviceJob::new(at(0));
        done.become_now(DeviceJobStatus::Running, at(1));
        done.become_now(DeviceJobStatus::Completed(json!({"status": 200, "payload": 1})), at(2));
        assert_eq!(
            done.json(&job, &"gw1".parse().unwrap()),
            json!({
                "deviceId": "gw1", "jobId": "j", "jobType": "scheduleDeviceMethod", "status": "completed",
                "createdDateTimeUtc": "2026-11-22T18:36:00.000Z",
                "lastUpdatedDateTimeUtc": "2026-11-22T18:36:02.000Z",
                "startTimeUtc": "2026-11-22T18:36:01.000Z",
                "endTimeUtc": "2026-11-22T18:36:02.000Z",
                "outcome": {"deviceMethodResponse": {"status": 200, "payload": 1}},
            })
        );
        let failed = DeviceJobStatus::failed(&ErrorCode::DeviceNotOnline.because("x"));
        let statuses =
            [DeviceJobStatus::Pending, DeviceJobStatus::Canceled, done.status, failed.clone(), failed];
        let expected = json!({
            "deviceCount": 5, "succeededCount": 1, "failedCount": 2, "runningCount": 0, "pendingCount": 1,
        });
        assert_eq!(statistics(statuses.iter()), expected);
    }
}
