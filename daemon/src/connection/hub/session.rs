//! One session with the hub, from its CONNACK to its end.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use iotdm_proto::Time;
use iotdm_proto::topic::{DESIRED_PATCHES, DeviceTopic, HubTopic, METHOD_CALLS, TWIN_RESPONSES};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Heard, HubEvent, Ready};
use crate::connection::dial::Stream;
use crate::connection::mqtt::{Incoming, Mqtt};
use crate::connection::outage::Outage;

/// By which the rest of the daemon sends over one connection. What is sent after the
/// connection has ended is dropped.
#[derive(Debug, Clone)]
pub struct Link {
    outbox: mpsc::Sender<Outgoing>,
}

#[derive(Debug)]
enum Outgoing {
    /// A request about the twin. The hub's response acknowledges it, so that QoS 0
    /// is enough.
    Request(DeviceTopic, Vec<u8>),
    /// A reply to a call. The hub has to acknowledge it, by QoS 1.
    Reply { rid: String, status: u16, body: Vec<u8> },
    /// Nothing more: the connection is to be ended.
    Leave,
}

/// How a session ended.
pub(super) enum SessionEnd {
    /// The device left, as it was told.
    Left,
    /// The session's token ends soon; a stream for the next session is ready.
    Renewed(Ready),
    /// The connection broke.
    Outage(Outage),
    /// The daemon's loop, which listens to the events, has ended.
    Nobody,
}

/// One session with the hub.
pub(super) struct Session {
    mqtt: Mqtt,
    outbox: mpsc::Receiver<Outgoing>,
    /// Whether the hub has acknowledged the subscriptions on this connection.
    subscribed: bool,
    /// The first of them was, so that responses arrive.
    announced: bool,
    /// The calls whose replies the hub has not acknowledged, by packet id, and
    /// when those were sent.
    unacknowledged: HashMap<u16, (String, Instant)>,
    last_packet_id: u16,
    /// The ids of the calls that are not answered yet, oldest first.
    open_calls: VecDeque<String>,
    alive: Alive,
    renewal: Renewal,
    token: Option<Token>,
}

/// When to ask the peer for a sign of life or, once asked, to give the peer up.
struct Alive {
    /// The time between an answer and the next question.
    keep_alive: Duration,
    /// How often the daemon is awake anyway, if that is regular. A question is asked
    /// at the last such beat before it is due.
    beats: Option<Duration>,
    /// When the next question is asked or, if `asked`, an answer is overdue.
    due: Instant,
    /// Whether a question is not answered yet.
    asked: bool,
    /// Whether the next question is due for another reason than that the time is over.
    hurried: bool,
}

/// The SAS token that the connection was made with. The hub ends the connection
/// when the token ends.
pub(super) struct Token {
    /// For how long the token is valid from `made` on.
    pub(super) ttl: Duration,
    /// When the token was made, by the clock in which its end is written.
    pub(super) made: SystemTime,
}

/// How far the renewal of the token is, which means a new connection: MQTT 3.1.1
/// cannot replace a token. So that the device is away for no longer than it takes to
/// log in, the next stream is opened while the old connection serves; and so that no
/// call is lost with the old connection, calls are unsubscribed from there before it
/// is left.
enum Renewal {
    /// There is no token.
    Never,
    /// The renewal begins at this instant.
    At(Instant),
    /// The next stream is being opened.
    Dialling(Pin<Box<dyn Future<Output = Result<Stream, Outage>> + Send>>),
    /// The next stream is open. The calls that came before the hub ended the
    /// subscription are still answered on the old connection.
    Ready {
        /// The next stream.
        stream: Stream,
        /// When the old connection is left, whatever is unanswered there.
        until: Instant,
        /// Whether the hub has confirmed that no further calls come.
        unsubscribed: bool,
    },
}

/// What a renewal waited for.
enum Step {
    /// Its instant has come.
    Due,
    /// The next stream is open, or could not be opened.
    Dialled(Result<Stream, Outage>),
    /// The calls on the old connection took too long.
    Overdue,
}

