//! The daemon's mind, apart from its hands: what to do about an event
//! ([`decide`]) and what to say to the twin ([`twin`]).
//!
//! Nothing in this crate reads a clock, a file or the environment, waits, or
//! talks to anybody: instants, settings and what others said are arguments, and
//! what is to be done is returned. Its `clippy.toml` and its dependencies hold
//! it to that.

pub mod decide;
pub mod twin;
