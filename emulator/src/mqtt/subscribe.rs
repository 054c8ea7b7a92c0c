//! SUBSCRIBE and UNSUBSCRIBE: changes of what a session is subscribed to.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{SubAck, Subscribe, SubscribeReasonCode, Unsubscribe};

use super::session_end::SessionEnd;
use crate::hub::Hub;
use crate::link::Link;
use crate::subscriptions::{Granted, Subscriptions};

/// Adds subscriptions, in the place of earlier ones to the same filters; those of a
/// `persistent` session are kept. QoS 2 is granted as 1; a topic filter that the hub
/// does not have ends the connection, as it does with the real hub.
pub async fn subscribe(
    hub: &Hub,
    link: &Link,
    persistent: bool,
    asked: &Subscribe,
) -> Result<SubAck, SessionEnd> {
    let mut known = Subscriptions::default();
    if let Some(other) = asked.filters.iter().find(|filter| known.slot(&link.device, &filter.path).is_none())
    {
        return Err(SessionEnd::Violation(format!("the client used the topic filter {:?}", other.path)));
    }
    let set = |subscriptions: &mut Subscriptions| {
        for filter in &asked.filters {
            if let Some(slot) = subscriptions.slot(&link.device, &filter.path) {
                *slot = Some(grant(filter.qos));
            }
        }
    };
    change(hub, link, persistent, set).await?;
    let granted = asked.filters.iter().map(|filter| granted_code(filter.qos));
    Ok(SubAck::new(asked.pkid, granted.collect()))
}

/// Ends subscriptions, with the same meaning of `persistent`. A filter that there is
/// no subscription to, or that the hub does not have, changes nothing
/// [MQTT-3.10.4-5].
pub async fn unsubscribe(
    hub: &Hub,
    link: &Link,
    persistent: bool,
    asked: &Unsubscribe,
) -> Result<(), SessionEnd> {
    let clear = |subscriptions: &mut Subscriptions| {
        for filter in &asked.topics {
            if let Some(slot) = subscriptions.slot(&link.device, filter) {
                *slot = None;
            }
        }
    };
    change(hub, link, persistent, clear).await
}

/// How SUBACK tells the QoS that is granted where `asked` is asked for.
pub fn granted_code(asked: QoS) -> SubscribeReasonCode {
    SubscribeReasonCode::Success(match grant(asked) {
        Granted::AtMostOnce => QoS::AtMostOnce,
        Granted::AtLeastOnce => QoS::AtLeastOnce,
    })
}

fn grant(asked: QoS) -> Granted {
    if asked == QoS::AtMostOnce { Granted::AtMostOnce } else { Granted::AtLeastOnce }
}

async fn change(
    hub: &Hub,
    link: &Link,
    persistent: bool,
    change: impl FnOnce(&mut Subscriptions),
) -> Result<(), SessionEnd> {
    hub.subscribe(link, persistent, change).await.map_err(|error| SessionEnd::Violation(error.to_string()))
}
