//! Tokens to a query, by recursive descent: `OR` binds weakest, then `AND`,
//! then `NOT`.

use serde_json::Value;

use super::ast::{Column, Comparison, Condition, Operand, Path, Query};
use super::lexer::{Token, invalid, tokens};
use crate::error::HubError;

/// The documented limit of a query, in characters.
const MAX_LENGTH: usize = 8192;
/// Deeper parentheses are refused rather than run out of stack.
const MAX_DEPTH: usize = 64;

impl std::str::FromStr for Query {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        if text.chars().count() > MAX_LENGTH {
            return Err(invalid(format!("it has more than {MAX_LENGTH} characters")));
        }
        let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), alias: None, depth: 0 };
        parser.query()
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    /// What `FROM devices` was given as another name.
    alias: Option<String>,
    depth: usize,
}

impl Parser {
    fn query(&mut self) -> Result<Query, HubError> {
        self.expect_word("SELECT")?;
        let top = if self.take_word("TOP") { Some(self.count()?) } else { None };
        let mut columns = if self.take_symbol("*") { None } else { Some(self.columns()?) };
        self.expect_word("FROM")?;
        self.source()?;
        for column in columns.iter_mut().flatten() {
            self.strip_alias(&mut column.path);
        }
        let condition = if self.take_word("WHERE") { Some(self.condition()?) } else { None };
        self.take_symbol(";");
        match self.tokens.next() {
            None => Ok(Query { top, columns, condition }),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("GROUP") => {
                Err(invalid("GROUP BY is not emulated"))
            }
            Some(token) => Err(invalid(format!("{} comes too late", shown(&token)))),
        }
    }

    fn columns(&mut self) -> Result<Vec<Column>, HubError> {
        let mut columns = Vec::new();
        loop {
            let path = self.path()?;
            if self.peek_symbol("(") {
                return Err(invalid(format!("{}() is not emulated", path.join("."))));
            }
            let name =
                if self.take_word("AS") { self.word()? } else { path.last().cloned().unwrap_or_default() };
            columns.push(Column { path, name });
            if !self.take_symbol(",") {
                return Ok(columns);
            }
        }
    }

    fn source(&mut self) -> Result<(), HubError> {
        let source = self.path()?.join(".");
        if !source.eq_ignore_ascii_case("devices") {
            return Err(invalid(format!("only FROM devices is emulated, not {source:?}")));
        }
        let is_name = |token: &Token| match token {
            Token::Word(word) => !["WHERE", "GROUP"].iter().any(|key| word.eq_ignore_ascii_case(key)),
            _ => false,
        };
        if self.take_word("AS") || self.tokens.peek().is_some_and(is_name) {
            self.alias = Some(self.word()?);
        }
        Ok(())
    }

