//! The device provisioning service: asked over MQTT for the device's hub and
//! its name there. Source: "Communicate with your DPS using the MQTT protocol"
//! and captures of the official clients.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use iotdm_proto::{DeviceId, Endpoint, Identity, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::dial::Road;
use crate::connection::identity::{Enrolment, Login};
use crate::connection::mqtt::{ConnectOptions, Incoming, Mqtt};
use crate::connection::outage::Outage;
use crate::connection::tls::Tls;
use crate::durable;

/// Knows which hub the service has assigned, and asks the service again when that
/// hub no longer takes the device.
#[derive(Debug)]
pub struct Provisioning {
    enrolment: Enrolment,
    file: PathBuf,
    assignment: Option<Assignment>,
    /// How often in a row the hub could not be connected to, its refusals included.
    failures: u32,
    /// How often in a row the hub refused the device.
    refusals: u32,
}

/// Which hub a device has, and its name there. Kept on disk, so that a gateway
/// does not need the service at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assignment {
    id_scope: String,
    registration_id: String,
    #[serde(serialize_with = "spelled", deserialize_with = "endpoint")]
    assigned_hub: Endpoint,
    device_id: DeviceId,
}

/// The version of the service's interface. Source: what the official SDKs send.
const API_VERSION: &str = "2019-03-31";
/// How the topics of the service's responses begin.
const RESPONSES: &str = "$dps/registrations/res/";
/// After so many refusals of the assigned hub in a row the service is asked anew: the
/// device may have been assigned to another hub.
const REFUSALS: u32 = 3;
/// After so many failures in a row the service is asked anew. They are more than
/// [`REFUSALS`], since a hub that cannot be reached is more often the network's fault.
const FAILURES: u32 = 10;
/// How long the whole registration may take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// What CONNECT says. No pings are sent: the service waits 1.5 times as long, and
/// something is said at least every [`LONGEST_WAIT`].
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// For how many seconds a token is valid: for one registration, and a clock that is
/// somewhat behind.
const TOKEN_SECONDS: u64 = 10 * 60;
/// When to ask for a registration's progress where the service names no time.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// The least time that is heeded where the service names one.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// The longest time that is heeded where the service names one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The hub that the device was assigned to, and its name there, if `file` has an
/// assignment for this enrolment.
pub fn assigned(enrolment: &Enrolment, file: &Path) -> Option<(String, Identity)> {
    let Assignment { assigned_hub, device_id, .. } = read(enrolment, file)?;
    Some((assigned_hub.to_string(), device_id.into()))
}

fn read(enrolment: &Enrolment, file: &Path) -> Option<Assignment> {
    let read = durable::read(file).ok().and_then(|bytes| serde_json::from_slice::<Assignment>(&bytes).ok());
    read.filter(|known| {
        known.id_scope == enrolment.id_scope && known.registration_id == enrolment.registration_id
    })
}

impl Provisioning {
    /// Begins with the assignment in `file`, if there is one for this enrolment.
    pub fn new(enrolment: Enrolment, file: PathBuf) -> Self {
        let assignment = read(&enrolment, &file);
        Provisioning { enrolment, file, assignment, failures: 0, refusals: 0 }
    }

    /// Where the device logs in: at the hub that is known, until that keeps refusing the
    /// device; else where the service says.
    pub async fn login(&mut self, road: &Road, tls: &mut Tls) -> Result<Login, Outage> {
        let known = match &self.assignment {
            Some(known) if self.failures < FAILURES && self.refusals < REFUSALS => known.clone(),
            _ => {
                // Whatever the service answers, the hub that is known then gets its
                // full number of attempts again.
                self.succeeded();
                let assignment = register(&self.enrolment, road, tls).await?;
                self.keep(&assignment).await;
                self.assignment = Some(assignment.clone());
                assignment
            }
        };
        Ok(self.assigned(known))
    }

    /// The device as it was assigned before, if it was.
    pub fn known(&self) -> Option<Login> {
        Some(self.assigned(self.assignment.clone()?))
    }

    /// What the service answers now; nobody takes note of it.
    pub async fn ask(&self, road: &Road, tls: &mut Tls) -> Result<Login, Outage> {
        Ok(self.assigned(register(&self.enrolment, road, tls).await?))
    }

    fn assigned(&self, Assignment { assigned_hub: hub, device_id, .. }: Assignment) -> Login {
        Login { hub, id: device_id.into(), gateway: None, proof: self.enrolment.proof.clone() }
    }

    /// Takes note that the hub could not be connected to, or that it `refused` the
    /// device.
    pub fn failed(&mut self, refused: bool) {
        self.failures = self.failures.saturating_add(1);
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
    }

    /// Takes note that the hub took the device.
    pub fn succeeded(&mut self) {
        (self.failures, self.refusals) = (0, 0);
    }

