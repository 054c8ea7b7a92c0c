//! `/` and `/emulator/glass/…`: the hub in a browser. `/emulator/tickets` lets the next
//! visitor in.
//!
//! A visitor shows a cookie that the ticket of a one-time link was exchanged for; a
//! program may show a token instead, as everywhere. Cookies are sent by browsers
//! unasked, so who shows one is listened to only under a name of this hub, which stops
//! pages of others that have their name resolve to this machine, and, where something
//! is to happen, only from the page itself.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use iotdm_proto::Identity;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::sleep_until;

use super::missing;
use super::request::{Client, Target, presented_token, signed_path};
use crate::api_version::ApiVersion;
use crate::device::Device;
use crate::glass::{LOOKING_PAGE, POLICY, closed_page};
use crate::hub::Hub;
use crate::policies::Right;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::visits::{Grant, VISIT_LIFE};

/// How long a stream may be silent: a browser that is gone is noticed then.
const SILENCE: Duration = Duration::from_secs(15);

/// How many changes of devices are told at once.
const BATCH: usize = 1000;

/// The query of `/`.
#[derive(Deserialize)]
pub(super) struct PageQuery {
    ticket: Option<String>,
}

/// The page. A ticket is exchanged for a visit; without one, and without a visit, the
/// page says how to get in. Programs, which show tokens, find nothing here, as in IoT Hub.
pub(super) async fn page(
    State(hub): State<Arc<Hub>>,
    client: Client,
    method: Method,
    headers: HeaderMap,
    Query(query): Query<PageQuery>,
) -> Result<Response, HubRefusal> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(missing::not_found(&method, "/"));
    }
    if !is_addressed_to(&hub, &headers) {
        let (title, reason) = (
            "Not this name",
            "This hub is asked under a name that it does not have; name it with --host, or use its own.",
        );
        return Ok(html(StatusCode::MISDIRECTED_REQUEST, closed_page(title, reason)));
    }
    // A HEAD is no visit: who looks ahead must not use the link up.
    let ticket = query.ticket.as_deref().filter(|_| method == Method::GET);
    let begun = ticket.map(|ticket| hub.visits.begin(ticket, Instant::now())).transpose();
    let begun = begun.map_err(HubRefusal::internal)?.flatten();
    let is_visitor = begun.is_some() || visit(&hub, &headers).is_some();
    if !is_visitor {
        let (title, reason) = match query.ticket {
            Some(_) => ("This link was used already, or is too old", "A link lets one browser in, once."),
            None => ("Nobody is let in without a link", "The emulator printed one when it started."),
        };
        return Ok(html(StatusCode::UNAUTHORIZED, closed_page(title, reason)));
    }
    client.becomes_known();
    let mut response = html(StatusCode::OK, LOOKING_PAGE.clone());
    if let Some((visit, _)) = begun {
        let name = cookie_name(&hub);
        let life = VISIT_LIFE.as_secs();
        let cookie = format!("{name}={visit}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Strict");
        response
            .headers_mut()
            .insert(header::SET_COOKIE, HeaderValue::try_from(cookie).map_err(HubRefusal::internal)?);
    }
    Ok(response)
}

/// A ticket with the rights of the policy whose token is shown, as the address that
/// lets a browser in.
pub(super) async fn issue_ticket(
    State(hub): State<Arc<Hub>>,
    client: Client,
    parts: Parts,
) -> Result<Response, HubRefusal> {
    let grant = granted_by_token(&hub, &parts)?;
    client.becomes_known();
    let url = hub.ticket_url(grant)?;
    Ok((StatusCode::CREATED, Json(json!({ "url": url }))).into_response())
}

/// The devices, and what becomes of them, and events, for as long as the browser stays.
pub(super) async fn stream(
    State(hub): State<Arc<Hub>>,
    client: Client,
    parts: Parts,
) -> Result<Response, HubRefusal> {
    let grant = granted(&hub, &parts)?;
    let looks_in = grant.allows(Right::ServiceConnect);
    let hello = json!({ "hub": hub.address.host, "policy": grant.policy, "twins": looks_in });
    client.becomes_known();
    // Before the devices are listed, so that no change is missed.
    let changed = hub.changes.listen();
    let mut first = VecDeque::from([message("hello", &hello.to_string()), all_devices(&hub)]);
    let events = looks_in.then(|| hub.recent.listen()).map(|(kept, events)| {
        first.push_back(message("recent", &kept.join("\n")));
        events
    });
    let watch = Watch { hub, changed, events, only: None, until: grant.until, client, first };
    Ok(watch.respond())
}

/// A twin, at once and after each change, for as long as the browser stays.
pub(super) async fn twin(
    State(hub): State<Arc<Hub>>,
    client: Client,
    Target(id): Target,
    parts: Parts,
) -> Result<Response, HubRefusal> {
    let grant = granted(&hub, &parts)?;
    let changed = hub.changes.listen();
    let first = VecDeque::from([twin_message(&hub, &id)]);
    let watch = Watch { hub, changed, events: None, only: Some(id), until: grant.until, client, first };
    Ok(watch.respond())
}

/// Refuses unless the visitor, or who has signed the token, has the right.
pub(super) fn authorize(hub: &Hub, parts: &Parts, right: Right) -> Result<(), HubRefusal> {
    let grant = granted(hub, parts)?;
    if grant.allows(right) {
        return Ok(());
    }
    Err(unauthorized(&format!("policy {} lacks the right {right}", grant.policy)))
}

