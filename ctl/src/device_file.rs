//! Files that name devices: a list with an id on each line, CSV below a line of
//! column names, or JSON. What this program prints itself (`device list -o csv`,
//! `status -o csv`, `query -o json`, `reboot -o jsonl`) is taken as well.

use std::path::Path;

use iotdm_proto::DeviceId;
use serde_json::{Map, Value};

use crate::error::Usage;
use crate::{text_file, values};

/// The columns of CSV that have the ids: by the hub's own word, and in our tables.
const COLUMNS: [&str; 2] = ["deviceId", "DEVICE"];

/// The keys of JSON that have the ids: by the hub's own word, and in our JSON.
const KEYS: [&str; 2] = ["deviceId", "device"];

/// What somebody may have meant as the name of that column, in lower case and
/// without `_`, `-` and blanks.
const MEANT_AS_COLUMN: [&str; 6] = ["device", "deviceid", "devices", "id", "name", "devicename"];

/// A device that a file names.
#[derive(Debug, PartialEq)]
pub struct Named {
    /// Where it stands, such as `line 3`.
    pub place: String,
    /// The device.
    pub device: DeviceId,
    /// Whether it is a line of a list, which has nothing but ids.
    pub is_bare: bool,
    /// What else the file says of it: the other columns of CSV that are not empty,
    /// or the other keys of an object.
    pub more: Map<String, Value>,
}

/// The devices that the file at `path`, or stdin for `-`, names, in the file's
/// order. `option` is the option that names the file. A file that names no device
/// is an error.
pub fn read(option: &str, path: &Path) -> Result<Vec<Named>, Usage> {
    let named = text_file::read(path).and_then(|text| parse(&text));
    let named = named.and_then(|named| match named.is_empty() {
        true => Err("it names no device".to_owned()),
        false => Ok(named),
    });
    named.map_err(|what| Usage(format!("{option} {}: {what}", path.display())))
}

/// The ids of the devices that [`read`] gives.
pub fn devices(option: &str, path: &Path) -> Result<Vec<DeviceId>, Usage> {
    Ok(read(option, path)?.into_iter().map(|named| named.device).collect())
}

/// Reads a file's text, in whichever form it is.
fn parse(text: &str) -> Result<Vec<Named>, String> {
    match text.trim_start().chars().next() {
        // No device id begins with these.
        Some('[') => array(text),
        Some('{') => objects(text),
        // Lines end in as many ways as there are systems.
        _ => lines(&text.replace("\r\n", "\n").replace('\r', "\n")),
    }
}

/// A JSON array of ids or of objects.
fn array(text: &str) -> Result<Vec<Named>, String> {
    let items: Vec<Value> = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    (1..).zip(items).map(|(n, item)| Named::of_json(format!("item {n}"), item)).collect()
}

/// JSON objects, one on each line or however they are laid out.
fn objects(text: &str) -> Result<Vec<Named>, String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut named = Vec::new();
    loop {
        let rest = text.get(values.byte_offset()..).unwrap_or_default();
        let begin = text.len() - rest.trim_start().len();
        let line = text.get(..begin).map_or(0, |before| before.matches('\n').count()) + 1;
        match values.next() {
            None => return Ok(named),
            Some(Ok(value)) => named.push(Named::of_json(format!("line {line}"), value)?),
            Some(Err(error)) => {
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                return Err(format!("line {}: {what}", error.line().max(line)));
            }
        }
    }
}

/// A list with an id on each line, or CSV if the first line names columns. Empty
/// lines do not count, nor do those of a list that begin with `#`.
fn lines(text: &str) -> Result<Vec<Named>, String> {
    let counts = |line: &str| !line.is_empty() && !line.starts_with('#');
    let mut lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| counts(line));
    let Some((number, first)) = lines.next() else { return Ok(Vec::new()) };
    let columns = columns(first);
    if columns.iter().any(|column| COLUMNS.contains(&column.as_str())) {
        return csv(text, number);
    }
    let plain = |name: &String| name.to_lowercase().replace(['_', '-', ' '], "");
    if let Some(name) = columns.iter().find(|name| MEANT_AS_COLUMN.contains(&plain(name).as_str())) {
        return Err(format!(
            "line {number} seems to name columns, of which the one with the ids is called deviceId, not {name}"
        ));
    }
    let item = |(number, line): (u32, &str)| match text_file::in_quotes(line) {
        Some(bare) => Err(format!("line {number}: quotes stand around {bare}: leave them out")),
        None => {
            let named = Named::of_id(format!("line {number}"), line, Map::new())?;
            Ok(Named { is_bare: true, ..named })
        }
    };
    std::iter::once((number, first)).chain(lines).map(item).collect()
}

/// The cells of the line that may name columns.
fn columns(line: &str) -> Vec<String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(line.as_bytes());
    let first = reader.records().next().and_then(Result::ok);
    first.iter().flatten().map(str::to_owned).collect()
}

/// CSV, of which the line `header` names the columns. An empty cell is an absent
/// key.
fn csv(text: &str, header: u32) -> Result<Vec<Named>, String> {
    let before = usize::try_from(header - 1).unwrap_or_default();
    let text: String = text.split_inclusive('\n').skip(before).collect();
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let columns = reader.headers().map_err(|error| error.to_string())?.clone();
    let mut named = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line) + u64::from(header) - 1;
        if record.iter().all(str::is_empty) {
            continue;
        }
        if record.len() != columns.len() {
            return Err(format!("line {line}: {} cells below {} columns", record.len(), columns.len()));
        }
        let (mut id, mut more) = ("", Map::new());
        for (column, cell) in columns.iter().zip(&record).filter(|(_, cell)| !cell.is_empty()) {
            if COLUMNS.contains(&column) {
                id = as_written(cell);
            } else {
                more.insert(column.to_owned(), cell.into());
            }
        }
        named.push(Named::of_id(format!("line {line}"), id, more)?);
    }
    Ok(named)
}

