//! `/devices/query`: rows of twins, in pages.
//!
//! The continuation is the last id of the page before, and how many rows
//! `TOP` has left; so a device that comes or goes in between shifts nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iotdm_proto::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Body, Caller};
use crate::error::{Code, HubError};
use crate::hub::Hub;
use crate::policies::Right;
use crate::query::Query;

/// The documented largest page; larger wishes are cut to it, since clients
/// send them.
const MAX_PAGE: usize = 100;

const PAGE_SIZE: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continuation {
    after: String,
    left: Option<usize>,
}

pub(super) async fn run(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, HubError> {
    caller.must(&hub, Right::ServiceConnect)?;
    let Some(Value::String(text)) = body.get("query") else {
        return Err(Code::ArgumentInvalid.because("the body is not {\"query\":\"SELECT …\"}"));
    };
    let query: Query = text.parse()?;
    let (after, left) = match headers.get(CONTINUATION) {
        Some(token) => Continuation::parse(token)?,
        None => (None, query.top),
    };
    let size = page_size(&headers)?.min(left.unwrap_or(usize::MAX));

    let mut rows = Vec::new();
    let mut last = None;
    let mut more = false;
    hub.registry.scan(after.as_ref(), |id, device| {
        if let Some(row) = query.row(&device.twin_json(id, &hub.links.presence(id))) {
            if rows.len() == size {
                more = true;
                return ControlFlow::Break(());
            }
            rows.push(row);
            last = Some(id.clone());
        }
        ControlFlow::Continue(())
    });

    let left = left.map(|left| left - rows.len());
    let mut response = Json(rows).into_response();
    let item_type = if query.is_whole() { "Twin" } else { "Raw" };
    response.headers_mut().insert("x-ms-item-type", HeaderValue::from_static(item_type));
    if let Some(last) = last.filter(|_| more && left != Some(0)) {
        let token = Continuation { after: last.to_string(), left }.to_header()?;
        response.headers_mut().insert(CONTINUATION, token);
    }
    Ok(response)
}

fn page_size(headers: &HeaderMap) -> Result<usize, HubError> {
    let Some(size) = headers.get(PAGE_SIZE) else { return Ok(MAX_PAGE) };
    match size.to_str().ok().and_then(|size| size.parse::<usize>().ok()) {
        Some(size) if size > 0 => Ok(size.min(MAX_PAGE)),
        _ => Err(Code::ArgumentInvalid.because(format!("{PAGE_SIZE} is not a number above 0"))),
    }
}

impl Continuation {
    fn parse(token: &HeaderValue) -> Result<(Option<DeviceId>, Option<usize>), HubError> {
        let read = || {
            let json = STANDARD.decode(token.as_bytes()).ok()?;
            let continuation: Continuation = serde_json::from_slice(&json).ok()?;
            Some((Some(continuation.after.parse().ok()?), continuation.left))
        };
        read().ok_or_else(|| Code::ArgumentInvalid.because(format!("{CONTINUATION} is none of this hub's")))
    }

    fn to_header(&self) -> Result<HeaderValue, HubError> {
        let json = serde_json::to_vec(self).map_err(HubError::internal)?;
        STANDARD.encode(json).parse().map_err(HubError::internal)
    }
}
