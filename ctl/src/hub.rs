//! The hub's service REST interface, as far as the commands need it.
//!
//! [`HubClient`] is the handle. `client` holds it, `http` has the request and
//! the response as values, `exchange` sends (and sends again), `throttle` and
//! `pace` keep within the hub's limits, `reach` knows whether the hub is there, and each area of the interface has a
//! file of its own: `twins`, `methods`, `registry`, `jobs`, `configurations`, `pages` (queries
//! and lists) and `probe` (what we may do).
//!
//! Source: the REST reference of IoT Hub and the generated clients of the
//! official SDKs. Each HTTP request carries a token that is valid for a good while yet,
//! so none expires while a command waits.

mod client;
mod configurations;
mod error;
mod exchange;
mod http;
mod jobs;
mod methods;
mod pace;
mod pages;
mod probe;
mod proxy;
mod reach;
mod refusal;
mod registry;
mod throttle;
mod twins;

pub use self::client::HubClient;
pub use self::error::HubError;
pub(crate) use self::error::certificate_remedy;
pub use self::methods::{MethodCall, Turn};
pub use self::pages::{Pages, ROWS_OF_A_PAGE, check_length, literal};
pub use self::probe::{Probe, Probed};
pub use self::proxy::Proxy;
pub use self::refusal::{CLOCK_TOLERANCE, HubRefusal, RefusalKind};
