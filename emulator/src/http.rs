//! The service's REST interface: the table of routes, one file of handlers per
//! resource, and the HTTP connection that requests come by.
//!
//! Clients differ in the `api-version` that they send, which decides what some
//! bodies show, and add query parameters of their own, which change nothing.

mod bulk;
mod configurations;
mod devices;
mod faults;
mod glass;
mod headers;
mod jobs;
mod keys;
mod limited;
mod messages;
mod methods;
mod missing;
mod pages;
mod provisioning;
mod queries;
mod request;
mod route;
mod statistics;
mod twins;
mod websocket;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, HttpBody};
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::certificates::ClientCertificate;
use crate::hub::Hub;
use crate::policies::Right;
use crate::provisioning::enrolment::EnrolmentKind;
use crate::strangers::Stranger;
use crate::throttle::Operation;
use limited::Limited;
use provisioning::in_words_of_its_own;
use request::Client;
use route::{Access, Routes, UNMETERED, delete, get, patch, post, put};

/// The routes. Each says beside its handler which right a request needs, and
/// which of the tier's allowances it uses up; of the path, `{device}` and
/// `{module}` name whom a request is about.
pub fn router(hub: Arc<Hub>) -> Router {
    use Operation::{Method, Query, Registry, TwinRead, TwinUpdate};
    use Right::{Enrolment, RegistryRead, RegistryWrite, ServiceConnect};

    let devices = get(RegistryRead, Registry, devices::list).and(post(RegistryWrite, Registry, bulk::run));
    let device = get(RegistryRead, Registry, devices::read)
        .and(put(RegistryWrite, Registry, devices::write))
        .and(delete(RegistryWrite, Registry, devices::delete));
    let twin = get(ServiceConnect, TwinRead, twins::read)
        .and(patch(ServiceConnect, TwinUpdate, twins::patch))
        .and(put(ServiceConnect, TwinUpdate, twins::replace));
    let job = get(ServiceConnect, Registry, jobs::read).and(put(ServiceConnect, Registry, jobs::create));
    let configuration = get(RegistryRead, Registry, configurations::read)
        .and(put(RegistryWrite, Registry, configurations::write))
        .and(delete(RegistryWrite, Registry, configurations::delete));
    let enrolments = post(Enrolment, UNMETERED, provisioning::enrolments).finished_by(in_words_of_its_own);
    let enrolment = get(Enrolment, UNMETERED, provisioning::enrolment)
        .and(put(Enrolment, UNMETERED, provisioning::put_enrolment))
        .and(delete(Enrolment, UNMETERED, provisioning::remove_enrolment))
        .finished_by(in_words_of_its_own);
    let attestation = post(Enrolment, UNMETERED, provisioning::attestation).finished_by(in_words_of_its_own);
    let registration = get(Enrolment, UNMETERED, provisioning::read_registration)
        .and(delete(Enrolment, UNMETERED, provisioning::remove_registration))
        .finished_by(in_words_of_its_own);
    let register = put(Access::ByHandler, UNMETERED, provisioning::register_device);
    let operation = get(Access::ByHandler, UNMETERED, provisioning::operation);
    let faults = get(ServiceConnect, UNMETERED, faults::list)
        .and(post(ServiceConnect, UNMETERED, faults::add))
        .and(delete(ServiceConnect, UNMETERED, faults::clear));
    let visiting = Access::WithOrVisiting(ServiceConnect);
    let seen_twin = get(visiting, UNMETERED, glass::twin);
    let called_there = post(visiting, Method, methods::invoke);
    let (individual, group) = (EnrolmentKind::Individual, EnrolmentKind::Group);
    let of_device = "/{id_scope}/registrations/{id}";
    Routes::new()
        .route("/devices", devices.clone())
        .route("/devices/", devices)
        .route("/devices/query", post(ServiceConnect, Query, queries::run))
        .route("/devices/keys/regenerate", post(RegistryWrite, Registry, keys::regenerate))
        .route("/devices/{device}", device.clone())
        .route("/devices/{device}/commands", delete(ServiceConnect, Registry, messages::purge))
        .route("/devices/{device}/modules", get(RegistryRead, Registry, devices::modules))
        .route("/devices/{device}/modules/{module}", device)
        .route("/twins/{device}", twin.clone())
        .route("/twins/{device}/methods", post(ServiceConnect, Method, methods::invoke))
        .route("/twins/{device}/modules/{module}", twin)
        .route("/twins/{device}/modules/{module}/methods", post(ServiceConnect, Method, methods::invoke))
        .route("/jobs/v2/query", get(ServiceConnect, Registry, jobs::query))
        .route("/jobs/v2/{id}", job)
        .route("/jobs/v2/{id}/cancel", post(ServiceConnect, Registry, jobs::cancel))
        .route("/jobs", get(RegistryWrite, Registry, jobs::list_v1))
        .route("/jobs/{id}", get(RegistryWrite, Registry, jobs::read_v1))
        .route("/statistics/devices", get(RegistryRead, Registry, statistics::devices))
        .route("/statistics/service", get(RegistryRead, Registry, statistics::service))
        .route("/configurations", get(RegistryRead, Registry, configurations::list))
        .route("/configurations/testQueries", post(RegistryRead, Registry, configurations::test_queries))
        .route("/configurations/{id}", configuration)
        .route("/enrollments/query", enrolments.clone().with(individual))
        .route("/enrollments/{id}", enrolment.clone().with(individual))
        .route("/enrollments/{id}/attestationmechanism", attestation.clone().with(individual))
        .route("/enrollmentGroups/query", enrolments.with(group))
        .route("/enrollmentGroups/{id}", enrolment.with(group))
        .route("/enrollmentGroups/{id}/attestationmechanism", attestation.with(group))
        .route("/registrations/{id}", registration)
        .route(&format!("{of_device}/register"), register.finished_by(in_words_of_its_own))
        .route(&format!("{of_device}/operations/{{operation}}"), operation.finished_by(in_words_of_its_own))
        .route("/emulator/faults", faults)
        .route("/emulator/messages/{device}", post(ServiceConnect, UNMETERED, messages::send))
        .route("/emulator/events", get(ServiceConnect, UNMETERED, messages::events))
        .route("/", get(Access::ByHandler, UNMETERED, glass::page))
        .route("/emulator/tickets", post(Access::ByHandler, UNMETERED, glass::issue_ticket))
        .route("/emulator/glass/stream", get(Access::ByHandler, UNMETERED, glass::stream))
        .route("/emulator/glass/twins/{device}", seen_twin.clone())
        .route("/emulator/glass/twins/{device}/modules/{module}", seen_twin)
        .route("/emulator/glass/twins/{device}/methods", called_there.clone())
        .route("/emulator/glass/twins/{device}/modules/{module}/methods", called_there)
        .route("/$iothub/websocket", get(Access::ByHandler, UNMETERED, websocket::upgrade))
        .into_router(hub)
        .method_not_allowed_fallback(missing::method)
        .fallback(missing::path)
}

