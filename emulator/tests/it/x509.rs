//! Devices that prove who they are by certificate.

use iotdm_tests::Hub;
use rcgen::{Issuer, KeyPair};
use rumqttc::mqttbytes::v4::ConnectReturnCode::{NotAuthorized, Success};
use serde_json::json;

use crate::support::certificate::{authority, issued, self_signed};
use crate::support::device::{Device, hello, hello_with};
use crate::support::service::{HttpResponse, Service};
use crate::support::tls;
use crate::support::websocket::introduce;

async fn authenticate_by(service: &Service, path: &str, authentication: serde_json::Value) -> HttpResponse {
    let request = service.request("PUT", path).json(&json!({ "authentication": authentication }));
    HttpResponse::to(request).await
}

#[tokio::test]
async fn a_thumbprint_lets_its_certificate_in_and_no_other() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let (first, second, other) = (self_signed("a"), self_signed("b"), self_signed("a"));
    let authentication = json!({
        "type": "selfSigned",
        "x509Thumbprint": {"primaryThumbprint": first.thumbprint(), "secondaryThumbprint": second.thumbprint()},
    });
    let created = authenticate_by(&service, "/devices/cam", authentication).await;
    assert_eq!((created.status, &created.body["authentication"]["type"]), (200, &json!("selfSigned")));
    let twin = service.read("/twins/cam").await;
    assert_eq!(twin["authenticationType"], "selfSigned");
    assert_eq!(twin["x509Thumbprint"]["primaryThumbprint"], first.thumbprint().to_uppercase());
    let text = hub.file("devices/cam");
    assert!(text.starts_with("HostName=localhost;DeviceId=cam;x509=true;GatewayHostName="), "{text}");

    assert_eq!(first.connect(&hub, "cam").await, Success);
    assert_eq!(second.connect(&hub, "cam").await, Success);
    assert_eq!(other.connect(&hub, "cam").await, NotAuthorized);
    assert_eq!(first.connect(&hub, "gw1").await, NotAuthorized, "gw1 has keys");
    assert_eq!(first.connect_over_websocket(&hub, "cam").await, Success);
    assert_eq!(other.connect_over_websocket(&hub, "cam").await, NotAuthorized);
    let (_, code) = introduce(&hub, tls(&hub), hello_with("cam", "")).await;
    assert_eq!(code, NotAuthorized, "no certificate");
    let (_, ack) = Device::say_hello(&hub, hello_with("cam", "")).await;
    assert_eq!(ack.code, NotAuthorized, "no certificate");
    let token = hello(&hub, "gw1").login.unwrap().password;
    let (_, ack) = Device::say_hello(&hub, hello_with("cam", &token)).await;
    assert_eq!(ack.code, NotAuthorized, "a token");

    // A token counts where there is one, also beside a certificate.
    let mut device = Device::open_with(&hub, other.tls(&hub)).await;
    assert_eq!(device.introduce(hello(&hub, "gw1")).await.code, Success);
}

#[tokio::test]
async fn a_known_authority_lets_in_whom_its_certificates_name() {
    let files = tempfile::tempdir().unwrap();
    let (ca, ca_key) = (authority(), KeyPair::generate().unwrap());
    let file = files.path().join("ca.pem");
    std::fs::write(&file, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let other = Issuer::new(ca.clone(), KeyPair::generate().unwrap());
    let ca = Issuer::new(ca, ca_key);

    let options = ["--device", "gw1", "--x509-ca", file.to_str().unwrap()];
    let hub = Hub::start_in(&files.path().join("hub"), &options);
    let service = Service::owner(&hub);
    let authority = json!({"type": "certificateAuthority"});
    for path in ["/devices/cam", "/devices/cam/modules/m"] {
        assert_eq!(authenticate_by(&service, path, authority.clone()).await.status, 200);
    }
    assert_eq!(issued("cam", &ca).connect(&hub, "cam").await, Success);
    assert_eq!(issued("cam/m", &ca).connect(&hub, "cam/m").await, Success);
    assert_eq!(issued("cam2", &ca).connect(&hub, "cam").await, NotAuthorized);
    assert_eq!(issued("cam", &ca).connect_over_websocket(&hub, "cam").await, Success);
    assert_eq!(issued("cam", &other).connect_over_websocket(&hub, "cam").await, NotAuthorized);
    assert_eq!(issued("cam", &ca).connect(&hub, "cam/m").await, NotAuthorized);
    assert_eq!(issued("cam", &other).connect(&hub, "cam").await, NotAuthorized);
    assert_eq!(self_signed("cam").connect(&hub, "cam").await, NotAuthorized);
}

#[tokio::test]
async fn keys_are_renewed_through_put_and_the_old_one_no_longer_counts() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let old = hello(&hub, "gw1");
    let body = json!({"authentication": {"type": "sas", "symmetricKey": {
        "primaryKey": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "secondaryKey": "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=",
    }}});
    let renewed = service.request("PUT", "/devices/gw1").header("If-Match", "*").json(&body);
    assert_eq!(HttpResponse::to(renewed).await.status, 200);
    assert_eq!(Device::say_hello(&hub, old).await.1.code, NotAuthorized);
    assert_eq!(Device::say_hello(&hub, hello(&hub, "gw1")).await.1.code, Success);
}
