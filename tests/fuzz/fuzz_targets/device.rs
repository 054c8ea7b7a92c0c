//! What a hub sends to the daemon: bytes to packets, packets to topics, and
//! messages to what decides.

#![no_main]

use std::time::Duration;

use iotdm_agentd::connection::mqtt::{ConnectOptions, Incoming, Mqtt};
use iotdm_core::decide::agent::{Agent, Settings};
use iotdm_core::decide::effect::Effect;
use iotdm_core::decide::event::{Event, Start, Traces};
use iotdm_core::decide::guard::Guards;
use iotdm_core::decide::windows::Turn;
use iotdm_core::twin::{Action, Twin, TwinRequest};
use iotdm_proto::Time;
use iotdm_proto::report::Clock;
use iotdm_proto::topic::HubTopic;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
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
    let options = ConnectOptions {
        client_id: "gw1".to_owned(),
        user: "hub/gw1/?api-version=2021-04-12".to_owned(),
        password: None,
        certificate: None,
        remedy: String::new(),
    };
    let connected = Mqtt::connect(Box::new(ours), "hub".to_owned(), &options, Duration::from_secs(240)).await;
    let Ok(mut mqtt) = connected else { panic!("a CONNACK was not understood") };
    let mut daemon = Daemon::new();
    while let Ok(incoming) = mqtt.next().await {
        if let Incoming::Message { topic, payload, .. } = incoming
            && let Some(topic) = HubTopic::parse(&topic)
        {
            daemon.hear(topic, &payload);
        }
    }
}

struct Daemon {
    agent: Agent,
    twin: Twin,
    /// The request that a response of the hub would answer.
    asked: String,
    now: i64,
}

impl Daemon {
    fn new() -> Self {
        let start = Start {
            boot_id: "b".to_owned(),
            boot_time: Time::from_unix_millis(0),
            clock: Clock::Synchronized,
            shut_down: None,
            uptime: Duration::ZERO,
            granted: Vec::new(),
            traces: Traces::default(),
            need: None,
            information: None,
        };
        let settings = Settings {
            ack_timeout: Duration::from_secs(5),
            down_timeout: Duration::from_secs(300),
            allow_inhibitor_override: false,
            allow_preflight_override: false,
            when_required: false,
            health: true,
            guards: Guards {
                max_per_hour: 6,
                min_uptime: Duration::ZERO,
                windows: Vec::new(),
                turn: Turn { reserve: Duration::ZERO, spread: Duration::ZERO, number: 0 },
                zone: || TimeZone::UTC,
            },
        };
        let (agent, _) = Agent::resume(None, None, start, settings, Time::from_unix_millis(1000));
        let mut daemon = Daemon { agent, twin: Twin::new("r".to_owned()), asked: String::new(), now: 1000 };
        let actions = daemon.twin.connected(Duration::ZERO);
        daemon.about_twin(actions);
        daemon
    }

    fn hear(&mut self, topic: HubTopic, payload: &[u8]) {
        match topic {
            HubTopic::MethodCall { name, rid } => {
                let fresh_id = "f".to_owned();
                self.happen(Event::Called { rid, name, payload: payload.to_vec(), fresh_id });
            }
            // As if the hub had kept the id, so that its body is looked at.
            HubTopic::TwinResponse { status, .. } => {
                let asked = self.asked.clone();
                let actions = self.twin.response(&asked, status, payload, Duration::ZERO);
                self.about_twin(actions);
            }
            HubTopic::DesiredPatch { version } => {
                let actions = self.twin.desired_patch(version, payload, Duration::ZERO);
                self.about_twin(actions);
            }
        }
    }

    fn about_twin(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(TwinRequest::Get { rid } | TwinRequest::Patch { rid, .. }) => self.asked = rid,
                Action::Desired { reboot, memory } => self.happen(Event::Desired { reboot, memory }),
                Action::Reported => self.happen(Event::Reported),
                Action::LogPostponed { .. }
                | Action::LogRefused { .. }
                | Action::LogShortened { .. }
                | Action::LogMissed => {}
            }
        }
    }

    fn happen(&mut self, event: Event) {
        self.now += 1;
        self.agent.count(Duration::from_millis(self.now.unsigned_abs()));
        let mut rounds = vec![self.agent.handle(event, Time::from_unix_millis(self.now))];
        while let Some(effects) = rounds.pop() {
            for effect in effects {
                match effect {
                    Effect::Save(_) => {
                        rounds
                            .push(self.agent.handle(Event::Saved(Ok(())), Time::from_unix_millis(self.now)));
                    }
                    Effect::Keep { .. } => {
                        rounds.push(
                            self.agent
                                .handle(Event::Kept { written: true }, Time::from_unix_millis(self.now)),
                        );
                    }
                    Effect::Report(report) => {
                        let actions = self.twin.want(&report, Duration::ZERO);
                        self.about_twin(actions);
                    }
                    _ => {}
                }
            }
        }
    }
}
