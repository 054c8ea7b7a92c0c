//! The connection to the hub: made, kept, made again.
//!
//! Nothing that was queued for one connection is sent on a later one: what to
//! say is derived from state after each connect. "Delivered" means that the hub
//! acknowledged it.

mod session;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use iotdm_proto::topic::HubTopic;
use iotdm_proto::{API_VERSION, Identity, Time, sas};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

pub use self::session::Link;
use self::session::{Session, SessionEnd, Token};
use crate::connection::dial::{Road, Stream};
use crate::connection::identity::{Login, Proof, Source};
use crate::connection::mqtt::{ConnectOptions, Mqtt};
use crate::connection::network::Watch;
use crate::connection::outage::{Class, Outage};
use crate::connection::pace::{Eagerness, Pace};
use crate::connection::provisioning::Provisioning;
use crate::connection::rivalry::Rivalry;
use crate::connection::tls::Tls;

/// What the connection is made with.
#[derive(Debug)]
pub struct Options {
    /// Who connects, and where.
    pub source: Source,
    /// Where to keep what the provisioning service answered.
    pub assignment_file: PathBuf,
    /// How servers are reached.
    pub road: Road,
    /// What the servers' certificates are checked against, and the device's own.
    pub tls: Tls,
    /// How often an idle connection is shown to be alive.
    pub keep_alive: Duration,
    /// How long a token is valid.
    pub sas_ttl: Duration,
    /// The digital twin model that the device says it follows.
    pub model_id: Option<String>,
}

/// What the hub says, or what becomes of the connection to it.
#[derive(Debug)]
pub enum HubEvent {
    /// The hub has taken the device; from here on calls may come.
    Connected {
        /// By which the rest of the daemon sends.
        link: Link,
        /// The hub's name.
        hub: String,
        /// Who the daemon is there.
        id: Identity,
    },
    /// The subscriptions are in force, so that from here on responses arrive.
    Subscribed,
    /// A message.
    Message(HubTopic, Vec<u8>),
    /// The hub acknowledged the reply to this call.
    Delivered {
        /// The call's id.
        rid: String,
    },
    /// The connection ended; the next attempt follows by itself.
    Disconnected {
        /// Why; nothing where the daemon itself ended the connection.
        outage: Option<Outage>,
        /// After how long the next attempt is made.
        retry_in: Duration,
    },
}

/// 1 January 2026, in seconds since the Unix epoch: this program did not exist yet,
/// so that a clock which says an earlier time is wrong. Where a package was built, the
/// time of its changelog is taken instead (`SOURCE_DATE_EPOCH`).
const NOT_BEFORE: u64 = 1_767_225_600;

/// Connects, and again whenever the connection ends, until nobody listens to
/// `events` any more. `hurry` changes when the clock was set; calls are
/// subscribed to from when `listen` says so. `beats` changes at each beat that wakes
/// the daemon anyway; its value is the period of the beats, if there are any.
pub async fn run(
    options: Options,
    hurry: watch::Receiver<()>,
    listen: watch::Receiver<bool>,
    beats: watch::Receiver<Option<Duration>>,
    events: mpsc::Sender<HubEvent>,
) {
    let mut heard = Heard { hurry, listen, beats };
    let mut connector = Connector::new(options);
    let (mut pace, mut eagerness) = (Pace::new(), Eagerness::default());
    let mut rivalry = Rivalry::default();
    let mut ready = None;
    loop {
        heard.hurry.mark_unchanged();
        // Listened to from before the attempt, so that a change during the attempt
        // counts as well; while connected, nobody listens.
        let mut network = Some(Watch::open());
        let (ended, lasted) = match connector.connect(ready.take()).await {
            Ok(connected) => {
                network = None;
                let since = Instant::now();
                let id = connected.login.id.clone();
                let ended = match connector.serve(connected, &mut heard, &events).await {
                    SessionEnd::Outage(outage) => {
                        SessionEnd::Outage(rivalry.judge(outage, since.elapsed(), &id))
                    }
                    other => other,
                };
                (ended, since.elapsed())
            }
            Err(outage) => (SessionEnd::Outage(outage), Duration::ZERO),
        };
        pace.lasted(lasted);
        let patience = pace.clone();
        let (outage, retry_in) = match ended {
            SessionEnd::Nobody => return,
            SessionEnd::Left => {
                let _ = events.send(HubEvent::Disconnected { outage: None, retry_in: Duration::ZERO }).await;
                return;
            }
            SessionEnd::Renewed(next) => {
                ready = Some(next);
                (None, Duration::ZERO)
            }
            SessionEnd::Outage(outage) => {
                let retry_in = pace.after(&outage, fastrand::f64());
                let outage = connector.by_the_cas(outage);
                (Some(by_the_clock(outage, SystemTime::now())), retry_in)
            }
        };
        let class = outage.as_ref().map(|outage| outage.class);
        if events.send(HubEvent::Disconnected { outage, retry_in }).await.is_err() {
            return;
        }
        let changed = async {
            // A network may be at fault that lets nobody through, or that answers in
            // the hub's place, as one does where a guest has to log in first.
            if !matches!(class, Some(Class::Unreachable | Class::Untrusted | Class::Closed)) {
                std::future::pending::<()>().await;
            }
            network.unwrap_or_else(Watch::open).changed().await;
            sleep_until(eagerness.due()).await;
        };
        tokio::select! {
            () = sleep(retry_in) => {}
            () = changed => {
                eagerness.spent();
                // The attempt that follows may come too early, and does not make the
                // wait after it longer.
                pace = patience;
            }
            _ = heard.hurry.changed() => pace.reset(),
            () = events.closed() => return,
        }
    }
}

