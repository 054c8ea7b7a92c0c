//! A query as a value.

use serde_json::Value;

/// `SELECT … FROM devices [WHERE …]`.
#[derive(Debug, PartialEq)]
pub struct Query {
    /// At most so many rows in all, with `TOP`.
    pub top: Option<usize>,
    /// What a row consists of; everything, when absent.
    pub(super) columns: Option<Vec<Column>>,
    /// Which devices.
    pub(super) condition: Option<Condition>,
}

/// A path and what it is called in the row.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    /// Where it is in the twin.
    pub(super) path: Path,
    /// The alias, else the path's last part.
    pub(super) name: String,
}

/// A dotted path, such as `properties.reported.rebootTime`.
pub(super) type Path = Vec<String>;

/// What follows `WHERE`.
#[derive(Debug, PartialEq)]
pub(super) enum Condition {
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// Either.
    Or(Box<Condition>, Box<Condition>),
    /// Not.
    Not(Box<Condition>),
    /// Two operands compared.
    Compare(Operand, Comparison, Operand),
    /// Equal to one of these.
    In(Operand, Vec<Value>),
    /// The path exists.
    IsDefined(Path),
    /// A value that is itself true or false.
    Holds(Operand),
}

/// One side of a comparison.
#[derive(Debug, PartialEq)]
pub(super) enum Operand {
    /// A place in the twin.
    Path(Path),
    /// A constant.
    Literal(Value),
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    /// `=`
    Equal,
    /// `!=`, `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}
