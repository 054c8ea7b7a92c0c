//! IoT Hub's query language over device twins, module twins and jobs.
//!
//! Parsed by hand: the dialect is small and none of SQL's (`IN ['a']`, `NIN`,
//! `"…"` as a string, `$version` in paths), so a general SQL parser would need
//! as much code around it as this takes.
//!
//! Source: "IoT Hub query language for device and module twins, jobs, and
//! message routing".

mod aggregate;
mod ast;
mod eval;
mod expression;
mod lexer;
mod parser;

pub use aggregate::Groups;
pub use ast::{Condition, Query, Source};
