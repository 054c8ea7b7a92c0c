//! From the hub's name to the twin: each step as the daemon takes it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use iotdm_proto::Time;
use iotdm_proto::report::Clock;
use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout_at};

use super::neighbour::Neighbour;
use super::report::{Finding, Report, Step};
use crate::connection::certificate::Certificate;
use crate::connection::dial::{self, Stream, Transport};
use crate::connection::hub::{self, Options};
use crate::connection::identity::{Login, Proof};
use crate::connection::observe::{Milestone, Observer};
use crate::connection::outage::{Class, Outage};
use crate::connection::trial::{self, Who};

/// How long all of it may take. Each step has its own, shorter time; a way on which
/// several of them are slow is cut off here.
const ALL: Duration = Duration::from_secs(50);
/// How many addresses of a server are tried by themselves. The daemon tries all.
const ADDRESSES: usize = 16;
/// How far the clock may be from the hub's: IoT Hub refuses tokens of a clock that is
/// further off. Source: "Control access to IoT Hub using SAS".
const CLOCK_TOLERANCE: i64 = 300;
/// A certificate that ends sooner than in so many days is warned of.
const SOON: i64 = 7;
/// What helps a clock.
const SET_CLOCK: &str = "set it (timedatectl set-ntp true), and let NTP (UDP port 123) out";

/// Tries the way. `clock` is what this machine says of its clock, if it can be asked; with
/// `is_held` a daemon has the state directory; `neighbour` finds out who has the
/// connection.
pub(super) async fn walk(
    mut options: Options,
    clock: Option<Clock>,
    is_held: bool,
    neighbour: impl Fn(&Login) -> Neighbour,
    report: &mut Report,
) {
    let deadline = Instant::now() + ALL;
    let Some(login) = who(&mut options, is_held, deadline, report).await else {
        let rest = [Step::Name, Step::Tcp, Step::Proxy, Step::Tls, Step::Websocket];
        report.skip(&rest, "which hub it is has to be known first");
        report.add(judge_clock(clock, &Seen::default()));
        report.skip(&[Step::Connack, Step::Twin], "which hub it is has to be known first");
        return;
    };
    report.about.insert("hub".to_owned(), json!(login.hub.to_string()));
    report.about.insert("device".to_owned(), json!(login.id.device));
    report.about.insert("module".to_owned(), json!(login.id.module));
    let (opened, seen) = match first_hop(&options, &login, deadline, report).await {
        true => open(&mut options, &login, deadline, report).await,
        false => {
            let rest = [Step::Proxy, Step::Tls, Step::Websocket];
            report.skip(&rest, "nothing is reached");
            (None, Seen::default())
        }
    };
    report.add(judge_clock(clock, &seen));
    let neighbour = neighbour(&login);
    report.about.insert("daemonRuns".to_owned(), json!(neighbour.runs()));
    match (neighbour.answers(), opened) {
        (Some(answers), _) => {
            for answer in answers {
                report.add(answer);
            }
        }
        (None, Some(stream)) => log_in(stream, &options, &login, deadline, report).await,
        (None, None) => report.skip(&[Step::Connack, Step::Twin], "the hub is not reached"),
    }
}

/// What was seen of the hub on the way.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
    chain: Vec<Certificate>,
    date: Option<String>,
    /// By how much the clock was ahead of the hub's when that told its time, in
    /// seconds.
    ahead: Option<i64>,
    tunnelled: bool,
    upgraded: bool,
}

/// Who the device is, and at which hub. With `is_held` there is a daemon, which asks the
/// provisioning service itself: the service, too, keeps one connection for each device.
async fn who(options: &mut Options, is_held: bool, deadline: Instant, report: &mut Report) -> Option<Login> {
    if is_held && trial::would_ask(options) {
        let why = "a daemon runs with this state directory and asks the provisioning service itself, which has not \
                   assigned a hub yet: see systemctl status iotdm-agentd";
        report.skip(&[Step::Provisioning], why);
        return None;
    }
    let finding = match in_time(deadline, trial::who(options)).await {
        Ok(who) => {
            let login = who.login();
            let as_whom = format!("{} as {}", login.hub, login.id);
            report.add(match &who {
                Who::Configured(_) => {
                    Finding::skipped(Step::Provisioning, "not used: the connection string names the hub")
                }
                Who::Known(_) => Finding::ok(
                    Step::Provisioning,
                    format!("assigned to {as_whom}, as {} says", options.assignment_file.display()),
                ),
                Who::Assigned(_) => {
                    Finding::ok(Step::Provisioning, format!("the service assigns it to {as_whom}"))
                }
            });
            return Some(login.clone());
        }
        Err(outage) => failed(
            Step::Provisioning,
            &outage,
            "check provisioning.global_endpoint, and that TCP port 8883 (443 with a WebSocket) is let out to it",
        ),
    };
    report.add(finding);
    None
}