    fn condition(&mut self) -> Result<Condition, HubError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(invalid("it is nested too deeply"));
        }
        let mut left = self.conjunction()?;
        while self.take_word("OR") {
            left = Condition::Or(Box::new(left), Box::new(self.conjunction()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Condition, HubError> {
        let mut left = self.negation()?;
        while self.take_word("AND") {
            left = Condition::And(Box::new(left), Box::new(self.negation()?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Condition, HubError> {
        let mut negated = false;
        while self.take_word("NOT") {
            negated = !negated;
        }
        let condition = self.predicate()?;
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn predicate(&mut self) -> Result<Condition, HubError> {
        if self.take_symbol("(") {
            let inner = self.condition()?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        let left = self.operand()?;
        if let Operand::Path(path) = &left
            && self.peek_symbol("(")
        {
            return self.function(&path.join("."));
        }
        if let Some(comparison) = self.comparison() {
            return Ok(Condition::Compare(left, comparison, self.operand()?));
        }
        if self.take_word("IN") {
            return Ok(Condition::In(left, self.list()?));
        }
        if self.take_word("NIN") {
            return Ok(Condition::Not(Box::new(Condition::In(left, self.list()?))));
        }
        Ok(Condition::Holds(left))
    }

    fn function(&mut self, name: &str) -> Result<Condition, HubError> {
        if !["IS_DEFINED", "IsDefined"].iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(invalid(format!("{name}() is not emulated")));
        }
        self.expect_symbol("(")?;
        let mut path = self.path()?;
        self.strip_alias(&mut path);
        self.expect_symbol(")")?;
        Ok(Condition::IsDefined(path))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        for (symbol, comparison) in [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            ("<", Comparison::Less),
            (">=", Comparison::GreaterOrEqual),
            (">", Comparison::Greater),
        ] {
            if self.take_symbol(symbol) {
                return Some(comparison);
            }
        }
        None
    }

    fn list(&mut self) -> Result<Vec<Value>, HubError> {
        self.expect_symbol("[")?;
        let mut values = Vec::new();
        while !self.take_symbol("]") {
            if !values.is_empty() {
                self.expect_symbol(",")?;
            }
            match self.operand()? {
                Operand::Literal(value) => values.push(value),
                Operand::Path(path) => {
                    return Err(invalid(format!("{} is not a constant", path.join("."))));
                }
            }
        }
        Ok(values)
    }

    fn operand(&mut self) -> Result<Operand, HubError> {
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
            return Ok(Operand::Literal(literal));
        }
        let mut path = self.path()?;
        self.strip_alias(&mut path);
        Ok(Operand::Path(path))
    }

    fn path(&mut self) -> Result<Path, HubError> {
        let mut path = vec![self.word()?];
        while self.take_symbol(".") {
            path.push(self.word()?);
        }
        Ok(path)
    }

    /// `d.tags.x` is `tags.x` after `FROM devices d`.
    fn strip_alias(&self, path: &mut Path) {
        if path.len() > 1 && path.first() == self.alias.as_ref() {
            path.remove(0);
        }
    }

    fn count(&mut self) -> Result<usize, HubError> {
        let parenthesis = self.take_symbol("(");
        let count = match self.tokens.next() {
            Some(Token::Number(number)) => number.as_u64().and_then(|count| usize::try_from(count).ok()),
            _ => None,
        };
        if parenthesis {
            self.expect_symbol(")")?;
        }
        count.filter(|count| *count > 0).ok_or_else(|| invalid("TOP needs a number above 0"))
    }

    fn word(&mut self) -> Result<String, HubError> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(token) => Err(invalid(format!("{} stands where a name belongs", shown(&token)))),
            None => Err(invalid("it ends where a name belongs")),
        }
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let matches =
            |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.tokens.next_if(matches).is_some()
    }

    fn expect_word(&mut self, keyword: &str) -> Result<(), HubError> {
        if self.take_word(keyword) { Ok(()) } else { Err(invalid(format!("{keyword} is missing"))) }
    }

    fn peek_symbol(&mut self, symbol: &'static str) -> bool {
        self.tokens.peek() == Some(&Token::Symbol(symbol))
    }

    fn take_symbol(&mut self, symbol: &'static str) -> bool {
        self.tokens.next_if(|token| *token == Token::Symbol(symbol)).is_some()
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), HubError> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(invalid(format!("{symbol:?} is missing"))) }
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) => word.clone(),
        Token::Text(text) => format!("'{text}'"),
        Token::Number(number) => number.to_string(),
        Token::Symbol(symbol) => format!("{symbol:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Query, HubError> {
        text.parse()
    }

    fn path(text: &str) -> Path {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn or_binds_weakest() {
        let query = parse("select * from devices where a = 1 or not b = 2 and c = 3").unwrap();
        let is = |name, value: i64| {
            Condition::Compare(Operand::Path(path(name)), Comparison::Equal, Operand::Literal(json!(value)))
        };
        let not_b = Condition::Not(Box::new(is("b", 2)));
        let expected = Condition::Or(
            Box::new(is("a", 1)),
            Box::new(Condition::And(Box::new(not_b), Box::new(is("c", 3)))),
        );
        assert_eq!(query.condition, Some(expected));
    }

    #[test]
    fn columns_aliases_and_top() {
        let query =
            parse("SELECT TOP 5 d.deviceId, properties.reported.$version AS v FROM devices AS d;").unwrap();
        assert_eq!(query.top, Some(5));
        let column = |text, name: &str| Column { path: path(text), name: name.into() };
        let expected = vec![column("deviceId", "deviceId"), column("properties.reported.$version", "v")];
        assert_eq!(query.columns, Some(expected));
    }

    #[test]
    fn what_is_not_emulated_says_so() {
        for (text, named) in [
            ("SELECT COUNT() AS n FROM devices", "COUNT()"),
            ("SELECT * FROM devices GROUP BY tags.a", "GROUP BY"),
            ("SELECT * FROM devices.modules", "devices.modules"),
            ("SELECT * FROM devices WHERE STARTSWITH(deviceId, 'a')", "STARTSWITH()"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(named) && error.message.contains("emulated"), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = format!("SELECT * FROM devices WHERE {}a=1{}", "(".repeat(100), ")".repeat(100));
        let long = format!("SELECT * FROM devices WHERE a = '{}'", "x".repeat(8192));
        for text in [
            "",
            "SELECT",
            "SELECT * FROM",
            "SELECT FROM devices",
            "SELECT TOP 0 * FROM devices",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE a =",
            "SELECT * FROM devices WHERE a = 1 b",
            "SELECT * FROM devices WHERE a IN ['x' 'y']",
            "SELECT * FROM devices WHERE a IN [b]",
            "SELECT * FROM devices WHERE (a = 1",
            "SELECT * FROM devices WHERE IS_DEFINED('a')",
            "DELETE FROM devices",
            &deep,
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
