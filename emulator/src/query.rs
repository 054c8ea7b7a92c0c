//! IoT Hub's query language over device twins, module twins and jobs.
//!
//! A text goes through `lexer`, `expression` and `parser` to the values of
//! `ast`, and `row` knows what paths may name; `eval` selects documents and makes rows, `aggregate` makes rows of
//! groups. The dialect is parsed by hand, since it is small and not SQL
//! (`IN ['a']`, `NIN`, `"…"` as a string, `$version` in paths): a general SQL
//! parser would need as much code around it as this takes.
//!
//! Source: "IoT Hub query language for device and module twins, jobs, and
//! message routing".

mod aggregate;
mod ast;
mod eval;
mod expression;
mod lexer;
mod parser;
mod row;

pub use aggregate::Groups;
pub use ast::{Condition, Query, Source};
