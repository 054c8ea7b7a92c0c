//! Which of the hub's throttles counts an HTTP request, and the pace within
//! each.

use std::time::Duration;

use super::pace::Pace;

/// A kind of HTTP request that the hub meters apart. Whoever makes a request
/// says which kind it is; its path does not tell, since a device may be called
/// `methods`.
///
/// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and
/// throttling".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Throttle {
    /// Direct methods.
    MethodCalls,
    /// Queries.
    Queries,
    /// Twins, the registry and jobs. The hub meters these apart as well, but no
    /// command sends many of more than one of them.
    Others,
}

/// How fast each kind of HTTP request is sent.
pub(super) struct Paces {
    method_calls: Pace,
    queries: Pace,
    others: Pace,
}

/// The longest gap between requests of most kinds, of which even the smallest hub
/// takes more than one in a second.
const A_SECOND: Duration = Duration::from_secs(1);
/// The longest gap between queries, of which the smallest hub takes 20 in a
/// minute.
const BETWEEN_QUERIES: Duration = Duration::from_secs(3);

impl Default for Paces {
    fn default() -> Self {
        Paces {
            method_calls: Pace::new(A_SECOND),
            queries: Pace::new(BETWEEN_QUERIES),
            others: Pace::new(A_SECOND),
        }
    }
}

impl Paces {
    /// The pace of a kind.
    pub(super) fn of(&self, throttle: Throttle) -> &Pace {
        match throttle {
            Throttle::MethodCalls => &self.method_calls,
            Throttle::Queries => &self.queries,
            Throttle::Others => &self.others,
        }
    }

    /// From now on, keeps method calls at least `gap` apart, and HTTP requests
    /// of the kind `Others` two fifths of it.
    pub(super) fn no_faster_than(&self, gap: Duration) {
        self.method_calls.no_faster_than(gap);
        self.others.no_faster_than(gap * 2 / 5);
    }
}