/// The most unsent packets, the most unacknowledged replies, and the most calls that
/// a renewal waits for: each well above what an operator's burst of calls needs.
const QUEUE: usize = 128;
/// How long a renewal with its next stream open waits until the calls on the old
/// connection are answered and the answers acknowledged.
const REPLIES: Duration = Duration::from_secs(5);
/// How long after a question was due it is asked where no beat has come: more than the
/// 4.1 s by which tokio's timers of some minutes wake the daemon before their instant,
/// and far less than the half of the keep-alive that a server waits in addition.
/// Source: MQTT 3.1.1, 3.1.2.10.
const GRACE: Duration = Duration::from_secs(5);
/// How long a peer may take to answer a ping, or to acknowledge a reply: the patience
/// that is shown to CONNACK, too.
const PONG: Duration = Duration::from_secs(30);
/// The part of a token's life after which the token is renewed. The rest is for
/// attempts that fail.
const RENEW: f64 = 0.85;
/// The part of a token's life after which a renewal that failed is tried again.
const RENEW_AGAIN: f64 = 0.03;
/// The packet id of the one SUBSCRIBE and the one UNSUBSCRIBE, which no reply has.
const SUBSCRIPTION: u16 = u16::MAX;

impl Link {
    /// Answers a call. The acknowledgement is reported as
    /// [`HubEvent::Delivered`].
    pub fn reply(&self, rid: &str, status: u16, body: Vec<u8>) {
        self.send(Outgoing::Reply { rid: rid.to_owned(), status, body });
    }

    /// Asks for the twin.
    pub fn get_twin(&self, rid: String) {
        self.send(Outgoing::Request(DeviceTopic::TwinGet { rid }, Vec::new()));
    }

    /// Merges `patch` into the reported properties.
    pub fn patch_reported(&self, rid: String, patch: Vec<u8>) {
        self.send(Outgoing::Request(DeviceTopic::ReportedPatch { rid, version: None }, patch));
    }

    /// Ends the connection in good order.
    pub fn disconnect(&self) {
        self.send(Outgoing::Leave);
    }

    fn send(&self, outgoing: Outgoing) {
        if let Err(error) = self.outbox.try_send(outgoing) {
            tracing::debug!("not sent, the connection is gone or its queue full: {error}");
        }
    }
}

impl Session {
    /// A session on `mqtt` that lives by `token`, if by any.
    /// `beats` is the period of the beats that wake the daemon anyway, if there are any.
    pub(super) fn new(
        mqtt: Mqtt,
        keep_alive: Duration,
        beats: Option<Duration>,
        token: Option<Token>,
    ) -> (Self, Link) {
        let (sender, outbox) = mpsc::channel(QUEUE);
        let session = Session {
            mqtt,
            outbox,
            subscribed: false,
            announced: false,
            unacknowledged: HashMap::new(),
            last_packet_id: 0,
            open_calls: VecDeque::new(),
            alive: Alive::new(keep_alive, beats),
            renewal: token
                .as_ref()
                .map_or(Renewal::Never, |token| Renewal::At(token.renew_at(SystemTime::now()))),
            token,
        };
        (session, Link { outbox: sender })
    }

