//! What a path may begin with: the parts of a twin. A query that names another part is
//! refused, since an empty answer would look like one that was understood. (Whether the
//! real hub refuses it is unverified.)

use super::ast::{Path, Source};

/// The parts of every twin in a query.
///
/// Source: "Understand and use device twins", and the twins of the recorded tests of
/// Microsoft's .NET SDK.
const OF_TWINS: [&str; 20] = [
    "deviceId",
    "etag",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "connectionStateUpdatedTime",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "version",
    "tags",
    "properties",
    "capabilities",
    "configurations",
    "deviceScope",
    "parentScopes",
];

/// What only the twins of modules have.
const OF_MODULES: [&str; 1] = ["moduleId"];

/// What a module's twin and its device's both have, with keys of users.
const OF_EACH: [&str; 2] = ["tags", "properties"];

/// The parts of `properties`.
const OF_PROPERTIES: [&str; 2] = ["desired", "reported"];

/// Why a path that begins with the name of another source means nothing here: the tags
/// and properties of a device are others than those of its modules, and whoever names
/// `devices.tags` among modules would get an empty answer, or a wrong one.
pub(super) fn ambiguous(prefix: &Path, path: &Path, source: Option<Source>) -> Option<String> {
    let of_devices = matches!(prefix.as_slice(), [only] if only.eq_ignore_ascii_case("devices"));
    let first = path.first().filter(|_| of_devices && source == Some(Source::Modules))?;
    OF_EACH.iter().any(|known| known.eq_ignore_ascii_case(first)).then(|| {
        format!(
            "FROM devices.modules finds the twins of modules, not devices.{first}; those of the module are {first}"
        )
    })
}

/// Why a path, without the name of the source, means nothing in a row of `source`; `None`
/// where it does. Without a source, it is a condition over devices or modules.
pub(super) fn misunderstood(path: &Path, source: Option<Source>) -> Option<String> {
    let is_among = |known: &[&str], name: &str| known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let first = path.first()?;
    match source {
        Some(Source::Jobs) => return None,
        Some(Source::Devices) if is_among(&OF_MODULES, first) => {
            return Some(format!("devices have no {first}, which is for FROM devices.modules"));
        }
        _ => {}
    }
    if !is_among(&OF_TWINS, first) && !is_among(&OF_MODULES, first) {
        return Some(format!("a twin has no {first:?}; the keys of users are in tags and properties"));
    }
    let second = path.get(1).filter(|_| first.eq_ignore_ascii_case("properties"))?;
    (!is_among(&OF_PROPERTIES, second))
        .then(|| format!("properties has desired and reported, not {second:?}"))
}