/// How long the head of a request may take to arrive, the wait for a further
/// request on the same connection included, so that a client that is gone does
/// not keep a socket.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);

/// The largest head of a request, in bytes; a token has a few hundred of them.
const MAX_HEAD: usize = 32 * 1024;

/// Serves a connection until it ends or becomes a WebSocket, or until its client,
/// as a `stranger`, has to give way. Once the sender of `stop` is gone, the
/// connection ends as soon as the request under way is answered.
pub async fn serve(
    router: Router,
    stream: TlsStream<TcpStream>,
    stranger: Arc<Stranger>,
    mut stop: watch::Receiver<()>,
) {
    let certificate = ClientCertificate::shown_in(&stream);
    let (stop_of_client, shown) = (Some(stop.clone()), Arc::default());
    let client = Client { certificate, stranger: Some(stranger.clone()), stop: stop_of_client, shown };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client.clone());
        answer(&router, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Limited::new(stream, stranger.clone())), service)
        .with_upgrades();
    let served = async {
        tokio::pin!(connection);
        tokio::select! {
            end = connection.as_mut() => end,
            _ = stop.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match stranger.unless_in_the_way(served).await {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "an HTTPS connection broke"),
        None => debug!("an HTTPS connection without a valid request gave way to others"),
    }
}

