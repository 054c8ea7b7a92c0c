//! Routes that cannot be declared without saying who may ask and how they are
//! throttled.
//!
//! A request is refused before anything else happens to it, and before its body
//! is read, when its sender lacks the right. Only a request of somebody who has
//! the right can use up a fault or the tier's allowance for its kind of
//! operation, and be refused with 429. Right and kind are declared together with
//! the handler, and the device that the request is about is what the route's
//! pattern calls `{device}` and `{module}`: nothing here looks at the text of a
//! path. [`Routes`] takes [`Resource`]s only, which [`get`], [`post`], [`put`],
//! [`patch`] and [`delete`] make and which axum's own functions of these names do
//! not.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use axum::{Extension, Router, middleware};

use super::glass;
use super::request::{Client, authorize, forget_body};
use crate::hub::Hub;
use crate::policies::Right;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::throttle::Operation;
use iotdm_proto::Identity;

/// Routes that are no part of IoT Hub's service interface, or of a service that
/// does not throttle here: neither tiers nor faults refuse their requests.
pub(super) const UNMETERED: Option<Operation> = None;

/// Who may make a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Whoever shows a token that gives the right.
    With(Right),
    /// The same, and visitors whose visit gives the right.
    WithOrVisiting(Right),
    /// Anybody, as far as the route goes: its handler finds out who asks, and
    /// keeps nothing of a stranger's body.
    ByHandler,
}

/// The methods that the paths of one pattern serve.
#[derive(Clone)]
pub(super) struct Resource(MethodRouter<Arc<Hub>>);

/// The routes of the REST interface, each a pattern with its resource.
pub(super) struct Routes(Router<Arc<Hub>>);

/// A handler of requests that only some may make, and that count as `operation`,
/// if as any.
#[derive(Clone)]
struct Guarded<H> {
    access: Access,
    operation: Option<Operation>,
    handler: H,
}

/// Serves `GET` (and `HEAD`) to those with `access`, throttled as `operation`.
pub(super) fn get<H: Handler<T, Arc<Hub>>, T: 'static>(
    access: impl Into<Access>,
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::get(Guarded { access: access.into(), operation: operation.into(), handler }))
}

/// Serves `POST` to those with `access`, throttled as `operation`.
pub(super) fn post<H: Handler<T, Arc<Hub>>, T: 'static>(
    access: impl Into<Access>,
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::post(Guarded { access: access.into(), operation: operation.into(), handler }))
}

/// Serves `PUT` to those with `access`, throttled as `operation`.
pub(super) fn put<H: Handler<T, Arc<Hub>>, T: 'static>(
    access: impl Into<Access>,
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::put(Guarded { access: access.into(), operation: operation.into(), handler }))
}

/// Serves `PATCH` to those with `access`, throttled as `operation`.
pub(super) fn patch<H: Handler<T, Arc<Hub>>, T: 'static>(
    access: impl Into<Access>,
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::patch(Guarded { access: access.into(), operation: operation.into(), handler }))
}

/// Serves `DELETE` to those with `access`, throttled as `operation`.
pub(super) fn delete<H: Handler<T, Arc<Hub>>, T: 'static>(
    access: impl Into<Access>,
    operation: impl Into<Option<Operation>>,
    handler: H,
) -> Resource {
    Resource(routing::delete(Guarded { access: access.into(), operation: operation.into(), handler }))
}

impl Resource {
    /// Serves the methods of `other` as well.
    pub(super) fn and(self, other: Resource) -> Self {
        Resource(self.0.merge(other.0))
    }

    /// Has `finish` look at each response before it goes out.
    pub(super) fn finished_by<F, R>(self, finish: F) -> Self
    where
        F: Fn(Response) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        Resource(self.0.layer(middleware::map_response(finish)))
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

impl From<Right> for Access {
    fn from(right: Right) -> Self {
        Access::With(right)
    }
}

impl<H: Handler<T, Arc<Hub>>, T: 'static> Handler<T, Arc<Hub>> for Guarded<H> {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, hub: Arc<Hub>) -> Self::Future {
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let checked = match self.access {
                Access::With(right) => Some(authorize(&hub, &parts, right)),
                Access::WithOrVisiting(right) => Some(glass::authorize(&hub, &parts, right)),
                Access::ByHandler => None,
            };
            if let Some(checked) = checked {
                if let Err(refusal) = checked {
                    forget_body(Request::from_parts(parts, body)).await;
                    return self.respond(refusal);
                }
                if let Some(client) = parts.extensions.get::<Client>() {
                    client.becomes_known();
                }
            }
            if let Some(operation) = self.operation {
                let named = RawPathParams::from_request_parts(&mut parts, &hub).await;
                let about = named.ok().and_then(|named| about(&named));
                if let Err(refusal) = refuse(&hub, operation, about.as_ref()) {
                    return self.respond(refusal);
                }
            }
            self.handler.call(Request::from_parts(parts, body), hub).await
        })
    }
}

impl<H> Guarded<H> {
    fn respond(&self, refusal: HubRefusal) -> Response {
        match self.operation {
            // Every refusal of a method call has a shape of its own.
            Some(Operation::Method) => refusal.into_nested_response(),
            _ => refusal.into_response(),
        }
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
    let name = |key: &str| named.iter().find(|(found, _)| *found == key).map(|(_, name)| name);
    let module = name("module").map(str::parse).transpose().ok()?;
    Some(Identity { device: name("device")?.parse().ok()?, module })
}
