//! One device's session with the provisioning service: the device registers,
//! asks how that went, and leaves.
//!
//! User names are `{idScope}/registrations/{registrationId}/api-version=…`.
//! Source: "Communicate with DPS using the MQTT protocol", and conversations with the
//! service that others recorded: a client whose token or certificate does not fit is
//! let in, and told so when it registers. Which code the service has for a client id
//! that is not the registration id is unverified; here it is CONNACK 5.

use iotdm_proto::DeviceId;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, UnsubAck,
};
use serde_json::Value;
use tokio::time::timeout;
use tracing::{debug, info};

use super::connection::Connection;
use super::session_end::{LONGEST, SessionEnd, max_silence};
use super::subscribe::granted_code;
use crate::clock::now;
use crate::hub::Hub;
use crate::proof::Proof;
use crate::provisioning::enrolment::Enrolment;
use crate::provisioning::refusal::{self, Way};
use crate::provisioning::registration::{RETRY_AFTER, Registration};
use crate::provisioning::registration_id::{check_body, parse_id};
use crate::refusal::{ErrorCode, HubRefusal};

/// The topic filter of the service's answers, the only one that there is.
const RESPONSES: &str = "$dps/registrations/res/#";
/// How the topic begins by which a device registers; its query follows.
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
/// How the topic begins by which a device asks how its operation went.
const STATUS: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";

/// The registration id, if the user name is one for this service.
pub fn registration_id<'a>(hub: &Hub, connect: &'a Connect) -> Option<&'a str> {
    let user_name = &connect.login.as_ref()?.username;
    let rest = user_name.strip_prefix(&hub.provisioning.id_scope)?.strip_prefix("/registrations/")?;
    let (id, query) = rest.split_once('/')?;
    query.trim_start_matches('?').starts_with("api-version=").then_some(id)
}

/// Serves a connection whose CONNECT is for `id` until it ends.
pub async fn serve(hub: &Hub, mut connection: Connection, connect: &Connect, id: &str) {
    match registration_of(connect, id) {
        Ok(id) => {
            let admission = admit(hub, &connection, connect, &id);
            match &admission {
                Ok((enrolment, _)) => {
                    connection.becomes_known();
                    info!(registration = %id, enrolment = enrolment.id, "a device wants to be provisioned");
                }
                Err(why) => info!(registration = %id, %why, "a device will not be provisioned"),
            }
            let mut session = ProvisioningSession { hub, connection, id, admission };
            let end = session.run(connect).await;
            debug!(registration = %session.id, why = %end, "provisioning connection ended");
            session.connection.close().await;
        }
        Err(error) => {
            info!(registration = id, why = %error, "refused a CONNECT");
            let refused = ConnAck::new(ConnectReturnCode::NotAuthorized, false);
            let _ = connection.write(&Packet::ConnAck(refused)).await;
            connection.close().await;
        }
    }
}

/// The registration id, which the client id has to be as well.
fn registration_of(connect: &Connect, id: &str) -> Result<DeviceId, HubRefusal> {
    if connect.client_id != id {
        let why = format!("the client id {:?} is not the registration id", connect.client_id);
        return Err(ErrorCode::IotHubUnauthorized.because(why));
    }
    parse_id(id)
}

/// The enrolment by which the client may register, with what the client has shown
/// for it.
type Admission = Result<(Enrolment, Proof), HubRefusal>;

/// Checks whether the client is who it says, and by which enrolment it may register.
/// A refusal's text is for the log: the device learns less.
fn admit(hub: &Hub, connection: &Connection, connect: &Connect, id: &DeviceId) -> Admission {
    let password = connect.login.as_ref().map(|login| login.password.as_str()).unwrap_or_default();
    let proof = match connection.certificate() {
        Some(certificate) if password.is_empty() => Proof::Certificate(certificate.clone()),
        _ => {
            let token = password.parse();
            Proof::Token(token.map_err(|error| ErrorCode::GenericUnauthorized.because(format!("{error}")))?)
        }
    };
    hub.provisioning.authenticate(id, &proof, now()).map(|enrolment| (enrolment, proof))
}

/// A session after its CONNECT was accepted.
struct ProvisioningSession<'a> {
    hub: &'a Hub,
    connection: Connection,
    /// The registration id.
    id: DeviceId,
    /// Whether the client may register.
    admission: Admission,
}

