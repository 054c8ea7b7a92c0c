//! The keys of the configuration, as its types have them, for tests that hold
//! lists made by hand against them.

use serde::de::value::Error;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::config::{
    Config, HealthConfig, HubConfig, LogConfig, MetricsConfig, PreflightConfig, ProvisioningConfig,
    RebootConfig,
};

/// Every key, as `section.key`, in alphabetical order.
pub(super) fn all() -> Vec<String> {
    let sections = [
        ("hub", fields_of::<HubConfig>()),
        ("provisioning", fields_of::<ProvisioningConfig>()),
        ("reboot", fields_of::<RebootConfig>()),
        ("health", fields_of::<HealthConfig>()),
        ("preflight", fields_of::<PreflightConfig>()),
        ("metrics", fields_of::<MetricsConfig>()),
        ("log", fields_of::<LogConfig>()),
    ];
    assert_eq!(sections.map(|(name, _)| name), fields_of::<Config>(), "each section has its line here");
    let keys =
        sections.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")));
    let mut keys: Vec<String> = keys.collect();
    keys.sort();
    keys
}

/// The keys that the derived `Deserialize` of a struct asks for.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &[&str] = &[];
    assert!(T::deserialize(Fields(&mut fields)).is_err(), "a struct is asked for its keys, not made");
    fields
}

/// Notes what it is asked for, and has nothing to give.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("the keys are known now"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