/// Carries a request out, completes the headers of its answer, and logs both for
/// `--verbose`. This stands around the routes and not in layers of theirs, which would
/// be copied for each request.
fn answer<B>(
    router: &TowerToHyperService<Router>,
    request: Request<B>,
) -> impl Future<Output = Result<Response, Infallible>> + use<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    let logged = tracing::enabled!(tracing::Level::DEBUG)
        .then(|| (request.method().clone(), request.uri().path().to_owned()));
    let answered = ToItsEnd(Some(Box::pin(router.call(request))));
    async move {
        let response = headers::complete(answered.await?);
        if let Some((method, path)) = logged {
            debug!(%method, path, status = response.status().as_u16(), "service -> hub");
        }
        Ok(response)
    }
}

/// What is carried out to its end also when nobody waits for it any more, as when the
/// client goes away: a change must not be cut in two. It goes on in a task of its own
/// then, and only then.
struct ToItsEnd<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Future for ToItsEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // It is not polled again after its end.
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let output = ready!(future.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToItsEnd<F> {
    fn drop(&mut self) {
        // Without a runtime the emulator is at its end.
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;
    use futures_util::FutureExt as _;
    use iotdm_proto::{ServiceConnectionString, sas};
    use tokio::sync::oneshot;

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
        let address = Address { host: "localhost".into(), others: vec![], mqtt_port: 8883, https_port: 8443 };
        Arc::new(Hub::open(store, data, address, Authorities::default(), Throttle::new(None)).unwrap())
    }

    /// The status of the answer to a request with this token.
    async fn status(hub: &Arc<Hub>, method: &str, path: &str, token: &str) -> u16 {
        let request = Request::builder().method(method).uri(path).header("Authorization", token);
        let request = request.body(Body::empty()).unwrap();
        let response = answer(&TowerToHyperService::new(router(hub.clone())), request).await.unwrap();
        response.status().as_u16()
    }

    /// A token of the policy.
    fn token(dir: &tempfile::TempDir, policy: &str) -> String {
        let file = DataDir::named(dir.path()).unwrap().policy(policy);
        let service: ServiceConnectionString = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let expiry = crate::clock::now().unix_seconds() + 600;
        sas::sign("localhost", &service.key, expiry, Some(policy))
    }

    /// Whether the owner's request is refused for throttling.
    async fn is_throttled(hub: &Arc<Hub>, dir: &tempfile::TempDir, method: &str, path: &str) -> bool {
        status(hub, method, path, &token(dir, "iothubowner")).await == 429
    }

    /// A method and a path of each route that asks for a token.
    const GUARDED: [(&str, &str); 19] = [
        ("GET", "/devices"),
        ("POST", "/devices"),
        ("POST", "/devices/keys/regenerate"),
        ("POST", "/devices/query"),
        ("PUT", "/devices/gw1"),
        ("DELETE", "/devices/gw1/commands"),
        ("PATCH", "/twins/gw1"),
        ("POST", "/twins/gw1/methods"),
        ("PUT", "/jobs/v2/gw1"),
        ("GET", "/statistics/devices"),
        ("PUT", "/configurations/gw1"),
        ("PUT", "/enrollments/gw1"),
        ("POST", "/emulator/faults"),
        ("POST", "/emulator/messages/gw1"),
        ("GET", "/emulator/events"),
        ("POST", "/emulator/tickets"),
        ("GET", "/emulator/glass/stream"),
        ("GET", "/emulator/glass/twins/gw1"),
        ("POST", "/emulator/glass/twins/gw1/methods"),
    ];

    /// A token is known by its header on the next requests of a connection, and what it is
    /// good for is looked at all the same.
    #[tokio::test]
    async fn a_token_that_was_shown_before_is_good_for_no_more_than_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (hub, client) = (hub(&dir), Client::default());
        let file = DataDir::named(dir.path()).unwrap().policy("service");
        let service: ServiceConnectionString = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let expiry = crate::clock::now().unix_seconds() + 600;
        let token = sas::sign("localhost", &service.key, expiry, Some("service"));
        let of_one = sas::sign("localhost/twins/gw1", &service.key, expiry, Some("service"));
        let forged = token.replace(&format!("se={expiry}"), &format!("se={}", expiry + 1));
        // 404 is for those who are let in.
        for (path, token, expected) in [
            ("/twins/gw1", &forged, 401),
            ("/twins/gw1", &token, 404),
            ("/twins/gw2", &token, 404),
            ("/devices/gw1", &token, 401),
            ("/twins/gw1", &forged, 401),
            ("/twins/gw1", &token, 404),
            ("/twins/gw1", &of_one, 404),
            ("/twins/gw1", &of_one, 404),
            ("/twins/gw2", &of_one, 401),
        ] {
            let request = Request::builder().uri(path).header("Authorization", token);
            let request = request.extension(client.clone()).body(Body::empty()).unwrap();
            let router = TowerToHyperService::new(router(hub.clone()));
            let response = answer(&router, request).await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{path} {token}");
        }
    }

    #[tokio::test]
    async fn of_a_request_with_a_token_that_is_kept_no_more_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (hub, client) = (hub(&dir), Client::default());
        let file = DataDir::named(dir.path()).unwrap().policy("service");
        let service: ServiceConnectionString = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let expiry = crate::clock::now().unix_seconds() + 600;
        let read = Bytes::from(sas::sign("localhost", &service.key, expiry, Some("service")));
        let token = HeaderValue::from_maybe_shared(read.clone()).unwrap();
        let request = Request::builder().uri("/twins/gw1").header("Authorization", token);
        let request = request.extension(client.clone()).body(Body::empty()).unwrap();
        let response = answer(&TowerToHyperService::new(router(hub)), request).await.unwrap();
        assert_eq!(response.status().as_u16(), 404);
        assert!(client.shown.lock().unwrap().as_ref().is_some_and(|(header, _)| *header == *read));
        assert!(read.is_unique());
    }

    #[tokio::test]
    async fn what_has_begun_is_carried_out_also_when_nobody_waits() {
        let (go_on, told) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut request = ToItsEnd(Some(Box::pin(async move {
            told.await.unwrap();
            end.send(7).unwrap();
        })));
        assert!((&mut request).now_or_never().is_none());
        drop(request);
        go_on.send(()).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn who_has_no_right_uses_up_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub(&dir);
        let forged = "SharedAccessSignature sr=localhost&sig=AAAA&se=99999999999&skn=iothubowner";
        // A device's right is no service's.
        let (device, throttle) = (token(&dir, "device"), Fault::new(FaultKind::ThrottleService, 1));
        hub.faults.add(None, throttle);
        for (method, path) in GUARDED {
            for token in ["", "x", forged, device.as_str()] {
                assert_eq!(status(&hub, method, path, token).await, 401, "{method} {path} {token}");
            }
        }
        assert_eq!(hub.faults.list(), [(None, throttle)]);
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
            ("POST", "/emulator/glass/twins/gw1/methods", Some("gw1")),
            ("POST", "/emulator/glass/twins/gw1/modules/m/methods", Some("gw1/m")),
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
            assert!(!is_throttled(&hub, &dir, method, path).await, "{method} {path} is about another");
            hub.faults.add(about.map(|id| id.parse().unwrap()), fault);
            assert!(is_throttled(&hub, &dir, method, path).await, "{method} {path} is about {about:?}");
            hub.faults.clear(None);
        }
    }

    #[tokio::test]
    async fn what_is_no_part_of_the_service_interface_is_not_throttled() {
        let dir = tempfile::tempdir().unwrap();
        let hub = hub(&dir);
        hub.faults.add(None, Fault::new(FaultKind::ThrottleService, 1));
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/emulator/glass/stream"),
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
            assert!(!is_throttled(&hub, &dir, method, path).await, "{method} {path}");
        }
        assert!(is_throttled(&hub, &dir, "GET", "/devices").await);
    }
}
