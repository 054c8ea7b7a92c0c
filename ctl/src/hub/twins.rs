//! The twins of devices, and of modules.

use iotdm_proto::{DeviceId, Identity};
use reqwest::Method;
use serde_json::Value;

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, identity_path};
use super::methods::Turn;
use super::throttle::Throttle;
use crate::twin::Twin;

impl HubClient {
    /// Reads the twin of a device, or of the module of it that is meant.
    pub async fn twin(&self, device: &DeviceId) -> Result<Twin, HubError> {
        self.read_twin(&self.identity(device)).await
    }

    /// Reads the twin of a device, also where a module of it is meant.
    pub async fn device_twin(&self, device: &DeviceId) -> Result<Twin, HubError> {
        self.read_twin(&device.clone().into()).await
    }

    async fn read_twin(&self, id: &Identity) -> Result<Twin, HubError> {
        self.json(HttpRequest::new(Throttle::Others, Method::GET, identity_path("twins", id))).await
    }

    /// Merges `patch` into a device's twin, if the twin's etag is `etag` where
    /// one is given, and returns the new twin.
    pub async fn patch_twin(
        &self,
        device: &DeviceId,
        patch: &Value,
        etag: Option<&str>,
    ) -> Result<Twin, HubError> {
        self.change_twin(Method::PATCH, device, (patch, etag), None).await
    }

    /// Waits until the next change of a twin may go out, which
    /// [`HubClient::patch_twin_in_turn`] then sends at once.
    pub async fn turn_to_change(&self) -> Turn<'_> {
        Turn { at: self.paces.of(Throttle::Others).turn().await, place: None }
    }

    /// Merges `patch` into a device's twin, whatever its etag is, in a turn that has been
    /// waited for with [`HubClient::turn_to_change`], or else in the next one.
    pub async fn patch_twin_in_turn(
        &self,
        device: &DeviceId,
        patch: &Value,
        turn: Option<Turn<'_>>,
    ) -> Result<Twin, HubError> {
        self.change_twin(Method::PATCH, device, (patch, None), turn).await
    }

    /// Replaces the tags and the desired properties of a device's twin, if the
    /// twin's etag is `etag` where one is given, and returns the new twin.
    pub async fn replace_twin(
        &self,
        device: &DeviceId,
        twin: &Value,
        etag: Option<&str>,
    ) -> Result<Twin, HubError> {
        self.change_twin(Method::PUT, device, (twin, etag), None).await
    }

    async fn change_twin(
        &self,
        method: Method,
        device: &DeviceId,
        (body, etag): (&Value, Option<&str>),
        turn: Option<Turn<'_>>,
    ) -> Result<Twin, HubError> {
        let mut request =
            HttpRequest::new(Throttle::Others, method, identity_path("twins", &self.identity(device)));
        request.turn = turn.map(|turn| turn.at);
        self.json(request.body(body).if_match(etag.unwrap_or("*"))).await
    }
}
