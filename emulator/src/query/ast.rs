//! A query as a value.

use serde_json::Value;

/// `SELECT … FROM … [WHERE …] [GROUP BY …]`.
#[derive(Debug, PartialEq)]
pub struct Query {
    /// The most rows in all, with `TOP`.
    pub top: Option<usize>,
    /// The documents that rows are made of.
    pub source: Source,
    /// What rows consist of.
    pub(super) selection: Selection,
    /// What a document has to fulfil.
    pub(super) condition: Option<Condition>,
    /// The documents of one group agree in the values at all these paths.
    pub(super) group_by: Vec<Path>,
}

/// What follows `FROM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Device twins.
    Devices,
    /// Module twins.
    Modules,
    /// The devices' parts of jobs.
    Jobs,
}

/// What a row consists of.
#[derive(Debug, PartialEq)]
pub(super) enum Selection {
    /// The whole document.
    Whole,
    /// Parts of the document.
    Columns(Vec<Column<Path>>),
    /// What the documents of a group come to.
    Aggregates(Vec<Column<Projection>>),
}

/// A column of a row.
#[derive(Debug, PartialEq)]
pub(super) struct Column<T> {
    /// Where the value comes from.
    pub(super) what: T,
    /// The alias, else the path's last part, else `$1`, `$2` and so on.
    pub(super) name: String,
}

/// A column of grouped rows.
#[derive(Debug, PartialEq)]
pub(super) enum Projection {
    /// The value at a path that follows `GROUP BY`.
    Key(Path),
    /// `COUNT()`
    Count,
    /// Another function, over the values at a path.
    Over(Aggregate, Path),
}

/// A function over the documents of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Avg,
    Min,
    Max,
}

/// A dotted path, such as `properties.reported.rebootTime`.
pub(super) type Path = Vec<String>;

/// What selects documents; also what a job's `queryCondition` holds.
#[derive(Debug, PartialEq)]
pub struct Condition(pub(super) Expression);

/// Something with a value, which may be undefined.
#[derive(Debug, PartialEq)]
pub(super) enum Expression {
    /// A place in the document.
    Path(Path),
    /// A constant.
    Literal(Value),
    /// `[…]`
    Array(Vec<Expression>),
    /// `NOT`
    Not(Box<Expression>),
    /// Two operands and what stands between them.
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// `IN`: the first is equal to an element of the second.
    In(Box<Expression>, Box<Expression>),
    /// `IS_DEFINED(path)`
    IsDefined(Path),
    /// `ARRAY_CONTAINS(array, value)`. Not among the documented functions of
    /// twin queries, but the official command line uses it.
    ArrayContains(Box<Expression>, Box<Expression>),
}

/// What stands between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
