//! Results that the hub gives page by page: queries and lists.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, header};
use super::throttle::Throttle;
use crate::error::Usage;

/// How many rows a page of a query has at most.
///
/// Source: IoT Hub developer guide, "Query language"; no larger page is given.
const PAGE: usize = 100;

/// How many characters a query or a condition may have.
///
/// Source: Microsoft's answer in a public issue about jobs for a lot of
/// devices, which ended in PreconditionFailed.
const LONGEST_QUERY: usize = 8192;

/// The header that asks for pages of a size.
pub(super) const PAGE_SIZE: &str = "x-ms-max-item-count";
/// The header of a response that names the next page, and of the request for
/// that page.
const CONTINUATION: &str = "x-ms-continuation";

/// The pages of a query's result or a list, fetched one by one.
pub struct Pages<'a> {
    hub: &'a HubClient,
    throttle: Throttle,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    /// How many rows are wanted yet, if not all.
    left: Option<usize>,
    next: NextPage,
}

/// The page to fetch next.
enum NextPage {
    First,
    /// The one that this token of the hub's names.
    Token(String),
    /// The last page has been fetched.
    None,
}

impl HubClient {
    /// The pages that `GET` of a path has, with at most `top` values.
    pub(super) fn list(&self, path: &'static str, top: Option<usize>) -> Pages<'_> {
        Pages {
            hub: self,
            throttle: Throttle::Others,
            method: Method::GET,
            path,
            body: None,
            left: top,
            next: NextPage::First,
        }
    }

    /// The rows of a query in IoT Hub's query language, at most `top` of them.
    pub fn query(&self, sql: &str, top: Option<usize>) -> Pages<'_> {
        Pages {
            hub: self,
            throttle: Throttle::Queries,
            method: Method::POST,
            path: "/devices/query",
            body: Some(json!({ "query": sql })),
            left: top,
            next: NextPage::First,
        }
    }
}

/// Refuses a query or a condition that is too long. The hub would answer such
/// a one with PreconditionFailed, as if something had changed meanwhile.
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
    /// The next page, which may be empty; `None` after the last page.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, HubError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let mut request = HttpRequest::new(self.throttle, self.method.clone(), self.path.to_owned());
        request.body = self.body.as_ref();
        request.repeatable = true;
        let size = self.left.map_or(PAGE, |left| left.min(PAGE));
        request = request.header(PAGE_SIZE, size.to_string());
        request = match &self.next {
            NextPage::First => request,
            NextPage::Token(token) => request.header(CONTINUATION, token.clone()),
            NextPage::None => return Ok(None),
        };
        let response = self.hub.send(&request).await?;
        self.next = match header(&response.headers, CONTINUATION) {
            Some(token) => NextPage::Token(token.to_owned()),
            None => NextPage::None,
        };
        let mut rows: Vec<Value> =
            serde_json::from_str(&response.body).map_err(|error| self.hub.not_a_hub(&error))?;
        if let Some(left) = &mut self.left {
            rows.truncate(*left);
            *left -= rows.len();
        }
        Ok(Some(rows))
    }

    /// All rows that are left.
    pub async fn all(mut self) -> Result<Vec<Value>, HubError> {
        let mut rows = Vec::new();
        while let Some(page) = self.next().await? {
            rows.extend(page);
        }
        Ok(rows)
    }
}
