//! From tokens to expressions, by recursive descent. Operators bind, from
//! weakest to strongest: `OR`; `AND`; `NOT`; comparisons and `IN`; `+ -`;
//! `* / %`.

use serde_json::Value;

use super::ast::{Expression, Operator, Path, Source};
use super::lexer::{Token, invalid, tokens};
use super::row;
use crate::refusal::{ErrorCode, HubRefusal};

/// The longest query, in characters; a longer one is refused with 412. Source: "IoT
/// Hub query language", and issue 1680 of the .NET SDK.
const MAX_LENGTH: usize = 8192;
/// How deep parentheses and lists may be nested: each level takes some of the
/// stack, which must not run out.
const MAX_DEPTH: usize = 64;

const COMPARISONS: [(&str, Operator); 7] = [
    ("=", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<>", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    ("<", Operator::Less),
    (">=", Operator::GreaterOrEqual),
    (">", Operator::Greater),
];
const SUMS: [(&str, Operator); 2] = [("+", Operator::Add), ("-", Operator::Subtract)];
const PRODUCTS: [(&str, Operator); 3] =
    [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];

/// The tokens that are not parsed yet, and what is known of the query so far.
pub(super) struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    /// How paths may begin without meaning a part of the document: with the source
    /// (`devices.jobs`) and with the alias that it was given.
    pub(super) prefixes: Vec<Path>,
    /// What the documents are, once that is known.
    pub(super) source: Option<Source>,
    /// How many expressions the current one is nested in.
    depth: usize,
}

impl Parser {
    /// A parser at the beginning of `text`.
    pub(super) fn new(text: &str) -> Result<Self, HubRefusal> {
        if text.chars().count() > MAX_LENGTH {
            let why = format!("the query has more than {MAX_LENGTH} characters");
            return Err(ErrorCode::PreconditionFailed.because(why));
        }
        Ok(Parser {
            tokens: tokens(text)?.into_iter().peekable(),
            prefixes: Vec::new(),
            source: None,
            depth: 0,
        })
    }