    async fn keep(&self, assignment: &Assignment) {
        if self.assignment.as_ref() == Some(assignment) {
            return;
        }
        tracing::info!("assigned to {} as {}", assignment.assigned_hub, assignment.device_id);
        let (file, assignment) = (self.file.clone(), assignment.clone());
        // On a thread of its own, as a disk may take many seconds for it.
        let kept = spawn_blocking(move || {
            let dir = file.parent().context("it has no directory")?;
            anyhow::Ok(durable::replace(dir, &file, &serde_json::to_vec(&assignment)?)?)
        });
        if let Err(error) = kept.await.map_err(anyhow::Error::from).flatten() {
            tracing::warn!("the assignment cannot be kept in {}: {error:#}", self.file.display());
        }
    }
}

/// Registers, and asks until a hub is assigned.
async fn register(enrolment: &Enrolment, road: &Road, tls: &mut Tls) -> Result<Assignment, Outage> {
    let Enrolment { id_scope, registration_id, endpoint, .. } = enrolment;
    let stream = road.clone().dial(endpoint.clone(), tls.client()?).await?;
    let server = format!("the provisioning service {endpoint}");
    let mut mqtt = Mqtt::connect(stream, server, &connect_options(enrolment), KEEP_ALIVE).await?;
    let deadline = Instant::now() + PATIENCE;
    let late = |_| {
        Outage::unreachable(format!("the provisioning service {endpoint} has not assigned a hub in time"))
    };
    let registration = async {
        mqtt.subscribe(1, &[&format!("{RESPONSES}#")], false).await?;
        loop {
            match mqtt.next().await? {
                Incoming::SubscriptionRefused => {
                    return Err(Outage::refused(format!("{} refused a subscription", mqtt.target())));
                }
                Incoming::Subscribed => break,
                _ => {}
            }
        }
        let body = json!({ "registrationId": registration_id });
        let mut request = ("PUT/iotdps-register/?$rid=1".to_owned(), body.to_string());
        loop {
            let answer = ask(&mut mqtt, request).await?;
            let text = |place: &str| answer.body.pointer(place).and_then(Value::as_str);
            match answer.status {
                202 | 200 if answer.status == 202 || text("/status") == Some("assigning") => {
                    let wait = answer.retry_after.unwrap_or(ASK_AGAIN);
                    sleep(wait.clamp(LEAST_WAIT, LONGEST_WAIT)).await;
                    let operation = text("/operationId").unwrap_or_default();
                    let topic = format!("GET/iotdps-get-operationstatus/?$rid=1&operationId={operation}");
                    request = (topic, String::new());
                }
                200 if text("/registrationState/status") == Some("assigned") => {
                    let assigned =
                        (text("/registrationState/assignedHub"), text("/registrationState/deviceId"));
                    let (Some(Ok(assigned_hub)), Some(Ok(device_id))) =
                        (assigned.0.map(str::parse), assigned.1.map(str::parse))
                    else {
                        return Err(Outage::refused(
                            "the provisioning service assigned a hub or a device without a name",
                        ));
                    };
                    return Ok(Assignment {
                        id_scope: id_scope.clone(),
                        registration_id: registration_id.clone(),
                        assigned_hub,
                        device_id,
                    });
                }
                200 => {
                    let status = text("/registrationState/status").unwrap_or("without a status");
                    let why = text("/registrationState/errorMessage").map(|why| format!(" ({why})"));
                    return Err(Outage::refused(format!(
                        "the enrolment of {registration_id} in {id_scope} is {status}{}",
                        why.unwrap_or_default()
                    ))
                    .mended_by("check it in the provisioning service"));
                }
                429 | 500.. => {
                    return Err(Outage::busy(
                        format!("the provisioning service wants to be asked later ({})", answer.status),
                        answer.retry_after,
                    ));
                }
                status => {
                    // The service lets everybody connect, and says only now whose
                    // key or certificate does not fit.
                    let check = match status {
                        401 => remedy(enrolment),
                        _ => "provisioning.id_scope, registration_id and the enrolment".to_owned(),
                    };
                    return Err(Outage::refused(format!(
                        "{} refused {registration_id} in {id_scope} with {status} ({})",
                        mqtt.target(),
                        text("/message").unwrap_or("no reason given")
                    ))
                    .mended_by(format!("check {check}")));
                }
            }
        }
    };
    let assignment = timeout_at(deadline, registration).await.map_err(late)??;
    mqtt.leave().await;
    Ok(assignment)
}

fn spelled<S: Serializer>(hub: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hub)
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn connect_options(enrolment: &Enrolment) -> ConnectOptions {
    let Enrolment { id_scope, registration_id, proof, .. } = enrolment;
    let agent = concat!("iotdm-agentd%2F", env!("CARGO_PKG_VERSION"));
    let resource = format!("{id_scope}/registrations/{registration_id}");
    let expiry = Time::from(SystemTime::now()).unix_seconds() + TOKEN_SECONDS;
    ConnectOptions {
        client_id: registration_id.clone(),
        user: format!("{resource}/api-version={API_VERSION}&ClientVersion={agent}"),
        password: proof.token(&resource, expiry, Some("registration")),
        certificate: proof.certificate().map(|files| files.certificate.display().to_string()),
        remedy: remedy(enrolment),
    }
}

