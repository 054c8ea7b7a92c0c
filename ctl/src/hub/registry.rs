//! The registry: the identities of devices, and of modules. Where modules are meant
//! ([`HubClient::module`]), what is asked about a device is asked about that module of it.

use iotdm_proto::DeviceId;
use reqwest::Method;
use serde_json::Value;

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, identity_path};
use super::throttle::Throttle;

impl HubClient {
    /// Reads a device's identity, keys included.
    pub async fn device(&self, device: &DeviceId) -> Result<Value, HubError> {
        self.json(HttpRequest::new(
            Throttle::Others,
            Method::GET,
            identity_path("devices", &self.identity(device)),
        ))
        .await
    }

    /// Creates a device, or, with `etag`, replaces the identity that still has
    /// this etag. Returns the identity, keys included.
    pub async fn put_device(
        &self,
        device: &DeviceId,
        identity: &Value,
        etag: Option<&str>,
    ) -> Result<Value, HubError> {
        let request =
            HttpRequest::new(Throttle::Others, Method::PUT, identity_path("devices", &self.identity(device)))
                .body(identity);
        self.json(match etag {
            Some(etag) => request.if_match(etag),
            None => request,
        })
        .await
    }

    /// Carries out up to 100 changes of the registry, and returns the errors of
    /// those that failed, each with its `deviceId`.
    pub async fn bulk(&self, changes: &Value) -> Result<Vec<Value>, HubError> {
        let mut request =
            HttpRequest::new(Throttle::Others, Method::POST, "/devices".to_owned()).body(changes);
        request.results_with_400 = true;
        let mut result: Value = self.json(request).await?;
        let errors = match result.get_mut("errors").map(Value::take) {
            Some(Value::Array(errors)) => errors,
            _ => Vec::new(),
        };
        if errors.is_empty() && result.get("isSuccessful") == Some(&Value::Bool(false)) {
            let cause = "the hub says that not all of it was done, and not of which".to_owned();
            return Err(HubError::NotAHub { host: self.host.clone(), cause });
        }
        Ok(errors)
    }

    /// Deletes a device, with its keys and its twin.
    pub async fn delete_device(&self, device: &DeviceId) -> Result<(), HubError> {
        let request = HttpRequest::new(
            Throttle::Others,
            Method::DELETE,
            identity_path("devices", &self.identity(device)),
        );
        self.send(&request.if_match("*")).await.map(drop)
    }
}
