//! A job as a service describes it, and the JSON that shows it.

use iotdm_proto::{DeviceId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::etag::IfMatch;
use crate::fields::field_of;
use crate::method_call::MethodCall;
use crate::query::Condition;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::twin::TwinChange;

/// How long a job may run when its creator does not say, in seconds: an hour,
/// which the official command line sends.
const DEFAULT_MAX_EXECUTION: u64 = 3600;

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The name that the job's creator gave it.
    pub id: String,
    /// What to do to each device.
    pub work: Work,
    /// Which devices the job is for: `*` for all, else a condition.
    query_condition: String,
    /// When the job was created.
    pub created: Time,
    /// When the job is to begin.
    pub start: Time,
    /// How long the job may run, in seconds, above 0.
    pub max_execution: u64,
    /// How the job goes.
    pub status: JobStatus,
    /// When the job began, if it has.
    pub began: Option<Time>,
    /// When the job ended, if it has.
    pub ended: Option<Time>,
    /// Why the job failed, if it has.
    #[serde(default)]
    pub failure_reason: Option<String>,
}

/// What a job does to a device, in the JSON of the job's creator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Calls a method.
    Method(Value),
    /// Changes tags and desired properties.
    Twin(Value),
}

/// How a job goes. The spelling of the last three is unverified; it is taken
/// from the official SDKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobStatus {
    /// The job has just been created.
    Queued,
    /// The job waits for its time.
    Scheduled,
    /// The job has begun.
    Running,
    /// The job has done with every device, well or not.
    Completed,
    /// The job could not be carried out.
    Failed,
    /// The job was cancelled.
    Cancelled,
}

impl Job {
    /// Reads a service's body for the job `id`.
    pub fn parse(id: &str, body: &Value, now: Time) -> Result<Self, HubRefusal> {
        let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
        // Job ids have the alphabet of device ids.
        if id.parse::<DeviceId>().is_err() {
            return Err(invalid(format!("{id:?} is not a job id")));
        }
        let text = |key: &str| field_of(body, key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if field_of(body, "jobId").is_some_and(|other| !other.is_null() && other != id) {
            return Err(invalid("the jobId of the body is not that of the path".into()));
        }
        let part =
            |key: &str| field_of(body, key).cloned().ok_or_else(|| invalid(format!("{key} is missing")));
        let work = match text("type") {
            Some("scheduleDeviceMethod") => Work::Method(part("cloudToDeviceMethod")?),
            Some("scheduleUpdateTwin") => Work::Twin(part("updateTwin")?),
            _ => {
                let why = "type is scheduleDeviceMethod or scheduleUpdateTwin";
                return Err(ErrorCode::GenericBadRequest.bad_request(why));
            }
        };
        work.check()?;
        let query_condition =
            text("queryCondition").ok_or_else(|| invalid("queryCondition is missing".into()))?;
        let start = match text("startTime") {
            Some(text) => text.parse().map_err(|error| invalid(format!("startTime: {error}")))?,
            None => now,
        };
        let max_execution = match field_of(body, "maxExecutionTimeInSeconds") {
            None | Some(Value::Null) => Some(DEFAULT_MAX_EXECUTION),
            Some(Value::String(text)) => text.parse().ok(),
            Some(number) => number.as_u64(),
        };
        let max_execution = max_execution
            .filter(|seconds| *seconds > 0)
            .ok_or_else(|| invalid("maxExecutionTimeInSeconds is not a number of seconds above 0".into()))?;
        Ok(Job {
            id: id.to_owned(),
            work,
            query_condition: query_condition.to_owned(),
            created: now,
            start,
            max_execution,
            status: JobStatus::Queued,
            began: None,
            ended: None,
            failure_reason: None,
        })
    }

    /// Which devices the job is for; `None` means all. The service takes a job on
    /// without looking at its condition; the job fails when its time has come.
    pub fn condition(&self) -> Result<Option<Condition>, HubRefusal> {
        let parse = |condition: &str| condition.parse::<Condition>();
        match self.query_condition.trim() {
            "*" => Ok(None),
            condition => parse(condition).map(Some).map_err(|refusal| {
                refusal.code.because(format!("SQL query parse failed: {}", refusal.reason()))
            }),
        }
    }

    /// Marks the job as ended at the time `now`.
    pub fn end(&mut self, status: JobStatus, now: Time) {
        (self.status, self.ended) = (status, Some(now));
    }

    /// The job as `/jobs/v2/{id}` shows it, with the `statistics` of its devices.
    pub fn json(&self, statistics: Value) -> Value {
        let mut json = json!({
            "jobId": self.id,
            "type": self.work.job_type(),
            "status": self.status,
            "queryCondition": self.query_condition,
            "createdTime": self.created,
            "startTime": self.start,
            "maxExecutionTimeInSeconds": self.max_execution,
            "deviceJobStatistics": statistics,
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
            if let Some(reason) = &self.failure_reason {
                json.insert("failureReason".into(), reason.as_str().into());
            }
        }
        json
    }
}

impl Work {
    /// What IoT Hub calls a job with this work.
    pub fn job_type(&self) -> &'static str {
        match self {
            Work::Method(_) => "scheduleDeviceMethod",
            Work::Twin(_) => "scheduleUpdateTwin",
        }
    }

    /// Whether the work can be understood.
    fn check(&self) -> Result<(), HubRefusal> {
        match self {
            Work::Method(body) => MethodCall::parse(body.clone()).map(drop),
            Work::Twin(body) => TwinChange::parse(body).map(drop),
        }
    }

    /// Which etags of twins the change in `body` is for; without one it is for
    /// all.
    pub fn if_match(body: &Value) -> IfMatch {
        IfMatch::in_json(field_of(body, "etag").and_then(Value::as_str))
    }
}

impl JobStatus {
    /// Whether nothing more happens to the job.
    pub fn is_end(self) -> bool {
        matches!(self, JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled)
    }

    /// How IoT Hub spells the status.
    pub fn name(self) -> &'static str {
        match self {
            JobStatus::Queued => "queued",
            JobStatus::Scheduled => "scheduled",
            JobStatus::Running => "running",
            JobStatus::Completed => "completed",
            JobStatus::Failed => "failed",
            JobStatus::Cancelled => "cancelled",
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
            json!({"type": "scheduleUpdateTwin"}),
            json!({"type": "scheduleUpdateTwin", "updateTwin": {"tags": 1}}),
            json!({"cloudToDeviceMethod": {"methodName": "a b"}}),
            json!({"queryCondition": null}),
            json!({"startTime": "soon"}),
            json!({"maxExecutionTimeInSeconds": 0}),
        ] {
            let error = Job::parse("j", &body(change.clone()), at(0)).unwrap_err();
            assert_eq!(error.code, ErrorCode::ArgumentInvalid, "{change}");
        }
        let unknown = Job::parse("j", &body(json!({"type": "reboot"})), at(0)).unwrap_err();
        assert_eq!((unknown.code, unknown.message.as_str()), (ErrorCode::GenericBadRequest, "BadRequest"));
        assert!(Job::parse("a b", &body(json!({"jobId": null})), at(0)).is_err());
        let job = Job::parse("j", &body(json!({"queryCondition": "deviceId ="})), at(0)).unwrap();
        assert!(job.condition().unwrap_err().message.starts_with("SQL query parse failed"));
    }
}
