//! The device's model: its interface in the words of Azure's digital twins (DTDL), by
//! which tools such as IoT Explorer draw it.
//!
//! The wish, `properties.desired.reboot`, is outside of the model: `docs/azure.md` says
//! why.

/// The model that the daemon follows.
pub const MODEL_ID: &str = "dtmi:iotdm:gateway;1";

/// The text of [`MODEL_ID`] and of the models that it refers to: a JSON array of
/// interfaces in DTDL version 3.
pub const MODEL: &str = include_str!("../../packaging/dtmi/iotdm/gateway-1.expanded.json");

#[cfg(test)]
mod tests {
    //! Holds the model against the types, both ways: each key of a payload, a reply
    //! or a report is there with its type, each word with its spelling, and nothing
    //! else is.

    use std::collections::BTreeSet;

    use serde::Serialize;
    use serde_json::Value;

    use super::*;
    use crate::health::HealthState;
    use crate::method::{ErrorCode, MethodName};
    use crate::reply::Granted;
    use crate::report::{BootCause, BootDetail, Clock, RebootErrorCode, RebootStatus, RequestedBy};
    use crate::request::{OnInhibitor, OnPreflight};
    use crate::{Time, full};

    /// The component's model.
    const DEVICE_INFORMATION: &str = "dtmi:azure:DeviceManagement:DeviceInformation;1";

    struct Model {
        gateway: Value,
        information: Value,
    }

    fn model() -> Model {
        let interfaces: Vec<Value> = serde_json::from_str(MODEL).unwrap();
        let [gateway, information] = <[Value; 2]>::try_from(interfaces).unwrap();
        assert_eq!(
            (gateway["@id"].as_str(), information["@id"].as_str()),
            (Some(MODEL_ID), Some(DEVICE_INFORMATION))
        );
        Model { gateway, information }
    }