/// What the request's token or cookie allows.
fn granted(hub: &Hub, parts: &Parts) -> Result<Grant, HubRefusal> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return granted_by_token(hub, parts);
    }
    if !is_addressed_to(hub, &parts.headers) {
        return Err(unauthorized("the hub is asked under a name that it does not have"));
    }
    if !parts.method.is_safe() && !is_of_the_page(&parts.headers) {
        return Err(unauthorized("the request comes from another page"));
    }
    visit(hub, &parts.headers).ok_or_else(|| unauthorized("no token, and no visit that goes on"))
}

fn granted_by_token(hub: &Hub, parts: &Parts) -> Result<Grant, HubRefusal> {
    let token = presented_token(hub, parts)?;
    let grant = hub.grant(&token, &signed_path(parts))?;
    if grant.allows(Right::RegistryRead) || grant.allows(Right::ServiceConnect) {
        return Ok(grant);
    }
    Err(unauthorized(&format!("policy {} may neither see devices nor twins", grant.policy)))
}

fn unauthorized(why: &str) -> HubRefusal {
    ErrorCode::IotHubUnauthorizedAccess.because(format!("Unauthorized: {why}"))
}

/// The visit whose cookie the request has.
fn visit(hub: &Hub, headers: &HeaderMap) -> Option<Grant> {
    let name = cookie_name(hub);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut visits = pairs.filter(|(key, _)| *key == name).map(|(_, visit)| visit);
    visits.find_map(|visit| hub.visits.find(visit, Instant::now()))
}

/// The cookie's name, with the port: browsers tell the hosts of cookies apart and not
/// their ports, and two emulators may run on a machine.
fn cookie_name(hub: &Hub) -> String {
    format!("__Host-iotdm-visit-{}", hub.address.https_port)
}

/// Whether the request names this hub, or an address, which nobody can have resolve to
/// another one. The port is left out, since containers have theirs mapped.
fn is_addressed_to(hub: &Hub, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost") || hub.address.is(name)
}

/// Whether the page itself has sent the request, by what browsers say and pages cannot.
fn is_of_the_page(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else { return false };
    origin.strip_prefix("https://").is_some_and(|of| of.eq_ignore_ascii_case(host))
}

fn html(status: StatusCode, page: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (status, headers, page).into_response()
}

/// What a browser is told, and where that comes from.
struct Watch {
    hub: Arc<Hub>,
    changed: Receiver<Identity>,
    /// The events, where the visitor may see them.
    events: Option<Receiver<Arc<str>>>,
    /// Whose twin is told; `None` where devices are.
    only: Option<Identity>,
    until: Instant,
    client: Client,
    /// What is told before anything happens.
    first: VecDeque<String>,
}

impl Watch {
    fn respond(self) -> Response {
        let messages = stream::unfold(self, |mut watch| async {
            let message = watch.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(message)), watch))
        });
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        (headers, Body::from_stream(messages)).into_response()
    }

    /// The next message; `None` when the visit is over or the emulator stops.
    async fn next(&mut self) -> Option<String> {
        if let Some(message) = self.first.pop_front() {
            return Some(message);
        }
        let events = async |events: &mut Option<Receiver<Arc<str>>>| match events {
            Some(events) => events.recv().await,
            None => std::future::pending().await,
        };
        let end = tokio::time::Instant::from_std(self.until);
        // Over all that happens to others meanwhile, so that a browser which is gone is noticed.
        let silent = tokio::time::Instant::now() + SILENCE;
        loop {
            tokio::select! {
                changed = self.changed.recv() => {
                    let mut missed = matches!(changed, Err(RecvError::Lagged(_)));
                    let mut ids: BTreeSet<Identity> = changed.ok().into_iter().collect();
                    // Many changes at a time are one message.
                    while ids.len() < BATCH {
                        match self.changed.try_recv() {
                            Ok(id) => {
                                ids.insert(id);
                            }
                            Err(TryRecvError::Lagged(_)) => missed = true,
                            Err(_) => break,
                        }
                    }
                    match &self.only {
                        Some(only) if missed || ids.contains(only) => return Some(twin_message(&self.hub, only)),
                        Some(_) => {}
                        None if missed => return Some(all_devices(&self.hub)),
                        None => return Some(changed_devices(&self.hub, ids)),
                    }
                }
                event = events(&mut self.events) => {
                    if let Ok(event) = event {
                        return Some(message("event", &event));
                    }
                }
                () = sleep_until(silent) => return Some(":\n\n".to_owned()),
                () = sleep_until(end) => return None,
                () = self.client.stops() => return None,
            }
        }
    }
}

/// A message of a stream, whose `data` may have several lines.
fn message(name: &str, data: &str) -> String {
    let mut text = format!("event: {name}\n");
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

fn all_devices(hub: &Hub) -> String {
    let mut rows = Vec::new();
    hub.registry.all(|id, device| rows.push(row(hub, id, device)));
    message("devices", &Value::Array(rows).to_string())
}

fn changed_devices(hub: &Hub, ids: BTreeSet<Identity>) -> String {
    let gone = |id: &Identity| json!({ "id": id.to_string(), "gone": true });
    let rows = ids
        .iter()
        .map(|id| hub.registry.read(id, |device| row(hub, id, device)).unwrap_or_else(|_| gone(id)));
    message("changed", &rows.collect::<Value>().to_string())
}

/// A device or module in the list.
fn row(hub: &Hub, id: &Identity, device: &Device) -> Value {
    let presence = hub.links.presence(id);
    json!({
        "id": id.to_string(),
        "status": device.status,
        "connected": presence.connected,
        "changed": presence.changed,
    })
}

fn twin_message(hub: &Hub, id: &Identity) -> String {
    let json = |device: &Device| device.twin_json(id, &hub.presence(id), &ApiVersion::latest());
    match hub.registry.read(id, json) {
        Ok(twin) => message("twin", &twin.to_string()),
        Err(_) => message("gone", "{}"),
    }
}
