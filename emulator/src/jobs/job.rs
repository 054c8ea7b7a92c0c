//! A job and its JSON.

use iotdm_proto::{DeviceId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::outcome::{Outcome, statistics};
use crate::error::{Code, HubError};
use crate::hub::IfMatch;
use crate::method::Method;
use crate::query::Condition;
use crate::twin::Change;

/// How long a job may run when its creator does not say, in seconds: what the
/// official command line uses.
const DEFAULT_MAX_EXECUTION: u64 = 3600;

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Its creator's name for it.
    pub id: String,
    /// What to do.
    pub work: Work,
    query_condition: String,
    /// When it was created.
    pub created: Time,
    /// When to begin.
    pub start: Time,
    /// How long it may run, in seconds.
    pub max_execution: u64,
    /// How it goes.
    pub status: Status,
    /// When it began.
    pub began: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
}

/// What a job does to a device, in the words of its creator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Calls a method.
    Method(Value),
    /// Changes tags and desired properties.
    Twin(Value),
}

/// How a job goes. The spelling of the last three is unverified; it is that
/// of the official SDKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Just created.
    Queued,
    /// Waits for its time.
    Scheduled,
    /// Has begun.
    Running,
    /// Has done with every device, well or not.
    Completed,
    /// Could not be carried out.
    Failed,
    /// Was cancelled.
    Cancelled,
}

impl Job {
    /// Reads a service's body for the job `id`.
    pub fn parse(id: &str, body: &Value, now: Time) -> Result<Self, HubError> {
        let invalid = |why: String| Code::ArgumentInvalid.because(why);
        // Job ids have the alphabet of device ids.
        if id.parse::<DeviceId>().is_err() {
            return Err(invalid(format!("{id:?} is not a job id")));
        }
        let text = |key: &str| body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text("jobId").is_some_and(|other| other != id) {
            return Err(invalid("the jobId of the body is not that of the path".into()));
        }
        let part = |key: &str| body.get(key).cloned().ok_or_else(|| invalid(format!("{key} is missing")));
        let work = match text("type") {
            Some("scheduleDeviceMethod") => Work::Method(part("cloudToDeviceMethod")?),
            Some("scheduleUpdateTwin") => Work::Twin(part("updateTwin")?),
            _ => return Err(invalid("type is scheduleDeviceMethod or scheduleUpdateTwin".into())),
        };
        work.check()?;
        let query_condition =
            text("queryCondition").ok_or_else(|| invalid("queryCondition is missing".into()))?;
        let start = match text("startTime") {
            Some(text) => text.parse().map_err(|error| invalid(format!("startTime: {error}")))?,
            None => now,
        };
        let max_execution = match body.get("maxExecutionTimeInSeconds") {
            None | Some(Value::Null) => Some(DEFAULT_MAX_EXECUTION),
            Some(Value::String(text)) => text.parse().ok(),
            Some(number) => number.as_u64(),
        };
        let max_execution = max_execution
            .filter(|seconds| *seconds > 0)
            .ok_or_else(|| invalid("maxExecutionTimeInSeconds is not a number of seconds above 0".into()))?;
        let job = Job {
            id: id.to_owned(),
            work,
            query_condition: query_condition.to_owned(),
            created: now,
            start,
            max_execution,
            status: Status::Queued,
            began: None,
            ended: None,
        };
        job.condition()?;
        Ok(job)
    }

    /// Which devices it is for; `None` means all.
    pub fn condition(&self) -> Result<Option<Condition>, HubError> {
        match self.query_condition.trim() {
            "*" => Ok(None),
            condition => condition.parse().map(Some),
        }
    }

    /// Marks it as ended.
    pub fn end(&mut self, status: Status, now: Time) {
        (self.status, self.ended) = (status, Some(now));
    }

    /// As `/jobs/v2/{id}` shows it.
    pub fn json<'a>(&self, outcomes: impl Iterator<Item = &'a Outcome>) -> Value {
        let mut json = json!({
            "jobId": self.id,
            "type": self.work.job_type(),
            "status": self.status,
            "queryCondition": self.query_condition,
            "createdTime": self.created,
            "startTime": self.start,
            "maxExecutionTimeInSeconds": self.max_execution,
            "deviceJobStatistics": statistics(outcomes),
        });
        let (key, work) = match &self.work {
            Work::Method(body) => ("cloudToDeviceMethod", body),
            Work::Twin(body) => ("updateTwin", body),
        };
        if let Value::Object(json) = &mut json {
            json.insert(key.into(), work.clone());
            if let Some(ended) = self.ended {
                json.insert("endTime".into(), ended.to_string().into());
            }
        }
        json
    }
}

impl Work {
    /// Its name in IoT Hub.
    pub fn job_type(&self) -> &'static str {
        match self {
            Work::Method(_) => "scheduleDeviceMethod",
            Work::Twin(_) => "scheduleUpdateTwin",
        }
    }

    fn check(&self) -> Result<(), HubError> {
        match self {
            Work::Method(body) => Method::parse(body.clone()).map(drop),
            Work::Twin(body) => Change::parse(body).map(drop),
        }
    }

    /// Which twins a change is for, by their etag.
    pub fn if_match(body: &Value) -> IfMatch {
        match body.get("etag").and_then(Value::as_str).unwrap_or("*") {
            "*" | "" => IfMatch::Any,
            etag => IfMatch::Etag(etag.to_owned()),
        }
    }
}

impl Status {
    /// Whether nothing more happens.
    pub fn is_end(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// Its spelling in IoT Hub.
    pub fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Scheduled => "scheduled",
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> Time {
        format!("2026-11-22T18:36:{second:02}Z").parse().unwrap()
    }

    fn body(change: Value) -> Value {
        let mut body = json!({
            "jobId": "j", "type": "scheduleDeviceMethod", "queryCondition": "*",
            "cloudToDeviceMethod": {"methodName": "m", "payload": {}, "responseTimeoutInSeconds": "30"},
            "startTime": "2026-11-22T18:36:09Z", "maxExecutionTimeInSeconds": "60",
        });
        iotdm_proto::twin::merge(body.as_object_mut().unwrap(), change.as_object().unwrap());
        body
    }

    #[test]
    fn what_may_be_left_out() {
        let job = Job::parse("j", &body(json!({})), at(0)).unwrap();
        assert_eq!((job.start, job.max_execution), (at(9), 60));
        let left_out = json!({"startTime": null, "maxExecutionTimeInSeconds": null, "jobId": null});
        let job = Job::parse("j", &body(left_out), at(0)).unwrap();
        assert_eq!((job.start, job.max_execution), (at(0), 3600));
        assert!(job.condition().unwrap().is_none());
    }

    #[test]
    fn each_bad_body_is_refused() {
        for change in [
            json!({"jobId": "other"}),
            json!({"type": "reboot"}),
            json!({"type": "scheduleUpdateTwin"}),
            json!({"type": "scheduleUpdateTwin", "updateTwin": {"tags": 1}}),
            json!({"cloudToDeviceMethod": {"methodName": "a b"}}),
            json!({"queryCondition": null}),
            json!({"queryCondition": "deviceId ="}),
            json!({"startTime": "soon"}),
            json!({"maxExecutionTimeInSeconds": 0}),
        ] {
            let error = Job::parse("j", &body(change.clone()), at(0)).unwrap_err();
            assert_eq!(error.code, Code::ArgumentInvalid, "{change}");
        }
        assert!(Job::parse("a b", &body(json!({"jobId": null})), at(0)).is_err());
    }
}
