//! The jobs of the hub's scheduler.

use reqwest::Method;
use serde_json::Value;

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, encoded};
use super::pages::Pages;
use super::refusal::HubRefusal;
use super::throttle::Throttle;

impl HubClient {
    /// The hub's jobs, at most `top` of them.
    pub fn jobs(&self, top: Option<usize>) -> Pages<'_> {
        self.list("/jobs/v2/query", top)
    }

    /// Reads a job. Of a job that is not there IoT Hub says, with 200, that its
    /// status is unknown; here that is a refusal.
    pub async fn job(&self, id: &str) -> Result<Value, HubError> {
        let job: Value = self.json(HttpRequest::new(Throttle::Others, Method::GET, job_path(id))).await?;
        if job.get("status").and_then(Value::as_str) == Some("unknown") {
            let host = self.endpoint().to_string();
            return Err(HubError::Refused(Box::new(HubRefusal::parse(&host, 404, Some("JobNotFound"), ""))));
        }
        Ok(job)
    }

    /// Hands a job to the hub's scheduler, and returns the job as the hub has
    /// it.
    pub async fn create_job(&self, id: &str, job: &Value) -> Result<Value, HubError> {
        self.json(HttpRequest::new(Throttle::Others, Method::PUT, job_path(id)).body(job)).await
    }

    /// Cancels a job, and returns the job as the hub then has it.
    pub async fn cancel_job(&self, id: &str) -> Result<Value, HubError> {
        let path = format!("{}/cancel", job_path(id));
        self.json(HttpRequest::new(Throttle::Others, Method::POST, path)).await
    }
}

fn job_path(id: &str) -> String {
    format!("/jobs/v2/{}", encoded(id))
}
