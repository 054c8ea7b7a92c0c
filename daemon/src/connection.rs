//! The way to the hub: who the device is there, how servers are reached and
//! trusted, and the session that is kept with one.

pub mod certificate;
mod der;
pub mod dial;
pub mod hub;
pub mod identity;
pub mod mqtt;
pub mod network;
pub mod observe;
pub mod outage;
pub mod pace;
pub mod provisioning;
pub mod proxy;
pub mod rivalry;
pub mod tls;
pub mod trial;
pub mod trust;