impl ProvisioningSession<'_> {
    /// Exchanges packets until there is a reason to stop.
    async fn run(&mut self, connect: &Connect) -> SessionEnd {
        let silence = max_silence(connect).unwrap_or(LONGEST);
        let accepted = ConnAck::new(ConnectReturnCode::Success, false);
        if let Err(error) = self.connection.write(&Packet::ConnAck(accepted)).await {
            return error.into();
        }
        loop {
            match timeout(silence, self.connection.read()).await {
                Err(_) => return SessionEnd::Silent,
                Ok(Err(error)) => return error.into(),
                Ok(Ok(packet)) => {
                    if let Err(end) = self.receive(packet).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn receive(&mut self, packet: Packet) -> Result<(), SessionEnd> {
        match packet {
            Packet::Subscribe(asked) => {
                if let Some(other) = asked.filters.iter().find(|filter| filter.path != RESPONSES) {
                    return Err(SessionEnd::Violation(format!(
                        "the client used the topic filter {:?}",
                        other.path
                    )));
                }
                let granted = asked.filters.iter().map(|filter| granted_code(filter.qos));
                let ack = SubAck::new(asked.pkid, granted.collect());
                Ok(self.connection.write(&Packet::SubAck(ack)).await?)
            }
            // The official clients take their subscription back before they go,
            // and the one for Node waits for the answer without end.
            Packet::Unsubscribe(asked) => {
                Ok(self.connection.write(&Packet::UnsubAck(UnsubAck::new(asked.pkid))).await?)
            }
            Packet::Publish(published) => {
                debug!(registration = %self.id, topic = published.topic, "device -> provisioning");
                let (topic, body) = self.answer(&published.topic, &published.payload).await?;
                if published.qos == QoS::AtLeastOnce {
                    self.connection.write(&Packet::PubAck(PubAck::new(published.pkid))).await?;
                }
                debug!(registration = %self.id, topic, %body, "provisioning -> device");
                let publish = Publish::new(topic, QoS::AtMostOnce, body.to_string());
                Ok(self.connection.write(&Packet::Publish(publish)).await?)
            }
            Packet::PingReq => Ok(self.connection.write(&Packet::PingResp).await?),
            Packet::PubAck(_) => Ok(()),
            Packet::Disconnect => Err(SessionEnd::Disconnect),
            _ => {
                Err(SessionEnd::Violation("the client sent a packet that is not for this service".to_owned()))
            }
        }
    }

    /// Registers the device by a request with this body.
    async fn register(&mut self, body: &[u8]) -> Result<Registration, HubRefusal> {
        let (enrolment, proof) = self.admission.as_ref().map_err(Clone::clone)?;
        check_body(&self.id, body)?;
        let over_websocket = self.connection.is_websocket();
        self.hub.register(&self.id, enrolment, proof, over_websocket).await
    }

    /// The registration whose operation the device asks about.
    fn operation(&self, operation: &str) -> Result<Registration, HubRefusal> {
        self.admission.as_ref().map_err(Clone::clone)?;
        self.hub.provisioning.operation(&self.id, operation)
    }

    /// The topic and body of the answer to a publish.
    async fn answer(&mut self, topic: &str, payload: &[u8]) -> Result<(String, Value), SessionEnd> {
        let value = |query: &str, key: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(found, _)| *found == key).map(|(_, value)| value.to_owned()).next()
        };
        let other = || SessionEnd::Violation(format!("the client published to {topic:?}"));
        let (query, outcome) = if let Some(query) = topic.strip_prefix(REGISTER) {
            let registered = self.register(payload).await;
            (query, registered.map(|registration| (202, registration.accepted_json())))
        } else if let Some(query) = topic.strip_prefix(STATUS) {
            let operation = value(query, "operationId").ok_or_else(other)?;
            let registration = self.operation(&operation);
            (query, registration.map(|registration| (200, registration.result_json())))
        } else {
            return Err(other());
        };
        let rid = value(query, "$rid").ok_or_else(other)?;
        Ok(match outcome {
            Ok((202, body)) => {
                (format!("$dps/registrations/res/202/?$rid={rid}&retry-after={RETRY_AFTER}"), body)
            }
            Ok((status, body)) => (format!("$dps/registrations/res/{status}/?$rid={rid}"), body),
            Err(error) => {
                let status = error.code.status().as_u16();
                (format!("$dps/registrations/res/{status}/?$rid={rid}"), refusal::body(&error, Way::Mqtt).0)
            }
        })
    }
}
