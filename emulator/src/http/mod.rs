//! The service's REST interface: one resource per file.
//!
//! Clients differ in the `api-version` they send and add query parameters of
//! their own; neither changes an answer, as with the real hub for what is
//! here.

mod bulk;
mod configurations;
mod devices;
mod faults;
mod jobs;
mod messages;
mod methods;
mod pages;
mod provisioning;
mod queries;
mod request;
mod statistics;
mod throttling;
mod twins;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use request::Shown;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::certificates::ClientCertificate;
use crate::error::{Code, HubError};
use crate::hub::Hub;

/// The routes.
pub fn router(hub: Arc<Hub>) -> Router {
    let device = get(devices::read).put(devices::write).delete(devices::delete);
    let twin = get(twins::read).patch(twins::patch).put(twins::replace);
    let fault = get(faults::list).post(faults::add).delete(faults::clear);
    let configuration = get(configurations::read).put(configurations::write).delete(configurations::delete);
    let enrolment =
        get(provisioning::enrolment).put(provisioning::put_enrolment).delete(provisioning::remove_enrolment);
    let registration = get(provisioning::read_registration).delete(provisioning::remove_registration);
    Router::new()
        .route("/devices", get(devices::list).post(bulk::run))
        .route("/devices/", get(devices::list).post(bulk::run))
        .route("/devices/query", post(queries::run))
        .route("/devices/{id}", device.clone())
        .route("/devices/{id}/modules", get(devices::modules))
        .route("/devices/{id}/modules/{module}", device)
        .route("/twins/{id}", twin.clone())
        .route("/twins/{id}/modules/{module}", twin)
        .route("/twins/{id}/methods", post(methods::invoke))
        .route("/twins/{id}/modules/{module}/methods", post(methods::invoke))
        .route("/jobs/v2/query", get(jobs::query))
        .route("/jobs/v2/{id}", get(jobs::read).put(jobs::create))
        .route("/jobs/v2/{id}/cancel", post(jobs::cancel))
        .route("/jobs", get(jobs::list_v1))
        .route("/jobs/{id}", get(jobs::read_v1))
        .route("/statistics/devices", get(statistics::devices))
        .route("/statistics/service", get(statistics::service))
        .route("/devices/{id}/commands", delete(messages::purge))
        .route("/configurations", get(configurations::list))
        .route("/configurations/testQueries", post(configurations::test_queries))
        .route("/configurations/{id}", configuration)
        .route("/emulator/messages/{id}", post(messages::send))
        .route("/emulator/events", get(messages::events))
        .route("/enrollments/query", post(provisioning::enrolments))
        .route("/enrollments/{id}", enrolment.clone())
        .route("/enrollmentGroups/query", post(provisioning::enrolments))
        .route("/enrollmentGroups/{id}", enrolment)
        .route("/registrations/{id}", registration)
        .route("/{id_scope}/registrations/{id}/register", put(provisioning::register_device))
        .route("/{id_scope}/registrations/{id}/operations/{operation}", get(provisioning::operation))
        .route("/emulator/faults", fault)
        .route("/$iothub/websocket", get(websocket::upgrade))
        .method_not_allowed_fallback(not_emulated)
        .fallback(not_emulated)
        .layer(middleware::from_fn_with_state(hub.clone(), throttling::check))
        .layer(middleware::from_fn(finish))
        .layer(middleware::from_fn(log))
        .with_state(hub)
}

/// How long the head of a request may take, the wait for a further request on
/// the same connection included.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);

/// The largest head of a request; tokens are a few hundred bytes.
const MAX_HEAD: usize = 32 * 1024;

/// Serves a connection until it ends, or becomes a WebSocket; once the sender
/// of `stop` is gone, until the request under way is answered.
pub async fn serve(router: Router, stream: TlsStream<TcpStream>, mut stop: watch::Receiver<()>) {
    let shown = Shown(ClientCertificate::shown_in(&stream));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(shown.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let end = tokio::select! {
        end = connection.as_mut() => end,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = end {
        debug!(%error, "an HTTPS connection broke");
    }
}

async fn log(request: axum::extract::Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    debug!(%method, path, status = response.status().as_u16(), "service -> hub");
    response
}

/// A request that has begun is carried out, also when its client goes away: a
/// change must not be cut in two.
async fn finish(request: axum::extract::Request, next: Next) -> Result<Response, HubError> {
    tokio::spawn(next.run(request)).await.map_err(HubError::internal)
}

async fn not_emulated(request: axum::extract::Request) -> HubError {
    let message = format!("{} {} is not emulated", request.method(), request.uri().path());
    Code::InvalidOperation.because(message)
}
