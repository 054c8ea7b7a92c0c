//! MQTT 3.1.1 as devices speak it: bytes to packets, packets to the hub.
//!
//! One packet kind per file; [`session`] drives a connection.

pub mod connect;
pub mod connection;
pub mod publish;
pub mod session;
pub mod subscribe;
pub mod will;
