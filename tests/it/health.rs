//! The health of the machine, as a service manager on a private bus tells it.

use iotdm_tests::{Bus, Daemon, Hub, wait_until};
use serde_json::{Value, json};

fn health(hub: &Hub) -> Value {
    hub.reported()["health"].clone()
}

fn waits_for(hub: &Hub, state: &str, units: &[&str]) -> Value {
    let expected = if units.is_empty() { Value::Null } else { json!(units) };
    wait_until(&format!("{state} with {units:?}"), || {
        let health = health(hub);
        health["state"] == state && health["failedUnits"] == expected
    });
    health(hub)
}

#[test]
fn the_twin_follows_a_boot_to_its_end_and_what_fails_and_is_mended_later() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let _logind = bus.logind();
    let systemd = bus.systemd("starting", &["app.service", "noise.service", "timed.service"]);
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.configure(
        "[health]\nunits = [\"app.service\"]\nignore_units = [\"noise.service\"]\nwait = \"24h\"\n",
    );
    daemon.start_connected(&hub);
    let starting = waits_for(&hub, "starting", &[]);
    assert_eq!(starting["bootId"], hub.reported()["boot"]["bootId"]);
    assert!(starting["hubReachedAfterSeconds"].is_number(), "{starting}");
    assert_eq!(hub.reported()["agent"]["features"], json!(["health", "onlyIfRequired", "preflight"]));

    // A boot that ends with a unit that failed, and one that may.
    systemd.set_units(&[("timed.service", "failed"), ("noise.service", "failed")]);
    systemd.startup_finished("degraded");
    let degraded = waits_for(&hub, "degraded", &["timed.service"]);
    assert_eq!(degraded["failedCount"], 1);
    let (status, reply) = hub.invoke("getRebootStatus", "{}");
    assert_eq!((status, &reply["health"]), (200, &degraded));

    // Mended by hand: seen at once, without anybody asking by the clock.
    systemd.set_units(&[("timed.service", "active")]);
    let running = waits_for(&hub, "running", &[]);
    assert_ne!(running["since"], degraded["since"]);
    assert_eq!(running["hubReachedAfterSeconds"], starting["hubReachedAfterSeconds"]);
    assert!(daemon.stop().success());
}

#[test]
fn what_comes_and_goes_without_failing_is_not_even_looked_at() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let _logind = bus.logind();
    let systemd = bus.systemd("running", &["app.service", "timed.service"]);
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.configure("health.units = \"app.service\"\n");
    daemon.start_connected(&hub);
    waits_for(&hub, "running", &[]);
    let looks = || systemd.calls.count("ListUnitsFiltered(failed)");
    let (version, before) = (hub.reported()["$version"].clone(), looks());
    systemd.timer_elapses("timed.service", 100);
    // What is not meant for the daemon was sent before this: the application ends,
    // which systemd itself calls no failure.
    systemd.set_units(&[("app.service", "inactive")]);
    let degraded = waits_for(&hub, "degraded", &["app.service"]);
    assert_eq!(degraded["failedCount"], 1);
    assert_eq!(looks() - before, 1);
    assert_eq!(hub.reported()["$version"].as_u64().unwrap() - version.as_u64().unwrap(), 1);
    assert!(daemon.stop().success());
}

#[test]
fn systemd_that_comes_late_is_found_and_one_that_is_gone_is_waited_for() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    logind.calls.wait_for("Inhibit(shutdown, iotdm-agentd, delay)");
    assert_eq!(health(&hub), Value::Null);
    let systemd = bus.systemd("running", &["app.service"]);
    waits_for(&hub, "running", &[]);
    // What had failed when a request was accepted is told with it.
    systemd.set_units(&[("app.service", "failed")]);
    waits_for(&hub, "degraded", &["app.service"]);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":3600}"#).0, 200);
    wait_until("the request", || hub.reported()["reboot"]["failedBefore"] == json!(["app.service"]));
    assert!(daemon.stop().success());
}

#[test]
fn a_pretended_machine_has_no_health_but_its_boots_are_counted() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "completed");
    let reported = hub.reported();
    assert_eq!(
        (&reported["health"], &reported["agent"]["features"]),
        (&Value::Null, &json!(["onlyIfRequired", "preflight"]))
    );
    assert_eq!((&reported["boot"]["count"], &reported["boot"]["uncleanCount"]), (&json!(2), &json!(0)));
    let (status, history) = hub.invoke("getBootHistory", "{}");
    assert_eq!(status, 200);
    let boots = history["boots"].as_array().unwrap();
    assert_eq!(boots.len(), 2, "{history}");
    assert_eq!((&boots[0]["cause"], &boots[0]["requestId"]), (&json!("requested"), &json!("r-1")));
    assert_eq!(
        (&boots[0]["bootId"], &boots[0]["bootTime"]),
        (&reported["boot"]["bootId"], &reported["rebootTime"])
    );
    assert_eq!(
        (&boots[1]["cause"], &boots[1]["bootId"]),
        (&json!("unknown"), &reported["reboot"]["previousBootId"])
    );
    assert!(daemon.stop().success());
}
