//! How the log shows text of strangers.

use std::fmt;

use iotdm_proto::text::line;
use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;

/// How a record of the log shows a field; its message is a field as well.
pub fn log_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = line(&format!("{value:?}"));
    if field.name() == "message" { writer.write_str(&value) } else { write!(writer, "{field}={value}") }
}
