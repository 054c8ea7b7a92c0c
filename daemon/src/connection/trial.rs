//! A way to the hub that is tried, not used: the daemon's own steps, with somebody
//! who watches and a word with the hub at the end, and nothing is kept.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use iotdm_proto::topic::{DeviceTopic, HubTopic, TWIN_RESPONSES};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::dial::Stream;
use crate::connection::hub::{Options, connect_options};
use crate::connection::identity::{Login, Source};
use crate::connection::mqtt::{Incoming, Mqtt};
use crate::connection::observe::Observer;
use crate::connection::outage::{Class, Outage};
use crate::connection::provisioning::Provisioning;

/// How long one address may take to answer: long enough for three lost SYNs, which
/// Linux repeats after 1, 3 and 7 s. Another address may answer meanwhile, so that
/// this is shorter than what the daemon waits for all of them.
const KNOCK: Duration = Duration::from_secs(10);
/// How long the hub may take to answer about the twin.
const TWIN: Duration = Duration::from_secs(10);

/// Who the device is at its hub, and how that is known.
#[derive(Debug)]
pub enum Who {
    /// By the connection string.
    Configured(Login),
    /// By what the provisioning service answered earlier.
    Known(Login),
    /// By what the provisioning service answers now.
    Assigned(Login),
}

impl Who {
    /// The device.
    pub fn login(&self) -> &Login {
        let (Who::Configured(login) | Who::Known(login) | Who::Assigned(login)) = self;
        login
    }
}

/// Whether the provisioning service would have to be asked who the device is.
pub fn would_ask(options: &Options) -> bool {
    match &options.source {
        Source::Fixed(_) => false,
        Source::Provisioned(enrolment) => {
            Provisioning::new(enrolment.clone(), options.assignment_file.clone()).known().is_none()
        }
    }
}

/// Who the device is. The provisioning service is asked where it has not answered
/// before.
pub async fn who(options: &mut Options) -> Result<Who, Outage> {
    let enrolment = match &options.source {
        Source::Fixed(login) => return Ok(Who::Configured(login.clone())),
        Source::Provisioned(enrolment) => enrolment.clone(),
    };
    let provisioning = Provisioning::new(enrolment, options.assignment_file.clone());
    if let Some(login) = provisioning.known() {
        return Ok(Who::Known(login));
    }
    let asked = provisioning.ask(&options.road, &mut options.tls).await;
    Ok(Who::Assigned(asked.map_err(|outage| by_the_cas(options, outage))?))
}

/// Whether this address takes a TCP connection; else why not.
pub async fn knock(address: SocketAddr) -> Result<(), String> {
    match timeout(KNOCK, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Err("refuses it".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("does not answer within {} s", KNOCK.as_secs())),
    }
}

/// Opens a stream to the hub, as far as TLS or, where that is configured, a
/// WebSocket. `observer` is told how far it has come.
pub async fn open(options: &mut Options, login: &Login, observer: Observer) -> Result<Stream, Outage> {
    options.road.observer = observer.clone();
    options.tls.observe(observer);
    let opened = match options.tls.client() {
        Ok(client) => options.road.clone().dial(login.target().clone(), client).await,
        Err(outage) => Err(outage),
    };
    opened.map_err(|outage| by_the_cas(options, outage))
}

/// Logs in on `stream`. A hub ends the connection that it has with the same device.
pub async fn log_in(stream: Stream, options: &Options, login: &Login) -> Result<Mqtt, Outage> {
    let target = login.target();
    let target = format!("{}:{}", target.host, target.port_or(options.road.transport.port()));
    let connect = connect_options(login, options.sas_ttl, options.model_id.as_deref(), SystemTime::now());
    // Nobody sends pings here: a hub that is slow about the twin must not end the
    // connection for that.
    Mqtt::connect(stream, target, &connect, options.keep_alive.max(2 * TWIN)).await
}

/// Reads the twin: the JSON text that the hub answers.
pub async fn read_twin(mqtt: &mut Mqtt) -> Result<Vec<u8>, Outage> {
    let target = mqtt.target().to_owned();
    let rid = format!("test-{:08x}", fastrand::u32(..));
    let late = |_| Outage::unreachable(format!("{target} does not answer about the twin"));
    let reading = async {
        mqtt.subscribe(1, &[TWIN_RESPONSES], false).await?;
        loop {
            match mqtt.next().await? {
                Incoming::SubscriptionRefused => {
                    return Err(Outage::refused(format!("{target} refused a subscription")));
                }
                Incoming::Subscribed => {
                    let topic = DeviceTopic::TwinGet { rid: rid.clone() }.to_string();
                    mqtt.publish(None, topic, Vec::new(), false).await?;
                }
                // What else comes is the daemon's, and is not acknowledged: it gets it
                // again.
                Incoming::Message { topic, payload, .. } => match HubTopic::parse(&topic) {
                    Some(HubTopic::TwinResponse { status: 200, rid: answered, .. }) if answered == rid => {
                        return Ok(payload);
                    }
                    Some(HubTopic::TwinResponse { status, rid: answered, .. }) if answered == rid => {
                        return Err(Outage::refused(format!("{target} answers {status} about the twin")));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    };
    timeout(TWIN, reading).await.map_err(late)?
}

/// Says what is wrong with the trusted CAs, where that may be the cause.
fn by_the_cas(options: &mut Options, outage: Outage) -> Outage {
    match (outage.class == Class::Untrusted).then(|| options.tls.distrusted()).flatten() {
        Some(complaint) => Outage { message: format!("{}; {complaint}", outage.message), ..outage },
        None => outage,
    }
}
