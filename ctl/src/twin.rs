//! A device's twin as the hub gives it, and the patches that ask for a reboot.

use iotdm_proto::Wish;
use iotdm_proto::report::RebootStatus;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::reported::Reported;

/// A device twin: the hub's answer to reading one, or a row of a query for
/// whole twins. Everything in it is optional, and what is not asked for here is
/// kept for printing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Twin(Value);

impl Twin {
    /// What the device reports.
    pub fn reported(&self) -> Reported {
        self.0.pointer("/properties/reported").map(Reported::from).unwrap_or_default()
    }

    /// The twin as it came.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The id of the reboot that is wished for in the desired properties.
    pub fn wish_id(&self) -> Option<&str> {
        self.0.pointer("/properties/desired/reboot/id")?.as_str()
    }

    /// The wish for a reboot in the desired properties, unless its outcome is known.
    /// A device tells the outcome of its newest request; a wish that it took up last
    /// (`agent.lastWish`) and does not tell of any more is over as well.
    pub fn open_wish(&self) -> Option<&Value> {
        let wish = self.0.pointer("/properties/desired/reboot")?;
        let id = wish.get("id")?.as_str()?;
        let reported = self.reported();
        let is_over = match reported.request_id() {
            Some(newest) if newest == id => reported.known_status().is_some_and(RebootStatus::is_final),
            _ => reported.last_wish() == Some(id),
        };
        (!is_over).then_some(wish)
    }

    /// The desired properties as the hub shows them, with its metadata.
    pub fn desired(&self) -> Option<&Value> {
        self.0.pointer("/properties/desired")
    }

    /// The version of the desired properties.
    pub fn desired_version(&self) -> Option<u64> {
        self.desired()?.get("$version")?.as_u64()
    }

    /// The etag, which changes with each change of the twin.
    pub fn etag(&self) -> Option<&str> {
        self.0.get("etag")?.as_str()
    }

    /// Another property of the whole twin, such as `deviceId` or `tags`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}

impl From<Value> for Twin {
    fn from(twin: Value) -> Self {
        Twin(twin)
    }
}

/// The twin patch that leaves a wish for the device. Nothing of an earlier wish
/// is left.
pub fn with_wish(wish: &Wish) -> Value {
    json!({"properties": {"desired": {"reboot": wish.patch()}}})
}

/// The twin patch that takes a wish out of the twin.
pub fn without_wish() -> Value {
    json!({"properties": {"desired": {"reboot": null}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_that_was_left_is_found() {
        let wish: Wish = serde_json::from_value(json!({"id": "w"})).unwrap();
        assert_eq!(Twin::from(with_wish(&wish)).wish_id(), Some("w"));
        assert_eq!(Twin::from(without_wish()).wish_id(), None);
        assert_eq!(Twin::default().reported(), Reported::default());
    }
}
