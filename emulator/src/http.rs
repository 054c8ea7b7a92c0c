//! The service's REST interface: the table of routes, one file of handlers per
//! resource, and the HTTP connection that requests come by.
//!
//! Clients differ in the `api-version` that they send, and add query parameters
//! of their own. Neither changes an answer, here or (for the routes that are
//! here) in the real hub.

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
mod route;
mod statistics;
mod twins;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::certificates::ClientCertificate;
use crate::hub::Hub;
use crate::provisioning::enrolment::EnrolmentKind;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::throttle::Operation;
use request::Shown;
use route::{Routes, UNMETERED, delete, get, patch, post, put};

/// The routes. Each says beside its handler which of the tier's allowances a
/// request uses up; of the path, `{device}` and `{module}` name whom a request
/// is about.
pub fn router(hub: Arc<Hub>) -> Router {
    use Operation::{Method, Query, Registry, TwinRead, TwinUpdate};

    let devices = get(Registry, devices::list).and(post(Registry, bulk::run));
    let device = get(Registry, devices::read)
        .and(put(Registry, devices::write))
        .and(delete(Registry, devices::delete));
    let twin =
        get(TwinRead, twins::read).and(patch(TwinUpdate, twins::patch)).and(put(TwinUpdate, twins::replace));
    let configuration = get(Registry, configurations::read)
        .and(put(Registry, configurations::write))
        .and(delete(Registry, configurations::delete));
    let enrolments = post(UNMETERED, provisioning::enrolments);
    let enrolment = get(UNMETERED, provisioning::enrolment)
        .and(put(UNMETERED, provisioning::put_enrolment))
        .and(delete(UNMETERED, provisioning::remove_enrolment));
    let registration = get(UNMETERED, provisioning::read_registration)
        .and(delete(UNMETERED, provisioning::remove_registration));
    let faults =
        get(UNMETERED, faults::list).and(post(UNMETERED, faults::add)).and(delete(UNMETERED, faults::clear));
    let (individual, group) = (EnrolmentKind::Individual, EnrolmentKind::Group);
    let register = "/{id_scope}/registrations/{id}/register";
    let operation = "/{id_scope}/registrations/{id}/operations/{operation}";
    Routes::new()
        .route("/devices", devices.clone())
        .route("/devices/", devices)
        .route("/devices/query", post(Query, queries::run))
        .route("/devices/{device}", device.clone())
        .route("/devices/{device}/commands", delete(Registry, messages::purge))
        .route("/devices/{device}/modules", get(Registry, devices::modules))
        .route("/devices/{device}/modules/{module}", device)
        .route("/twins/{device}", twin.clone())
        .route("/twins/{device}/methods", post(Method, methods::invoke))
        .route("/twins/{device}/modules/{module}", twin)
        .route("/twins/{device}/modules/{module}/methods", post(Method, methods::invoke))
        .route("/jobs/v2/query", get(Registry, jobs::query))
        .route("/jobs/v2/{id}", get(Registry, jobs::read).and(put(Registry, jobs::create)))
        .route("/jobs/v2/{id}/cancel", post(Registry, jobs::cancel))
        .route("/jobs", get(Registry, jobs::list_v1))
        .route("/jobs/{id}", get(Registry, jobs::read_v1))
        .route("/statistics/devices", get(Registry, statistics::devices))
        .route("/statistics/service", get(Registry, statistics::service))
        .route("/configurations", get(Registry, configurations::list))
        .route("/configurations/testQueries", post(Registry, configurations::test_queries))
        .route("/configurations/{id}", configuration)
        .route("/enrollments/query", enrolments.clone().with(individual))
        .route("/enrollments/{id}", enrolment.clone().with(individual))
        .route("/enrollmentGroups/query", enrolments.with(group))
        .route("/enrollmentGroups/{id}", enrolment.with(group))
        .route("/registrations/{id}", registration)
        .route(register, put(UNMETERED, provisioning::register_device))
        .route(operation, get(UNMETERED, provisioning::operation))
        .route("/emulator/faults", faults)
        .route("/emulator/messages/{device}", post(UNMETERED, messages::send))
        .route("/emulator/events", get(UNMETERED, messages::events))
        .route("/$iothub/websocket", get(UNMETERED, websocket::upgrade))
        .into_router(hub)
        .method_not_allowed_fallback(not_emulated)
        .fallback(not_emulated)
        .layer(middleware::from_fn(finish))
        .layer(middleware::from_fn(log))
}

