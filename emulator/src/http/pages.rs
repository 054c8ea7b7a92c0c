//! Long answers in pages: `x-ms-max-item-count` in, `x-ms-continuation` both
//! ways.
//!
//! The continuation is the name of the last row of the page before, and how
//! many rows `TOP` has left; so a row that comes or goes in between shifts
//! nothing.

use std::ops::ControlFlow;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Code, HubError};

/// The documented largest page; larger wishes are cut to it, since clients
/// send them.
const MAX_PAGE: usize = 100;

const PAGE_SIZE: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";

/// Which page a client asks for.
pub(super) struct Wanted {
    /// The row to go on after.
    pub(super) after: Option<String>,
    /// How many rows may come in all, this page included.
    left: Option<usize>,
    size: usize,
}

#[derive(Serialize, Deserialize)]
struct Continuation {
    after: String,
    left: Option<usize>,
}

/// A page being filled.
pub(super) struct Page {
    rows: Vec<Value>,
    size: usize,
    left: Option<usize>,
    last: Option<String>,
    /// Whether a row did not fit any more.
    more: bool,
}

impl Wanted {
    /// Reads the headers. `top` limits the rows of all pages together.
    pub(super) fn parse(headers: &HeaderMap, top: Option<usize>) -> Result<Self, HubError> {
        let size = match headers.get(PAGE_SIZE) {
            None => MAX_PAGE,
            Some(size) => match size.to_str().ok().and_then(|size| size.parse::<usize>().ok()) {
                Some(size) if size > 0 => size.min(MAX_PAGE),
                _ => {
                    return Err(Code::ArgumentInvalid.because(format!("{PAGE_SIZE} is not a number above 0")));
                }
            },
        };
        let Some(token) = headers.get(CONTINUATION).filter(|token| !token.is_empty()) else {
            return Ok(Wanted { after: None, left: top, size });
        };
        let read = || {
            let json = STANDARD.decode(token.as_bytes()).ok()?;
            serde_json::from_slice::<Continuation>(&json).ok()
        };
        let Continuation { after, left } = read()
            .ok_or_else(|| Code::ArgumentInvalid.because(format!("{CONTINUATION} is none of this hub's")))?;
        Ok(Wanted { after: Some(after), left, size })
    }
}

impl Page {
    /// An empty page.
    pub(super) fn new(wanted: &Wanted) -> Self {
        let size = wanted.size.min(wanted.left.unwrap_or(usize::MAX));
        Page { rows: Vec::new(), size, left: wanted.left, last: None, more: false }
    }

    /// Adds the row of that name, or breaks when the page is full.
    pub(super) fn add(&mut self, name: &str, row: impl FnOnce() -> Value) -> ControlFlow<()> {
        if self.rows.len() == self.size {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.rows.push(row());
        self.last = Some(name.to_owned());
        ControlFlow::Continue(())
    }

    /// The answer. Which item types the real hub names besides `Twin` is
    /// unverified.
    pub(super) fn respond(self, item_type: &'static str) -> Result<Response, HubError> {
        let left = self.left.map(|left| left.saturating_sub(self.rows.len()));
        let mut response = Json(self.rows).into_response();
        response.headers_mut().insert("x-ms-item-type", HeaderValue::from_static(item_type));
        if let Some(after) = self.last.filter(|_| self.more && left != Some(0)) {
            let json = serde_json::to_vec(&Continuation { after, left }).map_err(HubError::internal)?;
            let token = STANDARD.encode(json).parse().map_err(HubError::internal)?;
            response.headers_mut().insert(CONTINUATION, token);
        }
        Ok(response)
    }
}
