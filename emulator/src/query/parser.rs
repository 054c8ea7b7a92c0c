//! From text to queries and to conditions.

use super::ast::{Aggregate, Column, Condition, Path, Projection, Query, Selection, Source};
use super::expression::Parser;
use super::lexer::invalid;
use crate::refusal::HubRefusal;

impl std::str::FromStr for Query {
    type Err = HubRefusal;

    fn from_str(text: &str) -> Result<Self, HubRefusal> {
        let mut parser = Parser::new(text)?;
        parser.expect_word("SELECT")?;
        let top = if parser.take_word("TOP") { Some(count(&mut parser)?) } else { None };
        let columns = if parser.take_symbol("*") { None } else { Some(columns(&mut parser)?) };
        parser.expect_word("FROM")?;
        let source = source(&mut parser)?;
        let condition = if parser.take_word("WHERE") { Some(Condition(parser.expression()?)) } else { None };
        let group_by = group_by(&mut parser)?;
        parser.take_symbol(";");
        parser.end()?;
        let selection = select(columns, &group_by, &parser)?;
        if source == Source::Jobs && selection != Selection::Whole {
            return Err(invalid("FROM devices.jobs allows SELECT * only"));
        }
        if source != Source::Devices && !group_by.is_empty() {
            return Err(invalid("GROUP BY is for FROM devices only"));
        }
        Ok(Query { top, source, selection, condition, group_by })
    }
}

impl std::str::FromStr for Condition {
    type Err = HubRefusal;

    /// What would follow `WHERE` in a query over devices.
    fn from_str(text: &str) -> Result<Self, HubRefusal> {
        let mut parser = Parser::new(text)?;
        parser.prefixes.push(vec!["devices".to_owned()]);
        let condition = Condition(parser.expression()?);
        parser.end()?;
        Ok(condition)
    }
}

/// Columns as they are written, before the source is known.
fn columns(parser: &mut Parser) -> Result<Vec<Column<Projection>>, HubRefusal> {
    let mut columns = Vec::new();
    let mut nameless = 0;
    loop {
        let path = parser.path()?;
        let what =
            if parser.take_symbol("(") { aggregate(parser, &path)? } else { Projection::Key(path.clone()) };
        let name = match &what {
            _ if parser.take_word("AS") => parser.word()?,
            Projection::Key(path) => path.last().cloned().unwrap_or_default(),
            _ => {
                nameless += 1;
                format!("${nameless}")
            }
        };
        columns.push(Column { what, name });
        if !parser.take_symbol(",") {
            return Ok(columns);
        }
    }
}

/// The rest of a function over a group, of which the name and the parenthesis
/// are read already.
fn aggregate(parser: &mut Parser, name: &Path) -> Result<Projection, HubRefusal> {
    let name = name.join(".");
    if name.eq_ignore_ascii_case("COUNT") {
        // `COUNT(*)` is how SQL writes it, and means the same.
        parser.take_symbol("*");
        parser.expect_symbol(")")?;
        return Ok(Projection::Count);
    }
    let known =
        [("SUM", Aggregate::Sum), ("AVG", Aggregate::Avg), ("MIN", Aggregate::Min), ("MAX", Aggregate::Max)];
    let known = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
    let (_, aggregate) = known.ok_or_else(|| invalid(format!("{name}() is no function of SELECT")))?;
    let path = parser.path()?;
    parser.expect_symbol(")")?;
    Ok(Projection::Over(*aggregate, path))
}

/// What follows `FROM`; paths may begin with the names that it introduces.
fn source(parser: &mut Parser) -> Result<Source, HubRefusal> {
    let written = parser.path()?;
    let name = written.join(".").to_ascii_lowercase();
    let source = match name.as_str() {
        "devices" => Source::Devices,
        "devices.modules" => Source::Modules,
        "devices.jobs" => Source::Jobs,
        _ => {
            return Err(invalid(format!(
                "FROM is followed by devices, devices.modules or devices.jobs, not {name:?}"
            )));
        }
    };
    parser.source = Some(source);
    parser.prefixes.push(written);
    // Microsoft's own queries over modules say `devices.deviceId`.
    parser.prefixes.push(vec!["devices".to_owned()]);
    if parser.take_word("AS") || parser.peek_name(&["WHERE", "GROUP"]) {
        let alias = parser.word()?;
        parser.prefixes.push(vec![alias]);
    }
    Ok(source)
}

