//! What a job did to one device, and its JSON.

use iotdm_proto::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::job::{Job, Work};
use crate::error::{Code, HubError};
use crate::identity::Identity;

/// What a job did to one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceJob {
    /// How it went.
    pub outcome: Outcome,
    created: Time,
    updated: Time,
    started: Option<Time>,
    ended: Option<Time>,
}

/// How it goes with one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Its turn has not come.
    Pending,
    /// Under way.
    Running,
    /// The device answered, with this status and payload, or its twin is
    /// changed (`null`).
    Completed(Value),
    /// It did not come to that.
    Failed {
        /// Number and name of the error.
        code: String,
        /// What is wrong.
        description: String,
    },
    /// The job was cancelled before its turn.
    Canceled,
}

impl DeviceJob {
    /// One whose turn has not come.
    pub fn new(now: Time) -> Self {
        DeviceJob { outcome: Outcome::Pending, created: now, updated: now, started: None, ended: None }
    }

    /// Notes what became of it.
    pub fn become_now(&mut self, outcome: Outcome, now: Time) {
        if outcome == Outcome::Running {
            self.started = Some(now);
        }
        if outcome.is_end() {
            self.ended = Some(now);
        }
        (self.outcome, self.updated) = (outcome, now);
    }

    /// What to make of it after the emulator has ended in between.
    pub fn resume(&mut self, work: &Work, now: Time) {
        match (&self.outcome, work) {
            (Outcome::Running, Work::Method(_)) => {
                let why = Code::GatewayTimeout.because("the hub ended while the call was under way");
                self.become_now(Outcome::failed(&why), now);
            }
            // Changing a twin twice does no harm.
            (Outcome::Running, Work::Twin(_)) => self.become_now(Outcome::Pending, now),
            _ => {}
        }
    }

    /// As `devices.jobs` shows it.
    pub fn json(&self, job: &Job, device: &Identity) -> Value {
        let mut json = json!({
            "deviceId": device.device.as_str(),
            "jobId": job.id,
            "jobType": job.work.job_type(),
            "status": self.outcome.name(),
            "createdDateTimeUtc": self.created,
            "lastUpdatedDateTimeUtc": self.updated,
        });
        let Value::Object(fields) = &mut json else { return json };
        for (key, time) in [("startTimeUtc", self.started), ("endTimeUtc", self.ended)] {
            if let Some(time) = time {
                fields.insert(key.into(), time.to_string().into());
            }
        }
        match &self.outcome {
            Outcome::Completed(response) => {
                fields.insert("outcome".into(), json!({ "deviceMethodResponse": response }));
            }
            Outcome::Failed { code, description } => {
                fields.insert("error".into(), json!({ "code": code, "description": description }));
            }
            _ => {}
        }
        json
    }
}

impl Outcome {
    /// The outcome of something that was refused. How the real service writes
    /// `code` is unverified.
    pub fn failed(why: &HubError) -> Self {
        let code = format!("{}-{:?}", why.code as u32, why.code);
        Outcome::Failed { code, description: why.message.clone() }
    }

    /// Whether nothing more happens.
    pub fn is_end(&self) -> bool {
        !matches!(self, Outcome::Pending | Outcome::Running)
    }

    fn name(&self) -> &'static str {
        match self {
            Outcome::Pending => "pending",
            Outcome::Running => "running",
            Outcome::Completed(_) => "completed",
            Outcome::Failed { .. } => "failed",
            Outcome::Canceled => "canceled",
        }
    }
}

/// How many devices there are of each kind.
pub(super) fn statistics<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Value {
    let mut counts: Map<String, Value> =
        ["deviceCount", "succeededCount", "failedCount", "runningCount", "pendingCount"]
            .map(|key| (key.to_owned(), 0.into()))
            .into_iter()
            .collect();
    let mut count = |key: &str| {
        let so_far = counts.get(key).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(key.to_owned(), (so_far + 1).into());
    };
    for outcome in outcomes {
        count("deviceCount");
        match outcome {
            Outcome::Pending => count("pendingCount"),
            Outcome::Running => count("runningCount"),
            Outcome::Completed(_) => count("succeededCount"),
            Outcome::Failed { .. } => count("failedCount"),
            Outcome::Canceled => {}
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
        device_job.become_now(Outcome::Running, at(1));
        let mut of_twin = device_job.clone();
        device_job.resume(&Work::Method(json!({})), at(2));
        assert!(
            matches!(&device_job.outcome, Outcome::Failed { code, .. } if code == "504101-GatewayTimeout")
        );
        of_twin.resume(&Work::Twin(json!({})), at(2));
        assert_eq!(of_twin.outcome, Outcome::Pending);
    }

    #[test]
    fn rows_and_counts() {
        let body = json!({
            "type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": {"methodName": "m"},
        });
        let job = Job::parse("j", &body, at(0)).unwrap();
        let mut done = DeviceJob::new(at(0));
        done.become_now(Outcome::Running, at(1));
        done.become_now(Outcome::Completed(json!({"status": 200, "payload": 1})), at(2));
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
        let failed = Outcome::failed(&Code::DeviceNotOnline.because("x"));
        let outcomes = [Outcome::Pending, Outcome::Canceled, done.outcome, failed.clone(), failed];
        let expected = json!({
            "deviceCount": 5, "succeededCount": 1, "failedCount": 2, "runningCount": 0, "pendingCount": 1,
        });
        assert_eq!(job.json(outcomes.iter())["deviceJobStatistics"], expected);
    }
}