/// What a connection hears from the rest of the daemon; see [`run`].
struct Heard {
    hurry: watch::Receiver<()>,
    listen: watch::Receiver<bool>,
    beats: watch::Receiver<Option<Duration>>,
}

/// A new stream to the hub, and the connection that it will replace. The old
/// connection is given up only when the hub has taken the new one.
type Ready = (Stream, Mqtt);

/// What a session begins with.
struct Connected {
    mqtt: Mqtt,
    login: Login,
    token: Option<Token>,
}

/// Makes the connections, each with a session on it.
struct Connector {
    who: Who,
    road: Road,
    tls: Tls,
    keep_alive: Duration,
    sas_ttl: Duration,
    model_id: Option<String>,
}

/// Whom to connect as.
enum Who {
    /// The connection string says.
    Fixed(Login),
    /// The provisioning service says.
    Provisioned(Provisioning),
}

impl Connector {
    fn new(options: Options) -> Self {
        let Options { source, assignment_file, road, tls, keep_alive, sas_ttl, model_id } = options;
        let who = match source {
            Source::Fixed(login) => Who::Fixed(login),
            Source::Provisioned(enrolment) => Who::Provisioned(Provisioning::new(enrolment, assignment_file)),
        };
        Connector { who, road, tls, keep_alive, sas_ttl, model_id }
    }

    async fn connect(&mut self, ready: Option<Ready>) -> Result<Connected, Outage> {
        let login = match &mut self.who {
            Who::Fixed(login) => login.clone(),
            Who::Provisioned(provisioning) => provisioning.login(&self.road, &mut self.tls).await?,
        };
        let (stream, _until_connected) = match ready {
            Some((stream, replaced)) => (Ok(stream), Some(replaced)),
            None => (self.road.clone().dial(login.target().clone(), self.tls.client()?).await, None),
        };
        let made = SystemTime::now();
        let connected = match stream {
            Ok(stream) => self.log_in(stream, &login, made).await,
            Err(outage) => Err(outage).inspect_err(|_| self.failed(false)),
        };
        let token = match login.proof {
            Proof::Key { .. } => Some(Token { ttl: self.sas_ttl, made }),
            Proof::Certificate(_) => None,
        };
        Ok(Connected { mqtt: connected?, login, token })
    }

    async fn log_in(&mut self, stream: Stream, login: &Login, now: SystemTime) -> Result<Mqtt, Outage> {
        let target = login.target();
        let target = format!("{}:{}", target.host, target.port_or(self.road.transport.port()));
        let options = connect_options(login, self.sas_ttl, self.model_id.as_deref(), now);
        let connected = Mqtt::connect(stream, target, &options, self.keep_alive).await;
        match (&connected, &mut self.who) {
            (Ok(_), Who::Provisioned(provisioning)) => provisioning.succeeded(),
            (Err(outage), _) => self.failed(outage.class == Class::Refused),
            (Ok(_), Who::Fixed(_)) => {}
        }
        connected
    }

    /// Has the CAs read again after an outage that they may be the cause of, and says
    /// what is wrong with them, if anything.
    fn by_the_cas(&mut self, outage: Outage) -> Outage {
        if outage.class != Class::Untrusted {
            return outage;
        }
        match self.tls.distrusted() {
            Some(complaint) => Outage { message: format!("{}; {complaint}", outage.message), ..outage },
            None => outage,
        }
    }

    fn failed(&mut self, refused: bool) {
        if let Who::Provisioned(provisioning) = &mut self.who {
            provisioning.failed(refused);
        }
    }

    async fn serve(
        &mut self,
        connected: Connected,
        heard: &mut Heard,
        events: &mpsc::Sender<HubEvent>,
    ) -> SessionEnd {
        let Connected { mqtt, login, token } = connected;
        let beats = *heard.beats.borrow_and_update();
        let (session, link) = Session::new(mqtt, self.keep_alive, beats, token);
        let (hub, id) = (login.hub.to_string(), login.id.clone());
        if events.send(HubEvent::Connected { link, hub, id }).await.is_err() {
            return SessionEnd::Nobody;
        }
        let dial = || -> Result<_, Outage> {
            Ok(self.road.clone().dial(login.target().clone(), self.tls.client()?))
        };
        session.serve(dial, heard, events).await
    }
}