/// The paths that follow `GROUP BY`, if it is there.
fn group_by(parser: &mut Parser) -> Result<Vec<Path>, HubRefusal> {
    let mut paths = Vec::new();
    if !parser.take_word("GROUP") {
        return Ok(paths);
    }
    parser.expect_word("BY")?;
    loop {
        let path = parser.path()?;
        paths.push(parser.within_row(path)?);
        if !parser.take_symbol(",") {
            return Ok(paths);
        }
    }
}

/// What rows consist of, now that the source and the groups are known; without
/// `columns`, of whole documents.
fn select(
    columns: Option<Vec<Column<Projection>>>,
    group_by: &[Path],
    parser: &Parser,
) -> Result<Selection, HubRefusal> {
    let Some(mut columns) = columns else {
        return if group_by.is_empty() {
            Ok(Selection::Whole)
        } else {
            Err(invalid("GROUP BY needs columns instead of *"))
        };
    };
    for column in &mut columns {
        if let Projection::Key(path) | Projection::Over(_, path) = &mut column.what {
            *path = parser.within_row(std::mem::take(path))?;
        }
    }
    let is_key = |column: &Column<Projection>| matches!(column.what, Projection::Key(_));
    if group_by.is_empty() && columns.iter().all(is_key) {
        let plain = columns.into_iter().filter_map(|Column { what, name }| match what {
            Projection::Key(what) => Some(Column { what, name }),
            _ => None,
        });
        return Ok(Selection::Columns(plain.collect()));
    }
    for column in &columns {
        if let Projection::Key(path) = &column.what
            && !group_by.contains(path)
        {
            return Err(invalid(format!("{} is not among what GROUP BY names", path.join("."))));
        }
    }
    Ok(Selection::Aggregates(columns))
}