    /// An expression of any kind.
    pub(super) fn expression(&mut self) -> Result<Expression, HubRefusal> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(invalid("it is nested too deeply"));
        }
        let mut left = self.conjunction()?;
        while self.take_word("OR") {
            left = binary(Operator::Or, left, self.conjunction()?);
        }
        self.depth -= 1;
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expression, HubRefusal> {
        let mut left = self.negation()?;
        while self.take_word("AND") {
            left = binary(Operator::And, left, self.negation()?);
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Expression, HubRefusal> {
        let mut negated = false;
        while self.take_word("NOT") {
            negated = !negated;
        }
        let inner = self.comparison()?;
        Ok(if negated { Expression::Not(Box::new(inner)) } else { inner })
    }

    fn comparison(&mut self) -> Result<Expression, HubRefusal> {
        let left = self.sum()?;
        if let Some(operator) = self.take_operator(&COMPARISONS) {
            return Ok(binary(operator, left, self.sum()?));
        }
        if self.take_word("IN") {
            return Ok(Expression::In(Box::new(left), Box::new(self.sum()?)));
        }
        if self.take_word("NIN") {
            let within = Expression::In(Box::new(left), Box::new(self.sum()?));
            return Ok(Expression::Not(Box::new(within)));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expression, HubRefusal> {
        let mut left = self.product()?;
        while let Some(operator) = self.take_operator(&SUMS) {
            left = binary(operator, left, self.product()?);
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Expression, HubRefusal> {
        let mut left = self.operand()?;
        while let Some(operator) = self.take_operator(&PRODUCTS) {
            left = binary(operator, left, self.operand()?);
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression, HubRefusal> {
        if self.take_symbol("(") {
            let inner = self.expression()?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        if self.take_symbol("[") {
            return self.list("]").map(Expression::Array);
        }
        if self.take_symbol("-") {
            return match self.tokens.next() {
                Some(Token::Number(number)) => match format!("-{number}").parse::<serde_json::Number>() {
                    Ok(number) => Ok(Expression::Literal(Value::Number(number))),
                    Err(_) => Err(invalid(format!("-{number} is not a number"))),
                },
                _ => Err(invalid("a minus stands before something that is no number")),
            };
        }
        let literal = match self.tokens.peek() {
            Some(Token::Text(text)) => Some(Value::from(text.as_str())),
            Some(Token::Number(number)) => Some(Value::from(number.clone())),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("null") => Some(Value::Null),
            _ => None,
        };
        if let Some(literal) = literal {
            self.tokens.next();
            return Ok(Expression::Literal(literal));
        }
        let path = self.path()?;
        if self.take_symbol("(") {
            return self.function(&path.join("."));
        }
        self.within_row(path).map(Expression::Path)
    }

    /// The rest of a function, of which the name and the parenthesis are read
    /// already.
    fn function(&mut self, name: &str) -> Result<Expression, HubRefusal> {
        let arguments = self.list(")")?;
        if ["IS_DEFINED", "IsDefined"].iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return match <[Expression; 1]>::try_from(arguments) {
                Ok([Expression::Path(path)]) => Ok(Expression::IsDefined(path)),
                _ => Err(invalid(format!("{name}() takes one property"))),
            };
        }
        if name.eq_ignore_ascii_case("ARRAY_CONTAINS") {
            return match <[Expression; 2]>::try_from(arguments) {
                Ok([array, value]) => Ok(Expression::ArrayContains(Box::new(array), Box::new(value))),
                Err(_) => Err(invalid(format!("{name}() takes an array and a value"))),
            };
        }
        Err(invalid(format!("{name}() is no function of conditions over twins and jobs")))
    }

    /// Expressions with commas between them, up to and with the symbol `end`.
    fn list(&mut self, end: &'static str) -> Result<Vec<Expression>, HubRefusal> {
        let mut items = Vec::new();
        while !self.take_symbol(end) {
            if !items.is_empty() {
                self.expect_symbol(",")?;
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    /// A dotted path as it is written.
    pub(super) fn path(&mut self) -> Result<Path, HubRefusal> {
        let mut path = vec![self.word()?];
        while self.take_symbol(".") {
            path.push(self.word()?);
        }
        Ok(path)
    }

    /// The path without a prefix that names the source: `d.tags.x` is `tags.x`
    /// after `FROM devices d`. Refuses one that means nothing there.
    pub(super) fn within_row(&self, path: Path) -> Result<Path, HubRefusal> {
        let same = |(a, b): (&String, &String)| a.eq_ignore_ascii_case(b);
        let longer = |prefix: &&Path| path.len() > prefix.len() && path.iter().zip(*prefix).all(same);
        let (prefix, path): (Path, Path) =
            match self.prefixes.iter().filter(longer).max_by_key(|prefix| prefix.len()) {
                Some(prefix) => (prefix.clone(), path.into_iter().skip(prefix.len()).collect()),
                None => (Path::new(), path),
            };
        let why =
            row::ambiguous(&prefix, &path, self.source).or_else(|| row::misunderstood(&path, self.source));
        match why {
            Some(why) => Err(invalid(why)),
            None => Ok(path),
        }
    }

    pub(super) fn word(&mut self) -> Result<String, HubRefusal> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(token) => Err(invalid(format!("{} stands where a name belongs", shown(&token)))),
            None => Err(invalid("it ends where a name belongs")),
        }
    }

    pub(super) fn number(&mut self) -> Option<serde_json::Number> {
        match self.tokens.next()? {
            Token::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn peek_name(&mut self, keywords: &[&str]) -> bool {
        let is_keyword = |word: &str| keywords.iter().any(|keyword| word.eq_ignore_ascii_case(keyword));
        matches!(self.tokens.peek(), Some(Token::Word(word)) if !is_keyword(word))
    }

    pub(super) fn take_word(&mut self, keyword: &str) -> bool {
        let matches =
            |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.tokens.next_if(matches).is_some()
    }

    pub(super) fn expect_word(&mut self, keyword: &str) -> Result<(), HubRefusal> {
        if self.take_word(keyword) { Ok(()) } else { Err(invalid(format!("{keyword} is missing"))) }
    }

    pub(super) fn take_symbol(&mut self, symbol: &'static str) -> bool {
        self.tokens.next_if(|token| *token == Token::Symbol(symbol)).is_some()
    }

    pub(super) fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), HubRefusal> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(invalid(format!("{symbol:?} is missing"))) }
    }

    /// Refuses the query unless all tokens are parsed.
    pub(super) fn end(&mut self) -> Result<(), HubRefusal> {
        match self.tokens.next() {
            None => Ok(()),
            Some(token) => Err(invalid(format!("{} comes too late", shown(&token)))),
        }
    }

    fn take_operator(&mut self, operators: &[(&'static str, Operator)]) -> Option<Operator> {
        operators.iter().find(|(symbol, _)| self.take_symbol(symbol)).map(|(_, operator)| *operator)
    }
}

fn binary(operator: Operator, left: Expression, right: Expression) -> Expression {
    Expression::Binary(operator, Box::new(left), Box::new(right))
}

/// A token as a refusal quotes it.
fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) => word.clone(),
        Token::Text(text) => format!("'{text}'"),
        Token::Number(number) => number.to_string(),
        Token::Symbol(symbol) => format!("{symbol:?}"),
    }
}
