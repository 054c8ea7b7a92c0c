//! The fields of what services send. The service reads their names in any case,
//! as Microsoft's own samples write them (`Query`, `Status`); the keys of tags and
//! properties are another matter, and stay as they are.

use serde_json::{Map, Value};

/// The value of the field `name`, in whatever case it is written.
pub fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let any_case = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    object.get(name).or_else(any_case)
}

/// The value of the field `name` of a value that may be an object.
pub fn field_of<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    field(value.as_object()?, name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_case_will_do_and_the_right_one_comes_first() {
        let body = json!({"Query": 1, "STATUS": 2, "status": 3});
        assert_eq!(field_of(&body, "query"), Some(&json!(1)));
        assert_eq!(field_of(&body, "status"), Some(&json!(3)));
        assert_eq!(field_of(&body, "other"), None);
        assert_eq!(field_of(&json!([]), "query"), None);
    }
}
