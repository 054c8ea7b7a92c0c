//! `/devices/query`: the rows that a query selects, in pages.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;

use super::pages::{Page, Wanted};
use super::request::Body;
use crate::api_version::ApiVersion;
use crate::device::Device;
use crate::fields::field_of;
use crate::hub::Hub;
use crate::query::{Groups, Query, Source};
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

pub(super) async fn run(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    api: ApiVersion,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    let Some(Value::String(text)) = field_of(&body, "query") else {
        return Err(ErrorCode::ArgumentNull.bad_request("the body is not {\"query\":\"SELECT …\"}"));
    };
    let query: Query = text.parse()?;
    let wanted = Wanted::parse(&headers, query.top)?;
    let mut page = Page::new(&wanted);
    if let Some(mut groups) = Groups::new(&query) {
        documents(&hub, &query, &api, None, |_, document| {
            groups.add(&document);
            ControlFlow::Continue(())
        })?;
        for (name, row) in groups.rows() {
            let is_done = wanted.after.as_ref().is_some_and(|after| name <= *after);
            if !is_done && page.add(&name, || row).is_break() {
                break;
            }
        }
    } else {
        documents(&hub, &query, &api, wanted.after.as_deref(), |name, document| {
            page.add(name, || query.row(&document).unwrap_or(document))
        })?;
    }
    page.respond(match query.source {
        _ if !query.is_whole() => "Raw",
        Source::Devices | Source::Modules => "Twin",
        Source::Jobs => "DeviceJob",
    })
}

/// How many rows a query has.
pub(super) fn count(hub: &Hub, query: &Query) -> Result<usize, HubRefusal> {
    let (mut groups, mut rows) = (Groups::new(query), 0);
    documents(hub, query, &ApiVersion::latest(), None, |_, document| {
        match &mut groups {
            Some(groups) => groups.add(&document),
            None => rows += 1,
        }
        ControlFlow::Continue(())
    })?;
    let rows = groups.map_or(rows, |groups| groups.rows().count());
    Ok(query.top.map_or(rows, |top| rows.min(top)))
}

/// Looks at the documents that the query selects, from the one after `after`
/// on, until `look` breaks.
fn documents(
    hub: &Hub,
    query: &Query,
    api: &ApiVersion,
    after: Option<&str>,
    mut look: impl FnMut(&str, Value) -> ControlFlow<()>,
) -> Result<(), HubRefusal> {
    let mut look = |name: &str, document: Value| {
        if query.selects(&document) { look(name, document) } else { ControlFlow::Continue(()) }
    };
    match query.source {
        Source::Devices | Source::Modules => {
            let after: Option<Identity> = after
                .map(str::parse)
                .transpose()
                .map_err(|_| ErrorCode::ArgumentInvalid.because("x-ms-continuation is of another query"))?;
            let look = |id: &Identity, device: &Device| {
                look(&id.to_string(), device.row_json(id, &hub.presence(id), api))
            };
            match query.source {
                Source::Modules => hub.registry.modules(after.as_ref(), look),
                _ => hub.registry.devices(after.as_ref(), look),
            }
        }
        Source::Jobs => hub.jobs.scan_devices(after, |name, document| look(&name, document)),
    }
    Ok(())
}