/// The number that follows `TOP`.
fn count(parser: &mut Parser) -> Result<usize, HubRefusal> {
    let parenthesis = parser.take_symbol("(");
    let count = parser.number().and_then(|number| usize::try_from(number.as_u64()?).ok());
    if parenthesis {
        parser.expect_symbol(")")?;
    }
    count.filter(|count| *count > 0).ok_or_else(|| invalid("TOP needs a number above 0"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ast::{Expression, Operator};
    use super::*;

    fn parse(text: &str) -> Result<Query, HubRefusal> {
        text.parse()
    }

    fn path(text: &str) -> Path {
        text.split('.').map(str::to_owned).collect()
    }

    fn binary(operator: Operator, left: Expression, right: Expression) -> Expression {
        Expression::Binary(operator, Box::new(left), Box::new(right))
    }

    #[test]
    fn or_binds_weakest_and_products_strongest() {
        let is = |name, value: i64| {
            binary(Operator::Equal, Expression::Path(path(name)), Expression::Literal(json!(value)))
        };
        let query = parse("select * from devices where tags.a = 1 or not tags.b = 2 and tags.c = 3").unwrap();
        let right = binary(Operator::And, Expression::Not(Box::new(is("tags.b", 2))), is("tags.c", 3));
        assert_eq!(query.condition, Some(Condition(binary(Operator::Or, is("tags.a", 1), right))));

        let number = |number: i64| Expression::Literal(json!(number));
        let product = binary(Operator::Multiply, number(2), number(-3));
        let sum = binary(Operator::Subtract, binary(Operator::Add, number(1), product), number(4));
        let expected = binary(Operator::Less, Expression::Path(path("version")), sum);
        assert_eq!("devices.version < 1+2*-3-4".parse::<Condition>().unwrap(), Condition(expected));
    }

    #[test]
    fn columns_aliases_and_top() {
        let query =
            parse("SELECT TOP 5 d.deviceId, properties.reported.$version AS v FROM devices AS d;").unwrap();
        assert_eq!(query.top, Some(5));
        let column = |text, name: &str| Column { what: path(text), name: name.into() };
        let expected = vec![column("deviceId", "deviceId"), column("properties.reported.$version", "v")];
        assert_eq!(query.selection, Selection::Columns(expected));
    }

    #[test]
    fn sources_and_their_names_in_paths() {
        for (text, source) in [
            ("SELECT * FROM devices WHERE devices.status = 'x'", Source::Devices),
            ("select * from Devices.Modules m where m.status = 'x'", Source::Modules),
            ("SELECT * FROM devices.jobs WHERE devices.jobs.status = 'x'", Source::Jobs),
            ("select * from devices.modules where devices.status = 'x'", Source::Modules),
            ("SELECT * FROM devices WHERE Devices.status = 'x'", Source::Devices),
        ] {
            let query = parse(text).unwrap();
            let value = Expression::Literal(json!("x"));
            let expected = binary(Operator::Equal, Expression::Path(path("status")), value);
            assert_eq!((query.source, query.condition), (source, Some(Condition(expected))));
        }
    }

    #[test]
    fn a_path_that_no_twin_has_is_refused_and_no_empty_answer() {
        for (text, why) in [
            ("SELECT * FROM devices WHERE site = 'a'", "a twin has no \"site\""),
            ("SELECT * FROM devices.modules WHERE modules.moduleId = 'a'", "a twin has no \"modules\""),
            ("SELECT * FROM devices.modules m WHERE n.moduleId = 'a'", "a twin has no \"n\""),
            ("SELECT * FROM devices.modules WHERE devices.tags.a = 1", "not devices.tags"),
            ("SELECT devices.properties FROM devices.modules", "not devices.properties"),
            ("SELECT * FROM devices WHERE moduleId = 'a'", "devices have no moduleId"),
            ("SELECT moduleId FROM devices", "devices have no moduleId"),
            (
                "SELECT * FROM devices.modules WHERE is_defined(properties.a)",
                "properties has desired and reported",
            ),
            ("SELECT COUNT() AS n, site FROM devices GROUP BY site", "a twin has no \"site\""),
        ] {
            let refusal = parse(text).unwrap_err().to_string();
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
        for text in [
            "SELECT moduleId, devices.deviceId FROM devices.modules WHERE moduleId = 'a' AND devices.deviceId = 'b'",
            "SELECT * FROM devices.modules WHERE devices.modules.moduleId IN ['a'] AND DeviceId != 'b'",
            "SELECT m.moduleId FROM devices.modules AS m WHERE m.tags.a = 1 AND m.properties.reported.b.c = 2",
            "SELECT COUNT() AS n FROM devices.modules WHERE connectionState = 'Connected'",
            "SELECT * FROM devices.modules WHERE devices.modules.tags.a = 1",
            "SELECT * FROM devices WHERE devices.tags.a = 1",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        assert!("moduleId = 'a'".parse::<Condition>().is_ok(), "a condition may be about modules");
        assert!("site = 'a'".parse::<Condition>().is_err());
    }

    #[test]
    fn groups() {
        let query = parse(
            "SELECT d.tags.a AS a, COUNT() AS n, AVG(d.tags.b), max(tags.b) FROM devices d GROUP BY d.tags.a",
        )
        .unwrap();
        let column = |what, name: &str| Column { what, name: name.into() };
        let expected = vec![
            column(Projection::Key(path("tags.a")), "a"),
            column(Projection::Count, "n"),
            column(Projection::Over(Aggregate::Avg, path("tags.b")), "$1"),
            column(Projection::Over(Aggregate::Max, path("tags.b")), "$2"),
        ];
        assert_eq!(query.selection, Selection::Aggregates(expected));
        assert_eq!(query.group_by, [path("tags.a")]);
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = format!("SELECT * FROM devices WHERE {}version=1{}", "(".repeat(100), ")".repeat(100));
        let deep_list = format!("SELECT * FROM devices WHERE version IN {}", "[".repeat(100));
        let long = format!("SELECT * FROM devices WHERE etag = '{}'", "x".repeat(8192));
        for text in [
            "",
            "SELECT",
            "SELECT * FROM",
            "SELECT FROM devices",
            "SELECT TOP 0 * FROM devices",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE version =",
            "SELECT * FROM devices WHERE version = 1 etag",
            "SELECT * FROM devices WHERE etag IN ['x' 'y']",
            "SELECT * FROM devices WHERE (version = 1",
            "SELECT * FROM devices WHERE version = -etag",
            "SELECT * FROM devices WHERE IS_DEFINED('a')",
            "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'a')",
            "SELECT * FROM devices GROUP BY tags.a",
            "SELECT tags.b, COUNT() AS n FROM devices GROUP BY tags.a",
            "SELECT tags.b, COUNT() AS n FROM devices",
            "SELECT MEDIAN(tags.b) FROM devices",
            "SELECT * FROM twins",
            "SELECT jobId FROM devices.jobs",
            "SELECT COUNT() AS n, moduleId FROM devices.modules GROUP BY moduleId",
            "DELETE FROM devices",
            &deep,
            &deep_list,
            &long,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!("version = 1; DROP".parse::<Condition>().is_err());
    }
}
