//! From text to tokens.

use crate::refusal::{ErrorCode, HubRefusal};

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword or a name, spelled as in the query.
    Word(String),
    /// `'…'` or `"…"`.
    Text(String),
    /// A number without its sign.
    Number(serde_json::Number),
    /// One of [`SYMBOLS`].
    Symbol(&'static str),
}

/// All symbols, the longer ones first: `<` would match the beginning of `<=`.
const SYMBOLS: [&str; 19] =
    ["!=", "<>", "<=", ">=", "=", "<", ">", ",", ".", "*", "/", "%", "+", "-", "(", ")", "[", "]", ";"];

/// Splits a query into tokens.
pub(super) fn tokens(query: &str) -> Result<Vec<Token>, HubRefusal> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = if let (Some(Token::Symbol(".")), Some(name)) =
            (tokens.last(), rest.strip_prefix("[["))
        {
            // A name of a configuration, which may have any characters.
            let (name, after) = name.split_once("]]").ok_or_else(|| invalid("[[ is not closed"))?;
            (Token::Word(name.to_owned()), after)
        } else if first == '\'' || first == '"' {
            text(rest, first)?
        } else if first.is_ascii_digit() {
            number(rest)?
        } else if is_word(first) {
            let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
            (Token::Word(word.to_owned()), after)
        } else {
            let symbol = SYMBOLS.iter().find_map(|symbol| Some((*symbol, rest.strip_prefix(symbol)?)));
            let (symbol, after) = symbol.ok_or_else(|| invalid(format!("{first:?} is not understood")))?;
            (Token::Symbol(symbol), after)
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// The refusal of a query.
pub(super) fn invalid(why: impl std::fmt::Display) -> HubRefusal {
    ErrorCode::ArgumentInvalid.bad_request(format!("the query is not understood: {why}"))
}

/// Whether words may have this character.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The string at the beginning of `rest`, and what follows it. Inside a string,
/// a quote is doubled or escaped with a backslash.
fn text(rest: &str, quote: char) -> Result<(Token, &str), HubRefusal> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c == '\\' {
            value.extend(chars.next().map(|(_, escaped)| escaped));
        } else if c != quote {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            value.push(quote);
        } else {
            let after = rest.get(index + 1..).unwrap_or_default();
            return Ok((Token::Text(value), after));
        }
    }
    Err(invalid("a string is not closed"))
}

/// The number at the beginning of `rest`, and what follows it.
fn number(rest: &str) -> Result<(Token, &str), HubRefusal> {
    let mut before = ' ';
    let ends = |c: char| {
        // The sign of an exponent is a part of the number.
        let sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E');
        before = c;
        !(c.is_ascii_alphanumeric() || c == '.' || sign)
    };
    let (number, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
    match number.parse() {
        Ok(number) => Ok((Token::Number(number), after)),
        Err(_) => Err(invalid(format!("{number:?} is not a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds() {
        let word = |word: &str| Token::Word(word.into());
        let text = |text: &str| Token::Text(text.into());
        let number = |text: &str| Token::Number(text.parse().unwrap());
        assert_eq!(
            tokens(r#" a.$b>=-1.5e-3+2 <>'it''s' "x\"y" ['ü', 7] "#).unwrap(),
            [
                word("a"),
                Token::Symbol("."),
                word("$b"),
                Token::Symbol(">="),
                Token::Symbol("-"),
                number("1.5e-3"),
                Token::Symbol("+"),
                number("2"),
                Token::Symbol("<>"),
                text("it's"),
                text("x\"y"),
                Token::Symbol("["),
                text("ü"),
                Token::Symbol(","),
                number("7"),
                Token::Symbol("]"),
            ]
        );
    }

    #[test]
    fn a_name_in_double_brackets_is_one_word() {
        let word = |word: &str| Token::Word(word.into());
        let dot = Token::Symbol(".");
        assert_eq!(
            tokens("configurations.[[a-b.c]].status").unwrap(),
            [word("configurations"), dot.clone(), word("a-b.c"), dot, word("status")]
        );
        assert_eq!(tokens("[[1]]").unwrap().len(), 5, "an array within an array");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for bad in ["a.[[b", "'open", "a ? b", "1x2", "a & b", "'\\"] {
            assert_eq!(tokens(bad).unwrap_err().code, ErrorCode::ArgumentInvalid, "{bad}");
        }
    }
}