    /// Carries packets both ways. `dial` opens a further stream to the same
    /// hub.
    pub(super) async fn serve<D>(
        mut self,
        mut dial: impl FnMut() -> Result<D, Outage>,
        Heard { hurry, listen, beats }: &mut Heard,
        events: &mpsc::Sender<HubEvent>,
    ) -> SessionEnd
    where
        D: Future<Output = Result<Stream, Outage>> + Send + 'static,
    {
        let listens = *listen.borrow_and_update();
        let filters = [TWIN_RESPONSES, DESIRED_PATCHES, METHOD_CALLS];
        let filters = if listens { &filters[..] } else { &filters[..2] };
        // Where the hub has kept the session with its subscriptions, nobody waits for
        // SUBACK, which saves a round trip. A hub that has kept other subscriptions, or
        // takes packets out of their order, does not send the response about the twin;
        // then the twin is asked for again.
        let goes_on = self.mqtt.goes_on();
        if let Err(outage) = self.mqtt.subscribe(SUBSCRIPTION, filters, goes_on).await {
            return SessionEnd::Outage(outage);
        }
        if goes_on {
            if events.send(HubEvent::Subscribed).await.is_err() {
                return SessionEnd::Nobody;
            }
            // What the loop asks for now goes along in the same segment.
            tokio::task::yield_now().await;
            if !self.has_more()
                && let Err(outage) = self.mqtt.flush().await
            {
                return SessionEnd::Outage(outage);
            }
        }
        loop {
            let room = self.unacknowledged.len() < QUEUE;
            let happened = tokio::select! {
                // What has arrived is looked at before what is overdue: after a stall
                // of this machine, the peer's answer may have come and wait to be read.
                biased;
                outgoing = self.outbox.recv(), if room => match outgoing {
                    None | Some(Outgoing::Leave) => {
                        self.mqtt.leave().await;
                        return SessionEnd::Left;
                    }
                    Some(Outgoing::Request(topic, body)) => self.request(topic, body).await.map(|()| None),
                    Some(Outgoing::Reply { rid, status, body }) => {
                        self.reply(rid, status, body).await.map(|()| None)
                    }
                },
                incoming = self.mqtt.next() => match incoming {
                    Ok(incoming) => self.received(incoming).await,
                    Err(outage) => Err(outage),
                },
                () = sleep_until(self.alive.late()) => self.prove_alive().await.map(|()| None),
                // The subscriptions have until they are due, not until the next beat.
                Ok(()) = beats.changed() => match self.subscribed && self.alive.is_last_beat() {
                    true => self.prove_alive().await.map(|()| None),
                    false => Ok(None),
                },
                step = self.renewal.step() => self.renew(step, &mut dial).await.map(|()| None),
                Ok(()) = listen.changed(), if !listens => {
                    self.subscribed = false;
                    self.mqtt.subscribe(SUBSCRIPTION, &[METHOD_CALLS], false).await.map(|()| None)
                }
                Ok(()) = hurry.changed() => {
                    if let (Renewal::At(at), Some(token)) = (&mut self.renewal, &self.token) {
                        *at = token.renew_at(SystemTime::now());
                    }
                    // The machine may have slept so long that the peer is gone.
                    self.alive.now();
                    Ok(None)
                }
            };
            match happened {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if events.send(event).await.is_err() {
                        return SessionEnd::Nobody;
                    }
                }
                Err(outage) => return SessionEnd::Outage(outage),
            }
            let idle = self.open_calls.is_empty() && self.outbox.is_empty() && self.unacknowledged.is_empty();
            self.renewal = match self.renewal {
                Renewal::Ready { stream, until, unsubscribed }
                    if (idle && unsubscribed) || until <= Instant::now() =>
                {
                    return SessionEnd::Renewed((stream, self.mqtt));
                }
                other => other,
            };
        }
    }

    async fn received(&mut self, incoming: Incoming) -> Result<Option<HubEvent>, Outage> {
        match incoming {
            Incoming::Message { topic, payload, acknowledge } => {
                // The session that the hub keeps may have subscriptions of another
                // program, whose messages have to be acknowledged.
                if let Some(packet_id) = acknowledge {
                    self.mqtt.acknowledge(packet_id).await?;
                }
                let Some(topic) = HubTopic::parse(&topic) else {
                    tracing::debug!("a message to {topic:?} is none of ours");
                    return Ok(None);
                };
                if let HubTopic::MethodCall { rid, .. } = &topic {
                    self.open_calls.push_back(rid.clone());
                    if self.open_calls.len() > QUEUE {
                        self.open_calls.pop_front();
                    }
                }
                Ok(Some(HubEvent::Message(topic, payload)))
            }
            Incoming::Acknowledged(packet_id) => {
                let rid = self.unacknowledged.remove(&packet_id);
                Ok(rid.map(|(rid, _)| HubEvent::Delivered { rid }))
            }
            Incoming::SubscriptionRefused => {
                Err(Outage::refused(format!("{} refused a subscription", self.mqtt.target())))
            }
            Incoming::Subscribed => {
                self.subscribed = true;
                let first = !std::mem::replace(&mut self.announced, true);
                Ok((first && !self.mqtt.goes_on()).then_some(HubEvent::Subscribed))
            }
            Incoming::Unsubscribed => {
                if let Renewal::Ready { unsubscribed, .. } = &mut self.renewal {
                    *unsubscribed = true;
                }
                Ok(None)
            }
            Incoming::Pong => {
                self.alive.answered();
                Ok(None)
            }
            Incoming::Other => Ok(None),
        }
    }

    async fn request(&mut self, topic: DeviceTopic, body: Vec<u8>) -> Result<(), Outage> {
        self.mqtt.publish(None, topic.to_string(), body, self.has_more()).await
    }

    async fn reply(&mut self, rid: String, status: u16, body: Vec<u8>) -> Result<(), Outage> {
        self.open_calls.retain(|open| *open != rid);
        let topic = DeviceTopic::MethodResponse { status: status.into(), rid: rid.clone() };
        let packet_id = self.packet_id();
        self.unacknowledged.insert(packet_id, (rid, Instant::now()));
        self.mqtt.publish(Some(packet_id), topic.to_string(), body, self.has_more()).await
    }

    /// Whether the next thing to send is there already, and will be sent at once.
    fn has_more(&self) -> bool {
        !self.outbox.is_empty() && self.unacknowledged.len() < QUEUE
    }

    /// A packet id that no unacknowledged reply has. There are far more ids than
    /// such replies.
    fn packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id % (SUBSCRIPTION - 1) + 1;
            if !self.unacknowledged.contains_key(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }

    /// Asks for a sign of life, unless the peer is given up: because the last question
    /// is unanswered, or because the peer does answer pings but acknowledges neither
    /// the subscriptions nor a reply.
    async fn prove_alive(&mut self) -> Result<(), Outage> {
        let patient = |sent: &Instant| sent.elapsed() < PONG;
        if self.alive.asked
            || !self.subscribed
            || !self.unacknowledged.values().all(|(_, sent)| patient(sent))
        {
            return Err(Outage::unreachable(format!("{} no longer answers", self.mqtt.target())));
        }
        self.alive.ask();
        self.mqtt.ping().await
    }

    async fn renew<D>(
        &mut self,
        step: Step,
        dial: &mut impl FnMut() -> Result<D, Outage>,
    ) -> Result<(), Outage>
    where
        D: Future<Output = Result<Stream, Outage>> + Send + 'static,
    {
        let renewal = match step {
            Step::Due => dial().map(|dialling| Renewal::Dialling(Box::pin(dialling))),
            Step::Dialled(Ok(stream)) => {
                self.mqtt.unsubscribe(SUBSCRIPTION, METHOD_CALLS).await?;
                Ok(Renewal::Ready { stream, until: Instant::now() + REPLIES, unsubscribed: false })
            }
            Step::Dialled(Err(outage)) => Err(outage),
            Step::Overdue => return Ok(()),
        };
        self.renewal = renewal.unwrap_or_else(|outage| {
            tracing::debug!("the token could not be renewed yet: {}", outage.message);
            let ttl = self.token.as_ref().map_or(Duration::ZERO, |token| token.ttl);
            Renewal::At(Instant::now() + ttl.mul_f64(RENEW_AGAIN).max(Duration::from_secs(1)))
        });
        Ok(())
    }
}

