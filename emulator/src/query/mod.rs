//! IoT Hub's query language over device twins.
//!
//! Parsed by hand: the dialect is small and none of SQL's (`IN ['a']`, `NIN`,
//! `"…"` as a string, `$version` in paths), so a general SQL parser would need
//! as much code around it as this takes.
//!
//! Source: "IoT Hub query language for device and module twins, jobs, and
//! message routing".

mod ast;
mod eval;
mod lexer;
mod parser;

pub use ast::Query;
