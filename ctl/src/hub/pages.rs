//! Results that the hub gives page by page: queries and lists.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use reqwest::Method;
use serde_json::{Value, json};

use super::client::HubClient;
use super::error::HubError;
use super::exchange::marks;
use super::http::{HttpRequest, header};
use super::throttle::Throttle;
use crate::error::Usage;

/// How many rows a page of a query has at most.
///
/// Source: IoT Hub developer guide, "Query language"; no larger page is given.
pub const ROWS_OF_A_PAGE: usize = 100;

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

/// How many pages in a row may have no row.
const MOST_EMPTY_PAGES: usize = 1000;
/// How many pages there may be: more than a hub has that is full, with a million
/// devices of 50 modules each.
///
/// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and throttling".
const MOST_PAGES: usize = 1_000_000;
/// How much of a result is kept at once: about 1 GiB of memory, which whole twins
/// of some 60,000 devices take.
const MOST_KEPT: usize = 1 << 30;
/// About how much memory a value takes beside its text, in bytes.
const OF_A_VALUE: usize = 128;

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
    /// The hashes of the tokens that named a page so far.
    tokens: HashSet<u64>,
    /// How many pages without a row came last.
    empty: usize,
    /// About how much memory the pages so far take, in bytes.
    size: usize,
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
    /// The pages that `GET` of a path has.
    pub(super) fn list(&self, path: &'static str) -> Pages<'_> {
        Pages {
            hub: self,
            throttle: Throttle::Others,
            method: Method::GET,
            path,
            body: None,
            left: None,
            next: NextPage::First,
            tokens: HashSet::new(),
            empty: 0,
            size: 0,
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
            tokens: HashSet::new(),
            empty: 0,
            size: 0,
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
    /// The next page, which may be empty; `None` after the last page. A hub that
    /// never comes to the last page is an error.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, HubError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let mut request = HttpRequest::new(self.throttle, self.method.clone(), self.path.to_owned());
        request.body = self.body.as_ref();
        request.repeatable = true;
        let size = self.left.map_or(ROWS_OF_A_PAGE, |left| left.min(ROWS_OF_A_PAGE));
        request = request.header(PAGE_SIZE, size.to_string());
        request = match &self.next {
            NextPage::First => request,
            NextPage::Token(token) => request.header(CONTINUATION, token.clone()),
            NextPage::None => return Ok(None),
        };
        let response = self.hub.send(&request).await?;
        let token = header(&response.headers, CONTINUATION);
        if token.is_some_and(|token| !self.tokens.insert(hash(token))) {
            return Err(self.hub.too_much("the same page of its result again"));
        }
        if self.tokens.len() > MOST_PAGES {
            return Err(self.hub.too_much("more than 1000000 pages"));
        }
        self.next = token.map_or(NextPage::None, |token| NextPage::Token(token.to_owned()));
        self.size += response.body.len() + OF_A_VALUE * marks(response.body.as_bytes());
        let mut rows: Vec<Value> =
            serde_json::from_str(&response.body).map_err(|error| self.hub.not_a_hub(&error))?;
        self.empty = if rows.is_empty() { self.empty + 1 } else { 0 };
        if self.empty >= MOST_EMPTY_PAGES {
            return Err(self.hub.too_much("1000 pages without a row"));
        }
        if let Some(left) = &mut self.left {
            rows.truncate(*left);
            *left -= rows.len();
        }
        Ok(Some(rows))
    }

    /// All rows that are left, or an error if they are more than can be kept.
    pub async fn all(mut self) -> Result<Vec<Value>, HubError> {
        let mut rows = Vec::new();
        while let Some(page) = self.next().await? {
            if self.size > MOST_KEPT {
                let what = "a result of more than 1 GiB; ask for less with --top or --where, or see it page by page \
                            with query -o jsonl";
                return Err(self.hub.too_much(what));
            }
            rows.extend(page);
        }
        Ok(rows)
    }
}

fn hash(token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}
