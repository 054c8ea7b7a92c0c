//! A query as a value.

use serde_json::Value;

/// `SELECT … FROM … [WHERE …] [GROUP BY …]`.
#[derive(Debug, PartialEq)]
pub struct Query {
    /// At most so many rows in all, with `TOP`.
    pub top: Option<usize>,
    /// What rows are made of.
    pub source: Source,
    pub(super) selection: Selection,
    pub(super) condition: Option<Condition>,
    /// The rows of one group agree in all of these.
    pub(super) group_by: Vec<Path>,
}

/// What follows `FROM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Device twins.
    Devices,
    /// Module twins.
    Modules,
    /// What jobs did to devices.
    Jobs,
}

/// What a row consists of.
#[derive(Debug, PartialEq)]
pub(super) enum Selection {
    /// All that the source has.
    Whole,
    /// Parts of it.
    Columns(Vec<Column<Path>>),
    /// What many of its rows have in common.
    Aggregates(Vec<Column<Projection>>),
}

/// A value and what it is called in the row.
#[derive(Debug, PartialEq)]
pub(super) struct Column<T> {
    pub(super) what: T,
    /// The alias, else the path's last part, else `$1`, `$2` and so on.
    pub(super) name: String,
}

/// A column of grouped rows.
#[derive(Debug, PartialEq)]
pub(super) enum Projection {
    /// One of the paths that follow `GROUP BY`.
    Key(Path),
    /// `COUNT()`
    Count,
    /// The others, over the values at a path.
    Over(Aggregate, Path),
}

/// A function over the rows of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Avg,
    Min,
    Max,
}

/// A dotted path, such as `properties.reported.rebootTime`.
pub(super) type Path = Vec<String>;

/// What selects rows; also what a job's `queryCondition` holds.
#[derive(Debug, PartialEq)]
pub struct Condition(pub(super) Expression);

/// Something with a value, which may be undefined.
#[derive(Debug, PartialEq)]
pub(super) enum Expression {
    /// A place in the row.
    Path(Path),
    /// A constant.
    Literal(Value),
    /// `[…]`
    Array(Vec<Expression>),
    /// Not.
    Not(Box<Expression>),
    /// Two operands.
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
