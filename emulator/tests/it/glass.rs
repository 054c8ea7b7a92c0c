//! The page that shows the hub in a browser, at the level of HTTP: who gets in, and
//! what of it. (What the page does is tried in a browser: `tests/sdk/test_browser.py`.)

use iotdm_proto::{ServiceConnectionString, sas};
use iotdm_tests::Hub;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::service::Service;
use crate::support::{DEADLINE, now, tls};

/// A browser, as far as it matters here: it shows the cookie that it is told.
struct Browser {
    client: Client,
    base: String,
}

impl Browser {
    fn new(hub: &Hub) -> Self {
        let client =
            Client::builder().tls_backend_preconfigured((*tls(hub)).clone()).no_proxy().timeout(DEADLINE);
        Browser { client: client.build().unwrap(), base: format!("https://localhost:{}", hub.https_port) }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.ask("GET", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.base));
        if method == "POST" {
            request = request.body(r#"{"methodName":"m","connectTimeoutInSeconds":0}"#);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}

/// The ticket's path, as `POST /emulator/tickets` gives it to a policy.
async fn ticket(hub: &Hub, policy: &str) -> String {
    let answer = Service::with_policy(hub, policy).send("POST", "/emulator/tickets", Value::Null).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let url = answer.body["url"].as_str().unwrap().to_owned();
    url.strip_prefix(&format!("https://localhost:{}", hub.https_port)).expect("the hub's own name").to_owned()
}

/// The cookie of a visit with this policy.
async fn visit(hub: &Hub, policy: &str) -> String {
    let answer = Browser::new(hub).get(&ticket(hub, policy).await, &[]).await;
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// What a stream says until `mark`.
async fn read_until(mut stream: Response, mark: &str) -> String {
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains(mark) {
        let chunk = timeout(DEADLINE, stream.chunk()).await.unwrap_or_else(|_| panic!("no {mark}: {text}"));
        text.push_str(std::str::from_utf8(&chunk.unwrap().expect("the stream goes on")).unwrap());
    }
    text
}

const STREAM: &str = "/emulator/glass/stream";
const TWIN: &str = "/emulator/glass/twins/gw1";
const CALL: &str = "/emulator/glass/twins/gw1/methods";

#[tokio::test]
async fn a_link_is_good_for_one_visit_in_its_process() {
    let hub = Hub::start();
    let printed = hub.log.wait_for("in a browser, by this link once: ");
    let path = printed.split_once(&format!("localhost:{}", hub.https_port)).unwrap().1.to_owned();
    let browser = Browser::new(&hub);
    for path in ["/", "/?ticket=0000"] {
        let answer = browser.get(path, &[]).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("set-cookie")), (401, None), "{path}");
        assert!(answer.text().await.unwrap().contains("iotdm-emulator browse"));
    }
    // Who only looks ahead uses nothing up.
    assert_eq!(browser.ask("HEAD", &path, &[]).await.headers().get("set-cookie"), None);
    let answer = browser.get(&path, &[]).await;
    assert_eq!(answer.status(), 200);
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"));
    assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(cookie.starts_with("__Host-") && cookie.contains(&hub.https_port.to_string()), "{cookie}");
    assert!(answer.text().await.unwrap().contains("EventSource"));
    assert_eq!(browser.get(&path, &[]).await.status(), 401, "the link was used");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(browser.get("/", &[("cookie", &cookie)]).await.status(), 200);
    assert_eq!(browser.get(&path, &[("cookie", &cookie)]).await.status(), 200, "a visitor is in already");
    assert_eq!(browser.get(STREAM, &[("cookie", &cookie.replace("visit", "other"))]).await.status(), 401);

    let hub = hub.stop().start();
    let browser = Browser::new(&hub);
    assert_eq!(browser.get("/", &[("cookie", &cookie)]).await.status(), 401, "it ends with the process");
    assert_eq!(browser.get(STREAM, &[("cookie", &cookie)]).await.status(), 401);
}

#[tokio::test]
async fn a_visit_has_its_policys_rights() {
    let hub = Hub::start();
    let browser = Browser::new(&hub);
    let origin = format!("https://localhost:{}", hub.https_port);
    for (policy, twins) in
        [("iothubowner", true), ("service", true), ("registryRead", false), ("registryReadWrite", false)]
    {
        let cookie = visit(&hub, policy).await;
        let headers = [("cookie", cookie.as_str()), ("origin", origin.as_str())];
        let seen = read_until(browser.get(STREAM, &headers).await, r#""id":"gw1""#).await;
        assert!(seen.contains(policy) && seen.contains("event: devices"), "{seen}");
        if twins {
            read_until(browser.get(STREAM, &headers).await, "event: recent").await;
            read_until(browser.get(TWIN, &headers).await, "event: twin").await;
        } else {
            assert_eq!(browser.get(TWIN, &headers).await.status(), 401, "{policy}");
        }
        let called = browser.ask("POST", CALL, &headers).await;
        assert_eq!(called.status(), if twins { 404 } else { 401 }, "{policy}");
    }
    for policy in ["device", "provisioningserviceowner"] {
        let refused = Service::with_policy(&hub, policy).send("POST", "/emulator/tickets", Value::Null).await;
        refused.refused(401, "IotHubUnauthorizedAccess");
    }
    let refused =
        Service::with_token(&hub, String::new()).send("POST", "/emulator/tickets", Value::Null).await;
    refused.refused(401, "IotHubUnauthorizedAccess");
}

#[tokio::test]
async fn other_pages_and_names_get_nothing_by_a_cookie() {
    let hub = Hub::start();
    let browser = Browser::new(&hub);
    let cookie = visit(&hub, "service").await;
    let (port, own) = (hub.https_port, format!("https://localhost:{}", hub.https_port));
    for origin in ["https://evil.example", "https://localhost", "null", &format!("http://localhost:{port}")] {
        let called = browser.ask("POST", CALL, &[("cookie", &cookie), ("origin", origin)]).await;
        assert_eq!(called.status(), 401, "{origin}");
    }
    assert_eq!(browser.ask("POST", CALL, &[("cookie", &cookie)]).await.status(), 401, "without Origin");
    assert_eq!(
        browser.ask("POST", CALL, &[("cookie", &cookie), ("origin", &own)]).await.status(),
        404,
        "offline"
    );
    // A name that somebody has resolve to this machine.
    for host in ["evil.example", "localhost.evil.example:8443", &format!("evil.example:{port}")] {
        let evil = format!("https://{host}");
        let headers = [("cookie", cookie.as_str()), ("host", host), ("origin", evil.as_str())];
        assert_eq!(browser.get("/", &headers).await.status(), 421, "{host}");
        assert_eq!(browser.get(STREAM, &headers).await.status(), 401, "{host}");
        assert_eq!(browser.ask("POST", CALL, &headers).await.status(), 401, "{host}");
    }
    for host in ["localhost:9443", "127.0.0.1", "[::1]:8443", "LOCALHOST"] {
        assert_eq!(browser.get("/", &[("cookie", &cookie), ("host", host)]).await.status(), 200, "{host}");
    }
    // A cookie opens nothing of the service's interface.
    assert_eq!(browser.get("/twins/gw1", &[("cookie", &cookie)]).await.status(), 401);
}

#[tokio::test]
async fn a_token_does_as_well_and_a_visit_ends_when_its_token_does() {
    let hub = Hub::start();
    let browser = Browser::new(&hub);
    let service: ServiceConnectionString = hub.file("policies/service").parse().unwrap();
    let signed = |seconds: u64| {
        sas::sign(&service.host_name.to_string(), &service.key, now() + seconds, Some("service"))
    };
    let owner = Service::owner(&hub);
    let stream = browser.get(STREAM, &[("authorization", &signed(60))]).await;
    let seen = tokio::spawn(read_until(stream, r#""gone":true"#));
    owner.send("PUT", "/devices/gw1/modules/m", json!({"moduleId": "m", "deviceId": "gw1"})).await;
    owner.send("DELETE", "/devices/gw1/modules/m", Value::Null).await;
    assert!(seen.await.unwrap().contains(r#""id":"gw1/m""#));

    let twin = browser.get(TWIN, &[("authorization", &signed(60))]).await;
    let seen = tokio::spawn(read_until(twin, r#""interval":7"#));
    owner.send("PATCH", "/twins/gw1", json!({"properties": {"desired": {"interval": 7}}})).await;
    seen.await.unwrap();

    // The stream ends by itself with what let it begin.
    let short = browser.get(STREAM, &[("authorization", &signed(2))]).await;
    timeout(DEADLINE, short.text()).await.unwrap().unwrap();
    let given = Service::with_token(&hub, signed(2)).send("POST", "/emulator/tickets", Value::Null).await;
    let path =
        given.body["url"].as_str().unwrap().split_once(&hub.https_port.to_string()).unwrap().1.to_owned();
    let answer = browser.get(&path, &[]).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let stream = browser.get(STREAM, &[("cookie", &cookie)]).await;
    timeout(DEADLINE, stream.text()).await.unwrap().unwrap();
    assert_eq!(browser.get(STREAM, &[("cookie", &cookie)]).await.status(), 401);
}

#[tokio::test]
async fn calls_are_throttled_as_those_of_services() {
    let hub = Hub::start();
    let cookie = visit(&hub, "service").await;
    let origin = format!("https://localhost:{}", hub.https_port);
    Service::owner(&hub).fault(json!({"deviceId": "gw1", "fault": "throttleService"})).await;
    let call = async || {
        let headers = [("cookie", cookie.as_str()), ("origin", origin.as_str())];
        Browser::new(&hub).ask("POST", CALL, &headers).await.status().as_u16()
    };
    assert_eq!((call().await, call().await), (429, 404));
}
