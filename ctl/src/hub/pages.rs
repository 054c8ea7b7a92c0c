//! Results that the hub gives page by page.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Hub, Request, text};
use crate::error::Usage;
use crate::hub_error::HubError;

/// The page size of queries; the documentation allows no more.
const PAGE: usize = 100;

/// The characters that a query or a condition may have.
///
/// Source: Microsoft's answer in a public issue about jobs for a lot of devices,
/// which ended in PreconditionFailed.
const LONGEST_QUERY: usize = 8192;

/// The pages of a query's result or a list, fetched one by one.
pub struct Pages<'a> {
    hub: &'a Hub,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    left: Option<usize>,
    next: Next,
}

enum Next {
    First,
    After(String),
    End,
}

impl Hub {
    /// The pages that `GET` of a path has, with at most `top` values.
    pub(super) fn list(&self, path: &'static str, top: Option<usize>) -> Pages<'_> {
        Pages { hub: self, method: Method::GET, path, body: None, left: top, next: Next::First }
    }

    /// The rows of a query, at most `top` of them.
    pub fn query(&self, sql: &str, top: Option<usize>) -> Pages<'_> {
        let body = Some(json!({ "query": sql }));
        Pages { hub: self, method: Method::POST, path: "/devices/query", body, left: top, next: Next::First }
    }
}

/// Refuses a query or a condition that the hub would take for something that
/// was changed meanwhile, as it answers to one that is too long.
pub fn check_length(sql: &str) -> Result<(), Usage> {
    match sql.chars().count() {
        0..=LONGEST_QUERY => Ok(()),
        length => Err(Usage(format!(
            "the query or condition has {length} characters, and a hub takes {LONGEST_QUERY}; select by a tag"
        ))),
    }
}

/// A string as the query language writes it.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "\\'"))
}

impl Pages<'_> {
    /// The next page, which may be empty; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, HubError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let mut request = Request::new(self.method.clone(), self.path.to_owned());
        request.body = self.body.as_ref();
        request.repeatable = true;
        let size = self.left.map_or(PAGE, |left| left.min(PAGE));
        request.headers.push(("x-ms-max-item-count", size.to_string()));
        match &self.next {
            Next::First => {}
            Next::After(token) => request.headers.push(("x-ms-continuation", token.clone())),
            Next::End => return Ok(None),
        }
        let answer = self.hub.send(&request).await?;
        self.next = match text(&answer.headers, "x-ms-continuation") {
            Some(token) => Next::After(token.to_owned()),
            None => Next::End,
        };
        let mut rows: Vec<Value> =
            serde_json::from_str(&answer.body).map_err(|error| self.hub.not_a_hub(&error))?;
        if let Some(left) = &mut self.left {
            rows.truncate(*left);
            *left -= rows.len();
        }
        Ok(Some(rows))
    }

    /// All pages that are left.
    pub async fn all(mut self) -> Result<Vec<Value>, HubError> {
        let mut rows = Vec::new();
        while let Some(page) = self.next().await? {
            rows.extend(page);
        }
        Ok(rows)
    }
}
