//! A local IoT Hub: MQTT 3.1.1 over TLS and WebSocket for devices, REST over
//! HTTPS for services, and a store that survives a kill at any instant.
//!
//! The way of a packet: [`server`] accepts a connection, and the front door of
//! [`mqtt`] gives it to a session, which turns packets into operations of the
//! [`hub`]. The hub keeps devices in the [`registry`] and the links of connected
//! ones in [`links`]. [`http`], [`job_runner`] and [`configuration_runner`] are the
//! other ways in; like MQTT they stand above the hub, and nothing below it imports them. The small
//! commands ([`commands`], [`fault_command`], [`health`]) are clients of a running emulator.

pub mod address;
pub mod advice;
pub mod api_version;
pub mod authentication;
pub mod certificates;
pub mod changes;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod configuration_runner;
pub mod configurations;
pub mod configured;
pub mod connection_strings;
pub mod data_dir;
pub mod device;
pub mod edge_scopes;
pub mod etag;
pub mod fault_command;
pub mod faults;
pub mod fields;
pub mod glass;
pub mod health;
pub mod http;
pub mod hub;
pub mod job_runner;
pub mod jobs;
pub mod link;
pub mod links;
pub mod messages;
pub mod method_call;
pub mod mqtt;
pub mod notifications;
pub mod outbox;
pub mod output;
pub mod pki;
pub mod policies;
pub mod printable;
pub mod proof;
#[cfg(test)]
mod properties;
pub mod provisioning;
pub mod query;
pub mod random;
pub mod recent;
pub mod refusal;
pub mod registry;
pub mod serve;
pub mod server;
pub mod store;
pub mod strangers;
pub mod subscriptions;
pub mod telemetry;
pub mod throttle;
pub mod twin;
pub mod visits;