impl Alive {
    fn new(keep_alive: Duration, beats: Option<Duration>) -> Self {
        Alive { keep_alive, beats, due: Instant::now() + keep_alive, asked: false, hurried: false }
    }

    /// Makes the next question due at once, unless one is unanswered.
    fn now(&mut self) {
        if !self.asked {
            (self.due, self.hurried) = (Instant::now(), true);
        }
    }

    /// Takes note that the question is asked.
    fn ask(&mut self) {
        self.asked = true;
        self.due = Instant::now() + PONG;
    }

    /// Takes note that the peer has answered.
    fn answered(&mut self) {
        *self = Alive::new(self.keep_alive, self.beats);
    }

    /// Whether the question is to be asked at this beat, since at the next one it would
    /// be late.
    fn is_last_beat(&self) -> bool {
        !self.asked && self.beats.is_some_and(|beats| self.due < Instant::now() + beats)
    }

    /// When to do without a beat. That is later than the last beat comes, so that no
    /// timer wakes the daemon for nothing.
    fn late(&self) -> Instant {
        match self.beats {
            Some(_) if !self.asked && !self.hurried => self.due + GRACE.min(self.keep_alive / 8),
            _ => self.due,
        }
    }
}

impl Token {
    /// When the part [`RENEW`] of the token's life is over. The hub counts that life by
    /// the end that is written in the token, so `now` is by the same clock.
    fn renew_at(&self, now: SystemTime) -> Instant {
        let renew = Time::from(self.made + self.ttl.mul_f64(RENEW));
        let left = renew.unix_millis() - Time::from(now).unix_millis();
        // Where the clock was set back, the token would seem to live longer than its
        // `ttl`; it is renewed as if it did not.
        Instant::now() + Duration::from_millis(left.try_into().unwrap_or(0)).min(self.ttl.mul_f64(RENEW))
    }
}

