//! A local IoT Hub: MQTT 3.1.1 over TLS and WebSocket for devices, REST over
//! HTTPS for services, and a store that survives a kill at any instant.
//!
//! The way of a packet: [`server`] accepts, [`mqtt`] turns bytes into packets
//! and packets into operations of the [`hub`], which keeps devices in the
//! [`registry`] and connections in [`links`]. [`http`] is the other way in.

pub mod advice;
pub mod authentication;
pub mod certificates;
pub mod cli;
pub mod client;
pub mod commands;
pub mod configurations;
pub mod credentials;
pub mod data_dir;
pub mod device;
pub mod error;
pub mod events;
pub mod fault_command;
pub mod faults;
pub mod http;
pub mod hub;
pub mod identity;
pub mod jobs;
pub mod link;
pub mod links;
pub mod messages;
pub mod method;
pub mod mqtt;
pub mod pki;
pub mod policies;
#[cfg(test)]
mod properties;
pub mod provisioning;
pub mod query;
pub mod random;
pub mod registry;
pub mod scopes;
pub mod serve;
pub mod server;
pub mod store;
pub mod subscriptions;
pub mod throttle;
pub mod twin;
