//! What the daemon does next: an event and the state go in, effects come out.
//!
//! [`agent::Agent`] is the one to talk to. It is told what happens by an
//! [`event::Event`] and answers with [`effect::Effect`]s, to be carried out in
//! their order.

pub mod age;
pub mod agent;
pub mod boots;
pub mod effect;
pub mod event;
pub mod guard;
pub mod health;
pub mod ids;
pub mod memory;
pub mod need;
pub mod outlook;
pub mod record;
pub mod refusal;
pub mod request;
pub mod spread;
pub mod windows;