impl Renewal {
    /// Waits for what comes next.
    async fn step(&mut self) -> Step {
        match self {
            Renewal::Never => std::future::pending().await,
            Renewal::At(at) => {
                sleep_until(*at).await;
                Step::Due
            }
            Renewal::Dialling(dialling) => Step::Dialled(dialling.await),
            Renewal::Ready { until, .. } => {
                sleep_until(*until).await;
                Step::Overdue
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_by_the_clock_that_its_end_is_written_with() {
        let (hour, start) =
            (Duration::from_secs(3600), SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let token = Token { ttl: hour, made: start };
        let in_seconds = |now| (token.renew_at(now) - Instant::now()).as_secs_f64().round();
        assert_eq!(in_seconds(start), 3060.0);
        assert_eq!(in_seconds(start + hour / 2), 1260.0);
        // The clock was behind and is put right: the token ends that much sooner.
        assert_eq!(in_seconds(start + 2 * hour), 0.0);
        // It was ahead: the token lives longer, but nobody waits for that.
        assert_eq!(in_seconds(start - 24 * hour), 3060.0);
    }

    #[tokio::test(start_paused = true)]
    async fn life_is_asked_for_at_its_times_and_has_to_be_answered() {
        let minute = Duration::from_secs(60);
        let mut alive = Alive::new(minute, None);
        alive.ask();
        assert_eq!(alive.due, Instant::now() + PONG);
        // A further reason to ask is no answer.
        alive.now();
        assert_eq!(alive.due, Instant::now() + PONG);
        alive.answered();
        assert!(!alive.asked);
        assert_eq!(alive.due, Instant::now() + minute);
        alive.now();
        assert_eq!(alive.due, Instant::now());
    }
    #[tokio::test(start_paused = true)]
    async fn life_is_asked_for_at_the_last_beat_before_it_is_due() {
        let minute = Duration::from_secs(60);
        let (start, mut alive) = (Instant::now(), Alive::new(4 * minute, Some(minute)));
        // Connected between two beats, and the answers take a moment.
        let mut asked = Vec::new();
        for beat in 1..=14 {
            sleep_until(start + minute * beat - Duration::from_secs(7)).await;
            assert!(alive.late() > Instant::now(), "a timer of its own comes first at beat {beat}");
            if alive.is_last_beat() {
                alive.ask();
                assert!(!alive.is_last_beat(), "asked once");
                assert_eq!(alive.late(), Instant::now() + PONG);
                tokio::time::advance(Duration::from_millis(150)).await;
                alive.answered();
                asked.push(beat);
            }
        }
        assert_eq!(asked, [4, 8, 12]);
        // Where the beats fail to come, it is asked all the same.
        assert_eq!(alive.late(), alive.due + GRACE);
        alive.now();
        assert_eq!(alive.late(), Instant::now());
        // Without a watchdog there is no beat to wait for.
        let alone = Alive::new(minute, None);
        assert!(!alone.is_last_beat());
        assert_eq!(alone.late(), alone.due);
    }
}
