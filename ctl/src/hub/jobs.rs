//! The jobs of the hub's scheduler.

use percent_encoding::utf8_percent_encode;
use reqwest::Method;
use serde_json::Value;

use super::{ENCODED, Hub, Pages, Request};
use crate::hub_error::HubError;

impl Hub {
    /// The hub's jobs, at most `top` of them.
    pub fn jobs(&self, top: Option<usize>) -> Pages<'_> {
        self.list("/jobs/v2/query", top)
    }

    /// A job.
    pub async fn job(&self, id: &str) -> Result<Value, HubError> {
        self.json(Request::new(Method::GET, job_path(id))).await
    }

    /// Hands a job to the hub's scheduler.
    pub async fn create_job(&self, id: &str, job: &Value) -> Result<Value, HubError> {
        let mut request = Request::new(Method::PUT, job_path(id));
        request.body = Some(job);
        self.json(request).await
    }

    /// Cancels a job.
    pub async fn cancel_job(&self, id: &str) -> Result<Value, HubError> {
        self.json(Request::new(Method::POST, format!("{}/cancel", job_path(id)))).await
    }
}

fn job_path(id: &str) -> String {
    format!("/jobs/v2/{}", utf8_percent_encode(id, ENCODED))
}
