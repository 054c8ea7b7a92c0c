//! From what is logged to bytes: an entry of the journal in its native protocol,
//! or a line for people.
//!
//! Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>, systemd.journal-fields(7).

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;

use iotdm_proto::text::harmless;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::lines::{Kind, Line, Lines};

const JOURNAL: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "iotdm-agentd";

/// How many characters of one text are logged: what a server says may be long,
/// and a datagram is not.
const MAX_TEXT: usize = 4096;

/// Hands what is logged to the thread that writes it.
pub(super) struct Logger(pub(super) Lines);

/// Where lines are written to: the journal if standard error is connected to it,
/// else standard error itself.
pub(super) fn start() -> io::Result<Lines> {
    match UnixDatagram::unbound().and_then(|socket| socket.connect(JOURNAL)) {
        Ok(()) if stderr_is_journal() => {
            let socket = UnixDatagram::unbound()?;
            // By its name each time, since a journal that was started anew
            // listens at another socket of that name.
            Lines::start(move |line| socket.send_to(&entry(line), JOURNAL).map(drop))
        }
        _ => Lines::start(|line| {
            let now = jiff::Timestamp::now();
            io::stderr().write_all(format!("{now:.6} {:>5} {}\n", line.level, line.message).as_bytes())
        }),
    }
}

impl<S: Subscriber> Layer<S> for Logger {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut texts = Texts::default();
        event.record(&mut texts);
        let metadata = event.metadata();
        let level = *metadata.level();
        let code = texts.fields.iter().find(|(name, _)| *name == "code").map(|(_, code)| code.clone());
        let place = metadata.file().zip(metadata.line());
        // Who asks for each exchange gets each.
        let limited = level <= Level::INFO;
        let kind = limited.then_some(Kind { place, code });
        self.0.send(kind, Line { level, message: texts.message, fields: texts.fields, place });
    }
}

/// The texts of an event, each made harmless: part of them is what an operator or
/// a server said.
#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        let text: String = harmless(value).chars().take(MAX_TEXT).collect();
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, text)),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// The line as the journal takes it.
fn entry(line: &Line) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut put = |name: &str, value: &str| {
        // With its length before it, a value can hold anything and be no field.
        entry.extend(name.to_ascii_uppercase().bytes());
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
        entry.extend(value.bytes());
        entry.push(b'\n');
    };
    put("PRIORITY", priority(line.level));
    put("SYSLOG_IDENTIFIER", IDENTIFIER);
    put("MESSAGE", &line.message);
    for (name, value) in &line.fields {
        put(name, value);
    }
    if let Some((file, number)) = line.place {
        put("CODE_FILE", file);
        put("CODE_LINE", &number.to_string());
    }
    entry
}

/// As syslog(3) numbers them; what the daemon does is a notice there, so that it
/// stands out from other programs' chatter.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    }
}

/// systemd says in `$JOURNAL_STREAM` which file is the journal's; an inherited
/// value must not be mistaken when standard error has been redirected since.
fn stderr_is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| journal == format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_byte_for_byte() {
        let line = Line {
            level: Level::WARN,
            message: "a\nb".to_owned(),
            fields: vec![("message_id", "39".to_owned())],
            place: Some(("f.rs", 7)),
        };
        let expected =
            b"PRIORITY\n\x01\0\0\0\0\0\0\x004\nSYSLOG_IDENTIFIER\n\x0c\0\0\0\0\0\0\0iotdm-agentd\n\
            MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nMESSAGE_ID\n\x02\0\0\0\0\0\0\x0039\n\
            CODE_FILE\n\x04\0\0\0\0\0\0\0f.rs\nCODE_LINE\n\x01\0\0\0\0\0\0\x007\n";
        assert_eq!(entry(&line), expected);
    }

    #[test]
    fn what_a_stranger_said_is_logged_as_one_harmless_line_of_bounded_length() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let (written, all) = std::sync::mpsc::channel();
        let lines = Lines::start(move |line| written.send(line.clone()).map_err(io::Error::other)).unwrap();
        let said = "x\u{1b}[2J\nMESSAGE=Accepted publickey for root\u{202e}";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Logger(lines.clone())), || {
            tracing::warn!(code = "c\n", status = 400, "refused: {said}");
            tracing::warn!("{}", "y".repeat(MAX_TEXT + 1));
        });
        lines.flush();
        let lines: Vec<Line> = all.try_iter().collect();
        let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(first.message, "refused: x\u{fffd}[2J\u{fffd}MESSAGE=Accepted publickey for root\u{fffd}");
        assert_eq!(first.fields, [("code", "c\u{fffd}".to_owned()), ("status", "400".to_owned())]);
        assert_eq!(second.message.len(), MAX_TEXT);
    }
}