/// How long the head of a request may take to arrive, the wait for a further
/// request on the same connection included, so that a client that is gone does
/// not keep a socket.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);

/// The largest head of a request, in bytes; a token has a few hundred of them.
const MAX_HEAD: usize = 32 * 1024;

/// Serves a connection until it ends or becomes a WebSocket. Once the sender of
/// `stop` is gone, the connection ends as soon as the request under way is
/// answered.
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

/// Logs each request, for `--verbose`.
async fn log(request: axum::extract::Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    debug!(%method, path, status = response.status().as_u16(), "service -> hub");
    response
}

/// Carries a request out in a task of its own, also when its client goes away:
/// a change must not be cut in two.
async fn finish(request: axum::extract::Request, next: Next) -> Result<Response, HubRefusal> {
    tokio::spawn(next.run(request)).await.map_err(HubRefusal::internal)
}

/// The refusal of a path or method that no route has.
async fn not_emulated(request: axum::extract::Request) -> HubRefusal {
    let message = format!("{} {} is not emulated", request.method(), request.uri().path());
    ErrorCode::InvalidOperation.because(message)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::address::Address;
    use crate::certificates::Authorities;
    use crate::data_dir::DataDir;
    use crate::faults::{Fault, FaultKind};
    use crate::store::Store;
    use crate::throttle::Throttle;

    fn hub(dir: &tempfile::TempDir) -> Arc<Hub> {
        let data = DataDir::create(dir.path()).unwrap();
        let store = Store::open(&data.store()).unwrap();
        let address = Address { host: "localhost".into(), mqtt_port: 8883, https_port: 8443 };
        Arc::new(Hub::open(store, data, address, Authorities::default(), Throttle::new(None)).unwrap())
    }

    /// Whether the request is refused for throttling, and not for its lack of a
    /// token.
    async fn is_throttled(hub: &Arc<Hub>, method: &str, path: &str) -> bool {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router(hub.clone())).call(request).await.unwrap();
        response.status() == 429
    }

    #[tokio::test]
    async fn a_request_is_about_whom_its_route_names() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub(&dir);
        for (method, path, about) in [
            ("GET", "/devices/gw1", Some("gw1")),
            ("DELETE", "/devices/gw1/commands", Some("gw1")),
            ("GET", "/devices/gw1/modules", Some("gw1")),
            ("PUT", "/devices/gw1/modules/m", Some("gw1/m")),
            ("GET", "/twins/gw%31", Some("gw1")),
            ("PATCH", "/twins/gw1/modules/m", Some("gw1/m")),
            ("POST", "/twins/methods/methods", Some("methods")),
            ("GET", "/twins/methods/modules/methods", Some("methods/methods")),
            ("POST", "/devices/query", None),
            ("GET", "/devices", None),
            ("GET", "/jobs/v2/gw1", None),
            ("GET", "/configurations/gw1", None),
        ] {
            let fault = Fault::new(FaultKind::ThrottleService, 1);
            for other in ["gw1", "gw1/m", "query", "v2", "other"].into_iter().filter(|id| Some(*id) != about)
            {
                hub.faults.add(Some(other.parse().unwrap()), fault);
            }
            assert!(!is_throttled(&hub, method, path).await, "{method} {path} is about another");
            hub.faults.add(about.map(|id| id.parse().unwrap()), fault);
            assert!(is_throttled(&hub, method, path).await, "{method} {path} is about {about:?}");
            hub.faults.clear(None);
        }
    }

    #[tokio::test]
    async fn what_is_no_part_of_the_service_interface_is_not_throttled() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub(&dir);
        hub.faults.add(None, Fault::new(FaultKind::ThrottleService, 1));
        for (method, path) in [
            ("GET", "/emulator/faults"),
            ("POST", "/emulator/messages/gw1"),
            ("GET", "/$iothub/websocket"),
            ("GET", "/enrollments/gw1"),
            ("PUT", "/enrollmentGroups/gw1"),
            ("GET", "/registrations/gw1"),
            ("PUT", "/0ne00000000/registrations/gw1/register"),
            ("GET", "/nowhere"),
            ("PATCH", "/devices/gw1"),
        ] {
            assert!(!is_throttled(&hub, method, path).await, "{method} {path}");
        }
        assert!(is_throttled(&hub, "GET", "/devices").await);
    }
}