    fn named<'a>(list: &'a Value, kind: &str, name: &str) -> &'a Value {
        let is = |item: &&Value| item["name"] == name && (kind.is_empty() || item["@type"] == kind);
        list.as_array().unwrap().iter().find(is).unwrap_or_else(|| panic!("the model has no {kind} {name}"))
    }

    fn names(list: &Value, kind: &str) -> BTreeSet<String> {
        let of_kind = list.as_array().unwrap().iter().filter(|item| kind.is_empty() || item["@type"] == kind);
        of_kind.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    impl Model {
        /// The schema itself where `schema` is the name of one.
        fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
            match schema.as_str() {
                Some(id) if id.starts_with("dtmi:") => {
                    let schemas = self.gateway["schemas"].as_array().unwrap();
                    schemas.iter().find(|known| known["@id"] == id).unwrap_or_else(|| panic!("no {id}"))
                }
                _ => schema,
            }
        }

        /// Holds `schema` against a value with every key set. `words` are those
        /// of the enumerations, by the paths of the keys that they are the values of.
        fn holds(&self, path: &str, schema: &Value, value: &Value, used: &mut BTreeSet<String>) {
            if let Some(id) = schema.as_str().filter(|id| id.starts_with("dtmi:")) {
                used.insert(id.to_owned());
            }
            let schema = self.resolved(schema);
            let kind = schema["@type"].as_str().or(schema.as_str()).unwrap();
            match value {
                Value::Object(object) => {
                    assert_eq!(kind, "Object", "{path}");
                    assert_eq!(names(&schema["fields"], ""), keys(value), "{path}");
                    for (key, inner) in object {
                        let field = named(&schema["fields"], "", key);
                        self.holds(&format!("{path}.{key}"), &field["schema"], inner, used);
                    }
                }
                Value::Array(items) => {
                    assert_eq!(kind, "Array", "{path}");
                    self.holds(path, &schema["elementSchema"], &items[0], used);
                }
                Value::String(_) if kind == "Enum" || words(path).is_some() => {
                    assert_eq!((kind, schema["valueSchema"].as_str()), ("Enum", Some("string")), "{path}");
                    let told = schema["enumValues"].as_array().unwrap().iter();
                    let told: BTreeSet<&str> = told
                        .map(|word| {
                            assert_eq!(word["name"], word["enumValue"], "{path}");
                            word["enumValue"].as_str().unwrap()
                        })
                        .collect();
                    let known = words(path).unwrap_or_else(|| panic!("{path} has no fixed words"));
                    assert_eq!(told, known.into_iter().collect(), "{path}");
                }
                Value::String(text) => {
                    let expected = if text.parse::<Time>().is_ok() { "dateTime" } else { "string" };
                    assert_eq!(kind, expected, "{path}");
                }
                // The component's model, which is Azure's, knows no other numbers.
                Value::Number(_) if path.starts_with("deviceInformation.") => assert_eq!(kind, "double"),
                Value::Number(number) if number.is_u64() => {
                    assert!(["integer", "long"].contains(&kind), "{path}: {kind}");
                }
                Value::Number(_) => assert_eq!(kind, "double", "{path}"),
                Value::Bool(_) => assert_eq!(kind, "boolean", "{path}"),
                Value::Null => panic!("{path}: a full value has no null"),
            }
        }
    }

    /// The fixed words that may stand at a path, of the report or of a reply.
    fn words(path: &str) -> Option<Vec<&'static str>> {
        macro_rules! of {
            ($vocabulary:ty) => {
                <$vocabulary>::ALL.iter().map(|word| word.as_str()).collect()
            };
        }
        let (parent, key) = path.rsplit_once('.')?;
        let parent = parent.rsplit('.').next()?;
        Some(match (parent, key) {
            ("reboot", "status") => of!(RebootStatus),
            ("rebootDevice()" | "cancelReboot()", "status") => of!(Granted),
            ("reboot", "requestedBy") => of!(RequestedBy),
            ("error", "code") if path.contains("reboot.error") => of!(RebootErrorCode),
            ("error", "code") => of!(ErrorCode),
            ("boot" | "boots", "cause") => of!(BootCause),
            ("boot" | "boots", "detail") => of!(BootDetail),
            ("boot", "clock") => of!(Clock),
            ("health", "state") => of!(HealthState),
            ("rebootDevice", "onInhibitor") => of!(OnInhibitor),
            ("rebootDevice", "onPreflight") => of!(OnPreflight),
            _ => return None,
        })
    }

    fn json(value: &impl Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn the_model_is_the_interface() {
        let model = model();
        let contents = &model.gateway["contents"];
        let mut used = BTreeSet::new();

        // What is reported: properties that only the device writes, and one component.
        let mut report = json(&full::report());
        let information = report.as_object_mut().unwrap().remove("deviceInformation").unwrap();
        assert_eq!(names(contents, "Property"), keys(&report));
        for (key, value) in report.as_object().unwrap() {
            let property = named(contents, "Property", key);
            assert!(property.get("writable").is_none_or(|writable| writable == false), "{key}");
            model.holds(key, &property["schema"], value, &mut used);
        }
        assert_eq!(names(contents, "Component"), BTreeSet::from(["deviceInformation".to_owned()]));
        assert_eq!(named(contents, "Component", "deviceInformation")["schema"], DEVICE_INFORMATION);
        let contents_of_component = &model.information["contents"];
        let mut told = names(contents_of_component, "Property");
        told.insert("__t".to_owned());
        assert_eq!(told, keys(&information));
        assert_eq!(information["__t"], "c");
        for (key, value) in information.as_object().unwrap().iter().filter(|(key, _)| *key != "__t") {
            let property = named(contents_of_component, "Property", key);
            model.holds(&format!("deviceInformation.{key}"), &property["schema"], value, &mut used);
        }

        // The commands: what is asked, and what is answered, a refusal included.
        let methods: BTreeSet<String> = MethodName::ALL.iter().map(MethodName::to_string).collect();
        assert_eq!(names(contents, "Command"), methods);
        for method in MethodName::ALL {
            let command = named(contents, "Command", method.as_str());
            let (request, mut reply) = match method {
                MethodName::RebootDevice => {
                    (Some(json(&full::reboot_request())), json(&full::reboot_reply()))
                }
                MethodName::CancelReboot => {
                    (Some(json(&full::cancel_request())), json(&full::cancel_reply()))
                }
                MethodName::GetRebootStatus => (None, json(&full::status_reply())),
                MethodName::GetBootHistory => (None, json(&full::boot_history_reply())),
            };
            assert_eq!(command.get("request").is_some(), request.is_some(), "{method}");
            if let Some(request) = request {
                model.holds(method.as_str(), &command["request"]["schema"], &request, &mut used);
            }
            let refusal = json(&full::refusal_reply())["error"].take();
            reply.as_object_mut().unwrap().insert("error".to_owned(), refusal);
            model.holds(&format!("{method}()"), &command["response"]["schema"], &reply, &mut used);
        }
        assert_eq!(names(contents, "").len(), contents.as_array().unwrap().len(), "nothing else is in it");

        // And no schema is left that nothing uses.
        let schemas = model.gateway["schemas"].as_array().unwrap().iter();
        let schemas: BTreeSet<String> =
            schemas.map(|schema| schema["@id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(schemas, used);
    }

    #[test]
    fn the_wish_is_outside_of_the_model() {
        let model = model();
        for contents in [&model.gateway["contents"], &model.information["contents"]] {
            assert!(
                contents.as_array().unwrap().iter().all(|item| item.get("writable") != Some(&true.into()))
            );
        }
    }
}
