//! Automatic device configurations.

use reqwest::Method;
use serde_json::Value;

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, encoded};
use super::pages::Pages;
use super::throttle::Throttle;

impl HubClient {
    /// The hub's configurations, of which there are at most 100.
    ///
    /// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and throttling".
    pub fn configurations(&self) -> Pages<'_> {
        self.list("/configurations")
    }

    /// Reads a configuration, with the results of its metrics.
    pub async fn configuration(&self, name: &str) -> Result<Value, HubError> {
        self.json(HttpRequest::new(Throttle::Others, Method::GET, path(name))).await
    }

    /// Creates a configuration, and returns it as the hub has it. One of that name
    /// must not be there yet.
    pub async fn create_configuration(&self, name: &str, configuration: &Value) -> Result<Value, HubError> {
        let request = HttpRequest::new(Throttle::Others, Method::PUT, path(name));
        self.json(request.body(configuration)).await
    }

    /// Deletes a configuration. What it has set in twins goes with it.
    pub async fn delete_configuration(&self, name: &str) -> Result<(), HubError> {
        let request = HttpRequest::new(Throttle::Others, Method::DELETE, path(name));
        self.send(&request.if_match("*")).await.map(drop)
    }
}

fn path(name: &str) -> String {
    format!("/configurations/{}", encoded(name))
}