/// The name, and TCP with each address of both families.
async fn first_hop(options: &Options, login: &Login, deadline: Instant, report: &mut Report) -> bool {
    let (host, port) = options.road.first_hop(login.target());
    let is = options.road.proxy.as_ref().map_or("", |_| ", the proxy,");
    let addresses = match in_time(deadline, dial::look_up(host, port)).await {
        Ok(addresses) => addresses,
        Err(outage) => {
            let remedy = "check the name servers of this machine (resolvectl status, /etc/resolv.conf)";
            report.add(failed(Step::Name, &outage, remedy));
            report.skip(&[Step::Tcp], "there is no address to connect to");
            return false;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let name = Finding::ok(Step::Name, format!("{host}{is} is {}", shown.join(", ")));
    report.add(name.with("host", json!(host)).with("addresses", json!(shown)));
    let tried: Vec<SocketAddr> = addresses.into_iter().take(ADDRESSES).collect();
    let knocks = tried.iter().map(|address| async {
        let late = |_| Err(format!("has not answered when {} s were over", ALL.as_secs()));
        timeout_at(deadline, trial::knock(*address)).await.unwrap_or_else(late)
    });
    let answers = join_all(knocks).await;
    let by_proxy = options.road.proxy.is_some();
    report.add(judge_addresses(&tried.into_iter().zip(answers).collect::<Vec<_>>(), by_proxy))
}

/// What became of a connection to each address.
fn judge_addresses(tried: &[(SocketAddr, Result<(), String>)], by_proxy: bool) -> Finding {
    let told = |(address, answer): &(SocketAddr, Result<(), String>)| match answer {
        Ok(()) => format!("{address} answers"),
        Err(why) => format!("{address} {why}"),
    };
    let detail = tried.iter().map(told).collect::<Vec<_>>().join(", ");
    let family = |six: bool| tried.iter().filter(move |(address, _)| address.is_ipv6() == six);
    let dead = |six: bool| family(six).next().is_some() && family(six).all(|(_, answer)| answer.is_err());
    let facts = tried.iter().map(|(address, answer)| {
        let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        json!({"address": address.to_string(), "family": family, "connects": answer.is_ok(), "why": answer.as_ref().err()})
    });
    let facts = json!(facts.collect::<Vec<_>>());
    let finding = if tried.iter().all(|(_, answer)| answer.is_err()) {
        let remedy = match by_proxy {
            true => "check hub.proxy, and that the proxy runs",
            false => {
                "check the port in the connection string, and have the firewall let this TCP port out; where only \
                 port 443 is, set hub.transport = \"websocket\", or hub.proxy where a proxy leads out"
            }
        };
        Finding::failed(Step::Tcp, detail, remedy)
    } else if dead(true) {
        let remedy = "the daemon connects by IPv4, a moment later each time: mend the route for IPv6, or have the \
                      name server leave its addresses out";
        Finding::warning(Step::Tcp, detail, remedy)
    } else if dead(false) {
        Finding::warning(Step::Tcp, detail, "the daemon connects by IPv6: mend the route for IPv4")
    } else {
        Finding::ok(Step::Tcp, detail)
    };
    finding.with("connections", facts)
}

/// The proxy, TLS and the WebSocket, as far as they are on the way.
async fn open(
    options: &mut Options,
    login: &Login,
    deadline: Instant,
    report: &mut Report,
) -> (Option<Stream>, Seen) {
    let (milestones, mut met) = unbounded_channel();
    let opened = in_time(deadline, trial::open(options, login, Observer::new(milestones))).await;
    let mut seen = Seen::default();
    while let Ok(milestone) = met.try_recv() {
        match milestone {
            // Each address was tried before.
            Milestone::Connected(_) => {}
            Milestone::Tunnelled => seen.tunnelled = true,
            Milestone::Shown(chain) => seen.chain = chain.iter().filter_map(Certificate::read).collect(),
            Milestone::Secured(version) => seen.version = Some(version),
            Milestone::Upgraded(date) => {
                seen.upgraded = true;
                seen.ahead = date.as_deref().and_then(|date| ahead(date, Time::from(SystemTime::now())));
                seen.date = date;
            }
        }
    }
    let target = login.target();
    let target = format!("{}:{}", target.host, target.port_or(options.road.transport.port()));
    let outage = opened.as_ref().err();
    let now = Time::from(SystemTime::now());
    // The first step that was not passed is the one that failed.
    let mut on_the_way = true;
    let mut judge = |step, passed: Option<Finding>, unused: Option<&str>, remedy: &str| {
        let finding = match (unused, on_the_way, passed, outage) {
            (Some(why), ..) => Finding::skipped(step, why),
            (_, false, ..) => Finding::skipped(step, "an earlier step failed"),
            (_, _, Some(finding), _) => finding,
            (_, _, None, Some(outage)) => {
                on_the_way = false;
                let finding = failed(step, outage, remedy);
                match step {
                    Step::Tls if !seen.chain.is_empty() => {
                        let detail = format!("{}; it showed {}", finding.detail, described(&seen.chain, now));
                        with_chain(Finding { detail, ..finding }, &seen.chain, now)
                    }
                    _ => finding,
                }
            }
            (_, _, None, None) => Finding::skipped(step, "it was not seen"),
        };
        report.add(finding);
    };
    let proxy = options.road.proxy.as_ref();
    let tunnelled = seen.tunnelled.then(|| {
        let proxy = proxy.map(ToString::to_string).unwrap_or_default();
        Finding::ok(Step::Proxy, format!("{proxy} connects to {target}"))
    });
    let unused = proxy.is_none().then_some("none is configured");
    judge(Step::Proxy, tunnelled, unused, "check hub.proxy, and what the proxy's log says of this machine");
    let secured = seen.version.as_ref().map(|version| {
        judge_certificates(&format!("{version} with {target}"), &seen.chain, own_certificate(login), now)
    });
    judge(
        Step::Tls,
        secured,
        None,
        "check that this is the hub's TLS port (8883, or 443 with a WebSocket), and that nothing on the way takes TLS \
         apart",
    );
    let unused = (options.road.transport == Transport::Mqtt).then_some("hub.transport is \"mqtt\"");
    let agreed = seen.upgraded.then(|| Finding::ok(Step::Websocket, format!("{target} agrees to it")));
    judge(Step::Websocket, agreed, unused, "check that this is a hub, and hub.proxy");
    (opened.ok(), seen)
}

/// The certificates that were accepted, and the device's own.
fn judge_certificates(intro: &str, chain: &[Certificate], own: Option<Certificate>, now: Time) -> Finding {
    let mut detail = format!("{intro}; {}", described(chain, now));
    if let Some(own) = &own {
        detail.push_str(&format!("; the device's own, {}, {}", own.subject, left(own, now)));
    }
    let all = own.iter().chain(chain).map(|certificate| certificate.days_left(now));
    let shortest = all.min().unwrap_or(i64::MAX);
    let finding = if shortest < SOON {
        Finding::warning(Step::Tls, detail, "have the certificate renewed that ends so soon")
    } else {
        Finding::ok(Step::Tls, detail)
    };
    with_chain(finding, chain, now)
}

fn with_chain(finding: Finding, chain: &[Certificate], now: Time) -> Finding {
    let told = chain.iter().map(|certificate| {
        json!({
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "notBefore": certificate.not_before,
            "notAfter": certificate.not_after,
            "daysLeft": certificate.days_left(now),
        })
    });
    finding.with("chain", json!(told.collect::<Vec<_>>()))
}

/// Each certificate of a chain with the days that it has left, and who has signed the
/// last one.
fn described(chain: &[Certificate], now: Time) -> String {
    let Some(last) = chain.last() else { return "no certificate that can be read".to_owned() };
    let each = chain.iter().map(|certificate| format!("{}, {}", certificate.subject, left(certificate, now)));
    format!("{}, signed by {}", each.collect::<Vec<_>>().join("; "), last.issuer)
}

fn left(certificate: &Certificate, now: Time) -> String {
    let (from, until) = (certificate.not_before, certificate.not_after);
    match certificate.days_left(now) {
        _ if from > now => format!("valid only from {from} on"),
        days if days < 0 => format!("expired on {until}"),
        days => format!("{days} days left"),
    }
}

/// The device's certificate, where one proves who it is.
fn own_certificate(login: &Login) -> Option<Certificate> {
    let Proof::Certificate(files) = &login.proof else { return None };
    Certificate::read(files.chain().ok()?.first()?)
}

/// What is known of the clock.
fn judge_clock(clock: Option<Clock>, seen: &Seen) -> Finding {
    let system_time = SystemTime::now();
    if let Some(day) = hub::impossible_day(system_time) {
        return Finding::failed(Step::Clock, format!("it says {day}, which is certainly wrong"), SET_CLOCK);
    }
    if let (Some(ahead), Some(date)) = (seen.ahead, &seen.date) {
        let side = if ahead < 0 { "behind" } else { "ahead of" };
        let detail = format!("{} s {side} the hub's, which said {date}", ahead.unsigned_abs());
        let finding = match ahead.abs() > CLOCK_TOLERANCE {
            true => Finding::failed(Step::Clock, detail, SET_CLOCK),
            false => Finding::ok(Step::Clock, detail),
        };
        return finding.with("aheadSeconds", json!(ahead));
    }
    let now = Time::from(system_time);
    let bounds = seen.chain.first().map(|own| match own.not_before <= now && now <= own.not_after {
        true => format!("; it lies within the validity of the hub's certificate, {} to {}", own.not_before, own.not_after),
        false => format!(
            "; it lies outside the validity of the certificate that was shown, {} to {}: one of the two is wrong",
            own.not_before, own.not_after
        ),
    });
    let bounds = bounds.unwrap_or_default();
    let says = format!("it says {now}");
    match clock {
        Some(Clock::Synchronized) => {
            Finding::ok(Step::Clock, format!("{says}, synchronised as systemd-timedated says{bounds}"))
        }
        Some(Clock::Unsynchronized) => Finding::warning(
            Step::Clock,
            format!(
                "{says}; nothing vouches for it: systemd-timedated does not call it synchronised{bounds}"
            ),
            SET_CLOCK,
        ),
        None => Finding::warning(
            Step::Clock,
            format!("{says}; nothing more is known, since the hub tells no time{bounds}"),
            "compare it with another clock: a hub refuses tokens of one that is minutes off",
        ),
    }
}

/// How many seconds `now` is ahead of a date as HTTP spells it.
fn ahead(date: &str, now: Time) -> Option<i64> {
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(now.unix_millis() / 1000 - date.timestamp().as_second())
}

/// CONNACK and the twin.
async fn log_in(stream: Stream, options: &Options, login: &Login, deadline: Instant, report: &mut Report) {
    let target = login.hub.to_string();
    let who = &login.id;
    let mut mqtt = match in_time(deadline, trial::log_in(stream, options, login)).await {
        Ok(mqtt) => mqtt,
        Err(outage) => {
            let remedy = match outage.class {
                Class::Busy { .. } => "wait, and see whether the hub is throttled or in maintenance",
                _ => "check that this is a hub, and that the device is enabled there",
            };
            report.add(failed(Step::Connack, &outage, remedy));
            report.skip(&[Step::Twin], "the hub does not take the device");
            return;
        }
    };
    report.add(Finding::ok(Step::Connack, format!("{target} takes {who}, with its {}", login.proof)));
    report.add(match in_time(deadline, trial::read_twin(&mut mqtt)).await {
        Ok(twin) => Finding::ok(Step::Twin, format!("read, {} bytes", twin.len())),
        Err(outage) => failed(
            Step::Twin,
            &outage,
            "try again; the hub ends a connection also when another client comes with the same login",
        ),
    });
    mqtt.leave().await;
}

/// Waits for a step, but not beyond the end of the whole test.
async fn in_time<T>(deadline: Instant, step: impl Future<Output = Result<T, Outage>>) -> Result<T, Outage> {
    let late = |_| Outage::unreachable(format!("not done when {} s were over", ALL.as_secs()));
    timeout_at(deadline, step).await.map_err(late)?
}

/// A step that failed for this reason. `remedy` is for an outage that names none.
fn failed(step: Step, outage: &Outage, remedy: &str) -> Finding {
    let own = outage.remedy.clone();
    Finding::failed(step, outage.cause(), own.unwrap_or_else(|| remedy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(not_before: &str, not_after: &str) -> Certificate {
        Certificate {
            subject: "CN=hub".to_owned(),
            issuer: "CN=ca".to_owned(),
            not_before: not_before.parse().unwrap(),
            not_after: not_after.parse().unwrap(),
        }
    }

    fn result(finding: &Finding) -> String {
        json!(finding.result).as_str().unwrap().to_owned()
    }

    #[test]
    fn the_hubs_time_decides_about_the_clock_and_else_what_is_known() {
        for (ahead, result_is, words) in [
            (300, "ok", "300 s ahead of the hub's"),
            (-300, "ok", "300 s behind the hub's"),
            (301, "failed", "301 s ahead of"),
            (-86_400, "failed", "86400 s behind"),
        ] {
            let seen = Seen { ahead: Some(ahead), date: Some("then".to_owned()), ..Seen::default() };
            let finding = judge_clock(Some(Clock::Synchronized), &seen);
            assert_eq!(
                (result(&finding).as_str(), finding.facts["aheadSeconds"].as_i64()),
                (result_is, Some(ahead))
            );
            assert!(finding.detail.contains(words), "{finding:?}");
        }
        let within = certificate("2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z");
        let expired = certificate("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
        for (clock, chain, result_is, words) in [
            (Some(Clock::Synchronized), vec![within.clone()], "ok", "within the validity"),
            (Some(Clock::Synchronized), vec![expired], "ok", "one of the two is wrong"),
            (Some(Clock::Unsynchronized), vec![within], "warning", "nothing vouches for it"),
            (None, vec![], "warning", "nothing more is known"),
        ] {
            let finding = judge_clock(clock, &Seen { chain, ..Seen::default() });
            assert_eq!(result(&finding), result_is, "{finding:?}");
            assert!(finding.detail.contains(words), "{finding:?}");
        }
    }

    #[test]
    fn a_date_as_http_spells_it_is_compared() {
        let now = "2026-11-24T06:35:21.900Z".parse().unwrap();
        assert_eq!(ahead("Tue, 24 Nov 2026 06:35:11 GMT", now), Some(10));
        assert_eq!(ahead("Tue, 24 Nov 2026 07:35:21 GMT", now), Some(-3600));
        assert_eq!(ahead("yesterday", now), None);
    }

    #[test]
    fn a_family_of_which_no_address_answers_is_told() {
        let tried = |answers: &[(&str, bool)]| {
            let one = |(address, answers): &(&str, bool)| {
                (address.parse().unwrap(), answers.then_some(()).ok_or("is silent".to_owned()))
            };
            judge_addresses(&answers.iter().map(one).collect::<Vec<_>>(), false)
        };
        for (answers, expected, remedy) in [
            (&[("10.0.0.1:1", true), ("[fd::1]:1", true)][..], "ok", ""),
            (&[("10.0.0.1:1", true), ("10.0.0.2:1", false)], "ok", ""),
            (&[("10.0.0.1:1", true), ("[fd::1]:1", false)], "warning", "mend the route for IPv6"),
            (&[("10.0.0.1:1", false), ("[fd::1]:1", true)], "warning", "mend the route for IPv4"),
            (&[("10.0.0.1:1", false), ("[fd::1]:1", false)], "failed", "have the firewall let"),
            (&[], "failed", "check the port"),
        ] {
            let finding = tried(answers);
            assert_eq!(result(&finding), expected, "{answers:?}");
            assert!(finding.remedy.unwrap_or_default().contains(remedy), "{answers:?}");
        }
    }

    #[test]
    fn the_certificate_that_ends_first_is_warned_of() {
        let now: Time = "2026-06-01T00:00:00Z".parse().unwrap();
        let long = certificate("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        let short = certificate("2026-01-01T00:00:00Z", "2026-06-07T23:00:00Z");
        let chain = [long.clone(), long.clone()];
        let fine = judge_certificates("TLS 1.3", &chain, Some(long.clone()), now);
        assert_eq!(result(&fine), "ok");
        assert_eq!(
            fine.detail,
            "TLS 1.3; CN=hub, 214 days left; CN=hub, 214 days left, signed by CN=ca; the device's own, CN=hub, 214 days left"
        );
        assert_eq!(fine.facts["chain"][1]["daysLeft"], 214);
        for (chain, own) in [([long.clone(), short.clone()], None), (chain, Some(short))] {
            let warned = judge_certificates("TLS 1.3", &chain, own, now);
            assert_eq!(result(&warned), "warning");
            assert!(warned.detail.contains("6 days left"), "{}", warned.detail);
        }
    }
}
