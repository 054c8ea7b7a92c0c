//! What a hub sends to the daemon: bytes to packets, packets to topics, and
//! messages to what decides.

#![no_main]

use std::time::Duration;

use iotdm_agentd::agent::{Agent, Settings};
use iotdm_agentd::desired::{Desired, Update};
use iotdm_agentd::effect::Effect;
use iotdm_agentd::event::{Event, Start};
use iotdm_agentd::guard::Guards;
use iotdm_agentd::mqtt::{Credentials, Mqtt};
use iotdm_agentd::reporter::Reporter;
use iotdm_proto::Time;
use iotdm_proto::report::Clock;
use iotdm_proto::topic::HubTopic;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Builder;

fuzz_target!(|bytes: &[u8]| {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(hear(bytes));
});

async fn hear(bytes: &[u8]) {
    let (ours, mut theirs) = tokio::io::duplex(bytes.len() + 64 * 1024);
    theirs.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    let credentials = Credentials {
        client_id: "gw1".to_owned(),
        user: "hub/gw1/?api-version=2021-04-12".to_owned(),
        password: None,
        certificate: None,
        remedy: String::new(),
    };
    let connected = Mqtt::connect(Box::new(ours), "hub".to_owned(), &credentials, Duration::from_secs(240)).await;
    let Ok(mut mqtt) = connected else { panic!("a CONNACK was not understood") };
    let mut daemon = Daemon::new();
    while let Ok(packet) = mqtt.next().await {
        if let Packet::Publish(publish) = packet
            && let Some(topic) = HubTopic::parse(&publish.topic)
        {
            daemon.hear(topic, &publish.payload);
        }
    }
}

struct Daemon {
    agent: Agent,
    reporter: Reporter,
    desired: Desired,
    now: i64,
}

impl Daemon {
    fn new() -> Self {
        let start = Start {
            boot_id: "b".to_owned(),
            boot_time: Time::from_unix_millis(0),
            clock: Clock::Synchronized,
            shut_down: None,
        };
        let settings = Settings {
            ack_timeout: Duration::from_secs(5),
            down_timeout: Duration::from_secs(300),
            allow_inhibitor_override: false,
            guards: Guards { max_per_hour: 6, min_uptime: Duration::ZERO, windows: Vec::new(), zone: || TimeZone::UTC },
        };
        let (agent, _) = Agent::resume(None, None, start, settings, Time::from_unix_millis(1000));
        let mut reporter = Reporter::new("r".to_owned());
        let _ = reporter.connected();
        Daemon { agent, reporter, desired: Desired::default(), now: 1000 }
    }

    fn hear(&mut self, topic: HubTopic, payload: &[u8]) {
        match topic {
            HubTopic::MethodCall { name, rid } => {
                let fresh_id = "f".to_owned();
                self.happen(Event::Called { rid, name, payload: payload.to_vec(), fresh_id });
            }
            HubTopic::TwinResponse { status, rid, .. } => {
                let _ = self.reporter.response(&rid, status, payload);
                let update = self.desired.read(payload);
                self.take(update);
            }
            HubTopic::DesiredPatch { version } => {
                let update = self.desired.patched(version, payload);
                self.take(update);
            }
        }
    }

    fn take(&mut self, update: Update) {
        if let Update::Reboot { desired, reported } = update {
            self.happen(Event::Desired { reboot: desired, reported });
        }
    }

    fn happen(&mut self, event: Event) {
        self.now += 1;
        let mut rounds = vec![self.agent.handle(event, Time::from_unix_millis(self.now))];
        while let Some(effects) = rounds.pop() {
            for effect in effects {
                match effect {
                    Effect::Save(_) => {
                        rounds.push(self.agent.handle(Event::Saved(Ok(())), Time::from_unix_millis(self.now)));
                    }
                    Effect::Report(report) => drop(self.reporter.want(&report)),
                    _ => {}
                }
            }
        }
    }
}