/// What to check where the service does not take the device for what it says it is.
fn remedy(Enrolment { proof, .. }: &Enrolment) -> String {
    format!(
        "provisioning.id_scope, the {proof}, that the enrolment exists and is enabled, and this machine's clock"
    )
}

/// A response of the service: the status and the wait that its topic names, and its
/// body (null where that is no JSON).
struct Response {
    status: u16,
    retry_after: Option<Duration>,
    body: Value,
}

async fn ask(mqtt: &mut Mqtt, (topic, body): (String, String)) -> Result<Response, Outage> {
    let topic = format!("$dps/registrations/{topic}");
    mqtt.publish(None, topic, body.into_bytes(), false).await?;
    loop {
        if let Incoming::Message { topic, payload, .. } = mqtt.next().await?
            && let Some((status, retry_after)) = parse(&topic)
        {
            let body = serde_json::from_slice(&payload).unwrap_or_default();
            return Ok(Response { status, retry_after, body });
        }
    }
}

/// Status and `retry-after` of `$dps/registrations/res/{status}/?$rid=…`.
fn parse(topic: &str) -> Option<(u16, Option<Duration>)> {
    let (status, query) = topic.strip_prefix(RESPONSES)?.split_once("/?")?;
    let seconds = query.split('&').find_map(|pair| pair.strip_prefix("retry-after="));
    let retry_after = seconds.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    Some((status.parse().ok()?, retry_after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::identity::{Origin, Proof};

    fn enrolment(id_scope: &str) -> Enrolment {
        Enrolment {
            id_scope: id_scope.to_owned(),
            registration_id: "gw1".to_owned(),
            endpoint: "dps".parse().unwrap(),
            proof: Proof::Key {
                key: "c2VjcmV0".parse().unwrap(),
                origin: Origin { file: "/key".into(), command: None },
            },
        }
    }

    #[tokio::test]
    async fn an_assignment_is_kept_for_its_own_enrolment_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("assignment.json");
        let assignment = Assignment {
            id_scope: "0ne1".to_owned(),
            registration_id: "gw1".to_owned(),
            assigned_hub: "hub1:18883".parse().unwrap(),
            device_id: "gw1".parse().unwrap(),
        };
        let new = |scope: &str| Provisioning::new(enrolment(scope), file.clone()).assignment;
        assert_eq!(new("0ne1"), None);
        Provisioning::new(enrolment("0ne1"), file.clone()).keep(&assignment).await;
        assert_eq!(new("0ne1"), Some(assignment.clone()));
        let named = (assignment.assigned_hub.to_string(), assignment.device_id.clone().into());
        assert_eq!(assigned(&enrolment("0ne1"), &file), Some(named));
        assert_eq!(assigned(&enrolment("0ne2"), &file), None);
        assert_eq!(new("0ne2"), None);
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(new("0ne1"), None);
    }

    #[test]
    fn the_service_is_asked_again_when_the_hub_keeps_refusing() {
        let mut provisioning = Provisioning::new(enrolment("0ne1"), PathBuf::from("/nowhere"));
        let again = |provisioning: &Provisioning| {
            provisioning.failures >= FAILURES || provisioning.refusals >= REFUSALS
        };
        (0..2).for_each(|_| provisioning.failed(true));
        provisioning.failed(false);
        provisioning.failed(true);
        assert!(!again(&provisioning), "not in a row");
        (0..2).for_each(|_| provisioning.failed(true));
        assert!(again(&provisioning));
        provisioning.succeeded();
        (0..9).for_each(|_| provisioning.failed(false));
        assert!(!again(&provisioning));
        provisioning.failed(false);
        assert!(again(&provisioning));
    }

    #[test]
    fn answers_are_told_by_their_topics() {
        assert_eq!(
            parse("$dps/registrations/res/202/?$rid=1&retry-after=3"),
            Some((202, Some(Duration::from_secs(3))))
        );
        assert_eq!(parse("$dps/registrations/res/200/?$rid=1"), Some((200, None)));
        for strange in [
            "$dps/registrations/res/2x/?$rid=1",
            "$dps/registrations/res/200",
            "$iothub/twin/res/200/?$rid=1",
            "",
        ] {
            assert_eq!(parse(strange), None);
        }
    }

    #[test]
    fn a_token_is_for_the_registration() {
        let options = connect_options(&enrolment("0ne1"));
        assert!(
            options
                .user
                .starts_with("0ne1/registrations/gw1/api-version=2019-03-31&ClientVersion=iotdm-agentd%2F")
        );
        let password = options.password.unwrap();
        assert!(
            password.contains("sr=0ne1%2Fregistrations%2Fgw1&") && password.ends_with("&skn=registration")
        );
    }
}
