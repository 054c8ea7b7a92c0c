//! SUBSCRIBE and UNSUBSCRIBE: changes of what a session is subscribed to.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{SubAck, Subscribe, SubscribeReasonCode, Unsubscribe};

use super::session_end::SessionEnd;
use crate::hub::Hub;
use crate::link::Link;
use crate::subscriptions::Subscriptions;

/// Adds subscriptions; those of a `persistent` session are kept. QoS 2 is granted
/// as 1; a topic filter that the hub does not have ends the
/// connection, as it does with the real hub.
pub async fn subscribe(
    hub: &Hub,
    link: &Link,
    persistent: bool,
    asked: &Subscribe,
) -> Result<SubAck, SessionEnd> {
    change(hub, link, persistent, asked.filters.iter().map(|filter| filter.path.as_str()), true).await?;
    let grant =
        |qos| SubscribeReasonCode::Success(if qos == QoS::ExactlyOnce { QoS::AtLeastOnce } else { qos });
    let granted = asked.filters.iter().map(|filter| grant(filter.qos)).collect();
    Ok(SubAck::new(asked.pkid, granted))
}

/// Ends subscriptions, with the same meaning of `persistent` and the same end of
/// the connection for an unknown filter.
pub async fn unsubscribe(
    hub: &Hub,
    link: &Link,
    persistent: bool,
    asked: &Unsubscribe,
) -> Result<(), SessionEnd> {
    change(hub, link, persistent, asked.topics.iter().map(String::as_str), false).await
}

async fn change<'a>(
    hub: &Hub,
    link: &Link,
    persistent: bool,
    filters: impl Iterator<Item = &'a str> + Clone,
    wanted: bool,
) -> Result<(), SessionEnd> {
    let mut known = Subscriptions::default();
    for filter in filters.clone() {
        if known.switch(&link.device, filter).is_none() {
            return Err(SessionEnd::Violation(format!("the client used the topic filter {filter:?}")));
        }
    }
    let set = |subscriptions: &mut Subscriptions| {
        for filter in filters {
            if let Some(switch) = subscriptions.switch(&link.device, filter) {
                *switch = wanted;
            }
        }
    };
    hub.subscribe(link, persistent, set).await.map_err(|error| SessionEnd::Violation(error.to_string()))
}
