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
    /// The hub's jobs.
    pub fn jobs(&self) -> Pages<'_> {
        self.list("/jobs/v2/query")
    }

    /// Reads a job.
    pub async fn job(&self, id: &str) -> Result<Value, HubError> {
        let job = self.json(HttpRequest::new(Throttle::Others, Method::GET, job_path(id))).await?;
        self.known(job, id)
    }

    /// Hands a job to the hub's scheduler, and returns the job as the hub has
    /// it.
    pub async fn create_job(&self, id: &str, job: &Value) -> Result<Value, HubError> {
        self.json(HttpRequest::new(Throttle::Others, Method::PUT, job_path(id)).body(job)).await
    }

    /// Cancels a job, and returns the job as the hub then has it.
    pub async fn cancel_job(&self, id: &str) -> Result<Value, HubError> {
        let path = format!("{}/cancel", job_path(id));
        let job = self.json(HttpRequest::new(Throttle::Others, Method::POST, path)).await?;
        self.known(job, id)
    }

    /// `job`, if the hub has it. A hub that has no job of an id answers with
    /// status 200 and a job of the type `unknown`; to us that is what a hub means
    /// that answers with 404.
    fn known(&self, job: Value, id: &str) -> Result<Value, HubError> {
        let kind = job.get("type").and_then(Value::as_str);
        if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("unknown")) {
            let message = format!("it has no job {id}");
            let refusal = HubRefusal::parse(&self.host, 404, Some("JobNotFound"), "");
            return Err(HubError::Refused(Box::new(HubRefusal { message, ..refusal })));
        }
        Ok(job)
    }
}

fn job_path(id: &str) -> String {
    format!("/jobs/v2/{}", encoded(id))
}
