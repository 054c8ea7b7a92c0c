//! Routes that cannot be declared without saying how they are throttled.
//!
//! A service's request may be refused with 429 before anything else happens to
//! it: by a fault, or since the tier's allowance for its kind of operation is
//! used up. That kind is declared together with the handler, and the device
//! that the request is about is what the route's pattern calls `{device}` and
//! `{module}`: nothing here looks at the text of a path. [`Routes`] takes
//! [`Resource`]s only, which [`get`], [`post`], [`put`], [`patch`] and [`delete`]
//! make and which axum's own functions of these names do not.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use axum::{Extension, Router};

use crate::hub::Hub;
use crate::identity::Identity;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::throttle::Operation;

/// Routes that are no part of IoT Hub's service interface, or of a service that
/// does not throttle here: neither tiers nor faults refuse their requests.
pub(super) const UNMETERED: Option<Operation> = None;

/// The methods that the paths of one pattern serve.
#[derive(Clone)]
pub(super) struct Resource(MethodRouter<Arc<Hub>>);

/// The routes of the REST interface, each a pattern with its resource.
pub(super) struct Routes(Router<Arc<Hub>>);

/// A handler whose requests count as `operation`, if as any.
#[derive(Clone)]
struct Metered<H> {
    operation: Option<Operation>,
    handler: H,
}

/// Serves `GET` (and `HEAD`), throttled as `operation`.
pub(super) fn get<H: Handler<T, Arc<Hub>>, T: 'static>(
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::get(Metered { operation: operation.into(), handler }))
}

/// Serves `POST`, throttled as `operation`.
pub(super) fn post<H: Handler<T, Arc<Hub>>, T: 'static>(
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::post(Metered { operation: operation.into(), handler }))
}

/// Serves `PUT`, throttled as `operation`.
pub(super) fn put<H: Handler<T, Arc<Hub>>, T: 'static>(
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::put(Metered { operation: operation.into(), handler }))
}

/// Serves `PATCH`, throttled as `operation`.
pub(super) fn patch<H: Handler<T, Arc<Hub>>, T: 'static>(
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::patch(Metered { operation: operation.into(), handler }))
}

/// Serves `DELETE`, throttled as `operation`.
pub(super) fn delete<H: Handler<T, Arc<Hub>>, T: 'static>(
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::delete(Metered { operation: operation.into(), handler }))
}

impl Resource {
    /// Serves the methods of `other` as well.
    pub(super) fn and(self, other: Resource) -> Self {
        Resource(self.0.merge(other.0))
    }

    /// Gives each request a value, which handlers take as `Extension`: what
    /// tells this route from others that share its handlers.
    pub(super) fn with<E: Clone + Send + Sync + 'static>(self, extension: E) -> Self {
        Resource(self.0.route_layer(Extension(extension)))
    }
}

impl Routes {
    /// No route yet.
    pub(super) fn new() -> Self {
        Routes(Router::new())
    }

    /// Serves the paths of `pattern`.
    pub(super) fn route(self, pattern: &str, resource: Resource) -> Self {
        Routes(self.0.route(pattern, resource.0))
    }

    /// The routes, on the hub. No handler that needs the hub can be routed past
    /// this file after that.
    pub(super) fn into_router(self, hub: Arc<Hub>) -> Router {
        self.0.with_state(hub)
    }
}

impl<H: Handler<T, Arc<Hub>>, T: 'static> Handler<T, Arc<Hub>> for Metered<H> {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, hub: Arc<Hub>) -> Self::Future {
        Box::pin(async move {
            let Some(operation) = self.operation else { return self.handler.call(request, hub).await };
            let (mut parts, body) = request.into_parts();
            let named = RawPathParams::from_request_parts(&mut parts, &hub).await;
            let about = named.ok().and_then(|named| about(&named));
            match refuse(&hub, operation, about.as_ref()) {
                Ok(()) => self.handler.call(Request::from_parts(parts, body), hub).await,
                // Every refusal of a method call has a shape of its own.
                Err(refusal) if operation == Operation::Method => refusal.into_nested_response(),
                Err(refusal) => refusal.into_response(),
            }
        })
    }
}

/// Counts a request, or refuses it with 429.
fn refuse(hub: &Hub, operation: Operation, about: Option<&Identity>) -> Result<(), HubRefusal> {
    if hub.faults.throttles(about) {
        return Err(ErrorCode::ThrottlingException.because("a fault throttles the request"));
    }
    hub.throttle.take(operation)
}

/// The device or module that the path names, if it names one.
fn about(named: &RawPathParams) -> Option<Identity> {
    let name = |key: &str| named.iter().find(|(found, _)| *found == key).map(|(_, name)| name.parse());
    Some(Identity { device: name("device")?.ok()?, module: name("module").transpose().ok()? })
}
