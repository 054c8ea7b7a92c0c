//! One device's session with the provisioning service: the device registers,
//! asks how that went, and leaves.
//!
//! User names are `{idScope}/registrations/{registrationId}/api-version=…`.
//! Source: "Communicate with DPS using the MQTT protocol". Every refusal is
//! CONNACK 5; what the real service sends is unverified, and so are the bodies
//! of its errors.

use iotdm_proto::DeviceId;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode, UnsubAck,
};
use serde_json::Value;
use tokio::time::timeout;
use tracing::{debug, info};

use super::connection::Connection;
use super::session_end::{LONGEST, SessionEnd, max_silence};
use crate::clock::now;
use crate::hub::Hub;
use crate::proof::Proof;
use crate::provisioning::enrolment::Enrolment;
use crate::provisioning::registration::Registration;
use crate::provisioning::registration_id::{check_body, parse_id};
use crate::refusal::{ErrorCode, HubRefusal};

/// The topic filter of the service's answers, the only one that there is.
const RESPONSES: &str = "$dps/registrations/res/#";
/// How the topic begins by which a device registers; its query follows.
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
/// How the topic begins by which a device asks how its operation went.
const STATUS: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";

/// After how many seconds the device is to ask how its operation went. The
/// operation is done by then; less than a second cannot be said.
const RETRY_AFTER: u32 = 1;

/// The registration id, if the user name is one for this service.
pub fn registration_id<'a>(hub: &Hub, connect: &'a Connect) -> Option<&'a str> {
    let user_name = &connect.login.as_ref()?.username;
    let rest = user_name.strip_prefix(&hub.provisioning.id_scope)?.strip_prefix("/registrations/")?;
    let (id, query) = rest.split_once('/')?;
    query.trim_start_matches('?').starts_with("api-version=").then_some(id)
}

/// Serves a connection whose CONNECT is for `id` until it ends.
pub async fn serve(hub: &Hub, mut connection: Connection, connect: &Connect, id: &str) {
    match accept(hub, &connection, connect, id) {
        Ok((id, enrolment, proof)) => {
            connection.becomes_known();
            info!(registration = %id, enrolment = enrolment.id, "a device wants to be provisioned");
            let mut session = ProvisioningSession { hub, connection, id, enrolment, proof };
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

/// Checks who the client is, and by which enrolment it may register.
fn accept(
    hub: &Hub,
    connection: &Connection,
    connect: &Connect,
    id: &str,
) -> Result<(DeviceId, Enrolment, Proof), HubRefusal> {
    let refuse = |why: String| ErrorCode::IotHubUnauthorized.because(why);
    if connect.client_id != id {
        return Err(refuse(format!("the client id {:?} is not the registration id", connect.client_id)));
    }
    let id = parse_id(id)?;
    let password = connect.login.as_ref().map(|login| login.password.as_str()).unwrap_or_default();
    let proof = match connection.certificate() {
        Some(certificate) if password.is_empty() => Proof::Certificate(certificate.clone()),
        _ => Proof::Token(password.parse().map_err(|error| refuse(format!("{error}")))?),
    };
    let enrolment = hub.provisioning.authenticate(&id, &proof, now())?;
    Ok((id, enrolment, proof))
}

/// A session after its CONNECT was accepted.
struct ProvisioningSession<'a> {
    hub: &'a Hub,
    connection: Connection,
    /// The registration id.
    id: DeviceId,
    enrolment: Enrolment,
    proof: Proof,
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
                let granted = asked.filters.iter().map(|_| SubscribeReasonCode::Success(QoS::AtLeastOnce));
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
        check_body(&self.id, body)?;
        let over_websocket = self.connection.is_websocket();
        self.hub.register(&self.id, &self.enrolment, &self.proof, over_websocket).await
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
            let registration = self.hub.provisioning.operation(&self.id, &operation);
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
                (format!("$dps/registrations/res/{status}/?$rid={rid}"), error.to_device_body())
            }
        })
    }
}