/// What CONNECT says for `login`, with a token that is valid for `sas_ttl` from
/// `now` on.
pub(super) fn connect_options(
    login: &Login,
    sas_ttl: Duration,
    model_id: Option<&str>,
    now: SystemTime,
) -> ConnectOptions {
    let (host, id) = (&login.hub.host, &login.id);
    let agent = concat!("iotdm-agentd%2F", env!("CARGO_PKG_VERSION"));
    let model = model_id.map(|model| format!("&model-id={}", sas::encoded(model))).unwrap_or_default();
    // In whole seconds, rounded up: rounded down, a token of 5 s would lose a good
    // part of its life.
    let expiry = Time::from(now).unix_seconds() + sas_ttl.as_secs() + 1;
    let proof = &login.proof;
    ConnectOptions {
        client_id: id.to_string(),
        user: format!("{host}/{id}/?api-version={API_VERSION}{model}&DeviceClientType={agent}"),
        password: proof.token(&format!("{host}/{}", id.path()), expiry, None),
        certificate: proof.certificate().map(|files| files.certificate.display().to_string()),
        remedy: match &id.module {
            None => {
                format!("its {proof}, that the device exists and is enabled there, and this machine's clock")
            }
            Some(module) => format!(
                "its {proof}, that the device exists, is enabled and has a module {module} there, and this \
                 machine's clock"
            ),
        },
    }
}

/// The day that a clock says which is certainly wrong: one before this program was
/// made.
pub fn impossible_day(now: SystemTime) -> Option<String> {
    let built =
        option_env!("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse().ok()).unwrap_or(NOT_BEFORE);
    let now = Time::from(now);
    // The day is enough; with the time, each attempt would have another message.
    (now.unix_seconds() < built).then(|| now.to_string().get(..10).unwrap_or_default().to_owned())
}

/// Puts before the outage's message that the clock is wrong, where the clock
/// certainly is: that is the likely cause of the outage.
fn by_the_clock(outage: Outage, now: SystemTime) -> Outage {
    let Some(day) = impossible_day(now) else { return outage };
    let message = format!(
        "this machine's clock is wrong, it says {day}: as soon as it is set, the hub is tried again; {}",
        outage.message
    );
    Outage { message, ..outage }
}

#[cfg(test)]
mod tests {
    use iotdm_proto::sas::SasToken;

    use super::*;
    use crate::connection::identity::Origin;

    /// The spellings of `azure-iot-device` 2.14.0, whose module clients have
    /// `{device}/{module}` where its device clients have the device.
    #[test]
    fn what_connect_says_of_devices_and_modules() {
        let key: iotdm_proto::SecretKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".parse().unwrap();
        let said = |id: &str| {
            let login = Login {
                hub: "myhub.azure-devices.net:8443".parse().unwrap(),
                id: id.parse().unwrap(),
                gateway: Some("edge.example:18883".parse().unwrap()),
                proof: Proof::Key { key: key.clone(), origin: Origin { file: "f".into(), command: None } },
            };
            assert_eq!(login.target().to_string(), "edge.example:18883");
            connect_options(&login, Duration::from_secs(3600), None, SystemTime::UNIX_EPOCH)
        };
        for (id, resource) in [("gw1", "devices/gw1"), ("gw1/iotdm", "devices/gw1/modules/iotdm")] {
            let options = said(id);
            assert_eq!(options.client_id, id);
            let user = format!("myhub.azure-devices.net/{id}/?api-version=2021-04-12&DeviceClientType=");
            assert!(options.user.starts_with(&user), "{}", options.user);
            let token: SasToken = options.password.unwrap().parse().unwrap();
            assert_eq!(token.resource(), format!("myhub.azure-devices.net/{resource}"));
            // An hour, as `hub.sas_ttl` says, rounded up to whole seconds.
            assert_eq!(token.expiry(), 3601);
            assert_eq!((token.policy(), token.verify(&key, 0, &token.resource())), (None, Ok(())));
        }
        assert!(said("gw1/iotdm").remedy.contains("has a module iotdm there"));
    }

    #[test]
    fn a_clock_before_the_program_was_made_is_said() {
        let outage = || Outage::unreachable("the certificate is not valid yet");
        let said = by_the_clock(outage(), SystemTime::UNIX_EPOCH).message;
        assert!(said.starts_with("this machine's clock is wrong, it says 1970-01-01: "), "{said}");
        assert!(said.ends_with("; the certificate is not valid yet"), "{said}");
        assert_eq!(by_the_clock(outage(), SystemTime::now()), outage());
    }
}