/// A cell without the quote that this program writes before what a spreadsheet
/// would take for a formula.
fn as_written(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(bare) if bare.starts_with(['=', '+', '-', '@']) => bare,
        _ => cell,
    }
}

impl Named {
    fn of_json(place: String, value: Value) -> Result<Self, String> {
        match value {
            Value::String(id) => Named::of_id(place, &id, Map::new()),
            Value::Object(mut more) => match KEYS.iter().find_map(|key| more.shift_remove(*key)) {
                Some(Value::String(id)) => Named::of_id(place, &id, more),
                _ => Err(format!("{place}: the object has no deviceId")),
            },
            _ => Err(format!("{place}: expected a device id or an object with deviceId")),
        }
    }

    fn of_id(place: String, id: &str, more: Map<String, Value>) -> Result<Self, String> {
        match values::device_id(id) {
            Ok(device) => Ok(Named { place, device, is_bare: false, more }),
            Err(error) => Err(format!("{place}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// The ids that a text names, or its mistake.
    fn ids(text: &str) -> Result<Vec<String>, String> {
        Ok(parse(text)?.iter().map(|named| named.device.to_string()).collect())
    }

    #[test]
    fn each_form_names_the_same_devices() {
        for text in [
            "gw1\ngw,2\n",
            "gw1\r\n\r\n  gw,2  ",
            "# the north\n\ngw1\n \ngw,2\n",
            "deviceId\ngw1\n\"gw,2\"\n",
            "\n# of the north\ndeviceId,tags.site\r\ngw1,north\r\n,\r\n\"gw,2\" ,\r\n",
            "DEVICE,CONNECTION\ngw1,Connected\n\"gw,2\",-\n",
            "status,\"deviceId\"\nenabled,gw1\nenabled,\"gw,2\"\n",
            "[\"gw1\",\"gw,2\"]",
            "[{\"deviceId\":\"gw1\"},{\"deviceId\":\"gw,2\",\"status\":\"enabled\"}]",
            "  [\n{\"device\":\"gw1\"},\n\"gw,2\"\n]\n",
            "{\"deviceId\":\"gw1\"}\n\n{\"deviceId\":\"gw,2\"}",
            "{\"device\":\"gw1\",\"outcome\":\"completed\"} {\n \"device\":\"gw,2\"\n}\n",
        ] {
            assert_eq!(ids(text), Ok(vec!["gw1".to_owned(), "gw,2".to_owned()]), "{text:?}");
        }
        assert_eq!(
            ids("DEVICE\n'-gw\n'=x\n'a'\n").unwrap(),
            ["-gw", "=x", "'a'"],
            "as our own CSV writes them"
        );
        assert_eq!(ids("deviceId\n#1\n").unwrap(), ["#1"], "in CSV no line is a comment");
        assert_eq!(ids("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_else_is_said_of_a_device() {
        let csv = parse("\ndeviceId,auth,tags.site\ngw1,,north\n").unwrap();
        assert_eq!(csv[0].place, "line 3");
        assert_eq!(json!(csv[0].more), json!({"tags.site": "north"}));
        let json = parse("{\"deviceId\":\"gw1\",\n\"tags\":{}}\n\n{\"deviceId\":\"gw2\"}").unwrap();
        assert_eq!((json[0].place.as_str(), json[1].place.as_str()), ("line 1", "line 4"));
        assert_eq!(json!(json[0].more), json!({"tags": {}}));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("gw1\ngw 2\n", "line 2: \"gw 2\" is not a device id"),
            ("\"gw1\"\n", "line 1: quotes stand around gw1: leave them out"),
            ("gw1\n“gw2”\n", "line 2: quotes stand around gw2"),
            (
                "device_id\ngw1\n",
                "line 1 seems to name columns, of which the one with the ids is called deviceId",
            ),
            ("Name,Site\ngw1,north\n", "line 1 seems to name columns"),
            ("deviceId,auth\ngw1,sas\ngw2\n", "line 3: 1 cells below 2 columns"),
            ("\r\ndeviceId,auth\r\ngw1,\r\n,\r\ngw 2,\r\n", "line 5: \"gw 2\" is not a device id"),
            ("deviceId,auth\n,sas\n", "line 2: \"\" is not a device id"),
            ("{\"deviceId\":\"gw1\"}\n{\"deviceId\":}", "line 2: expected value"),
            ("[{\"deviceId\":\"gw1\"},{\"id\":\"gw2\"}]", "item 2: the object has no deviceId"),
            ("[\"gw1\", 2]", "item 2: expected a device id"),
            ("[\"gw1\"", "not JSON"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        for nothing in ["", "\n# nobody\n", "[]", "deviceId\n"] {
            fs::write(&path, nothing).unwrap();
            let error = read("--from", &path).unwrap_err().to_string();
            assert!(error.ends_with("list: it names no device"), "{error}");
        }
        let gone = read("--from", &folder.path().join("gone")).unwrap_err().to_string();
        assert!(gone.contains("No such file"), "{gone}");
    }
}
