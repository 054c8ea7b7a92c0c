//! Long answers in pages: a service asks for a page's size by
//! `x-ms-max-item-count`, and for the next page by the `x-ms-continuation` that
//! came with the page before.
//!
//! The continuation is the name of the last row of the page before, and how many
//! rows `TOP` has left; so a row that comes or goes between two pages shifts
//! nothing.

use std::ops::ControlFlow;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::{ErrorCode, HubRefusal};

/// The documented most rows of a page. Larger sizes are cut to it, since
/// official clients ask for them.
const MAX_PAGE: usize = 100;

const PAGE_SIZE: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";

/// Which page a client asks for.
pub(super) struct Wanted {
    /// The name of the row to go on after; `None` for the first page.
    pub(super) after: Option<String>,
    /// How many rows may come in all, this page included; `None` for any number.
    left: Option<usize>,
    /// The most rows of this page.
    size: usize,
}

/// What `x-ms-continuation` says, as JSON in base64.
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
    /// The name of the last row so far.
    last: Option<String>,
    /// Whether there was a row that did not fit.
    more: bool,
}

impl Wanted {
    /// Reads the headers. `top` limits the rows of all pages together.
    pub(super) fn parse(headers: &HeaderMap, top: Option<usize>) -> Result<Self, HubRefusal> {
        let size = match headers.get(PAGE_SIZE) {
            None => MAX_PAGE,
            Some(size) => match size.to_str().ok().and_then(|size| size.parse::<usize>().ok()) {
                Some(size) if size > 0 => size.min(MAX_PAGE),
                _ => {
                    return Err(
                        ErrorCode::ArgumentInvalid.because(format!("{PAGE_SIZE} is not a number above 0"))
                    );
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
        let Continuation { after, left } = read().ok_or_else(|| {
            ErrorCode::ArgumentInvalid.because(format!("{CONTINUATION} is none of this hub's"))
        })?;
        Ok(Wanted { after: Some(after), left, size })
    }
}

impl Page {
    /// An empty page.
    pub(super) fn new(wanted: &Wanted) -> Self {
        let size = wanted.size.min(wanted.left.unwrap_or(usize::MAX));
        Page { rows: Vec::new(), size, left: wanted.left, last: None, more: false }
    }

    /// Adds a row by its name, or breaks when the page is full.
    pub(super) fn add(&mut self, name: &str, row: impl FnOnce() -> Value) -> ControlFlow<()> {
        if self.rows.len() == self.size {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.rows.push(row());
        self.last = Some(name.to_owned());
        ControlFlow::Continue(())
    }

    /// The page as an answer. Which item types the real hub names besides `Twin`
    /// is unverified.
    pub(super) fn respond(self, item_type: &'static str) -> Result<Response, HubRefusal> {
        let left = self.left.map(|left| left.saturating_sub(self.rows.len()));
        let mut response = Json(self.rows).into_response();
        response.headers_mut().insert("x-ms-item-type", HeaderValue::from_static(item_type));
        if let Some(after) = self.last.filter(|_| self.more && left != Some(0)) {
            let json = serde_json::to_vec(&Continuation { after, left }).map_err(HubRefusal::internal)?;
            let token = STANDARD.encode(json).parse().map_err(HubRefusal::internal)?;
            response.headers_mut().insert(CONTINUATION, token);
        }
        Ok(response)
    }
}
