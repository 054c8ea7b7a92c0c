//! Modules: identities of their own on a device.

use iotdm_proto::sas;
use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::ConnectReturnCode;
use serde_json::{Value, json};

use crate::support::device::{DESIRED_PATCHES, Device, METHOD_CALLS, TWIN_RESPONSES, hello_with};
use crate::support::now;
use crate::support::service::Service;

/// Connects as `gw1/m` with the module's own key.
async fn connect(hub: &Hub, service: &Service) -> (Device, ConnectReturnCode) {
    let module = service.read("/devices/gw1/modules/m").await;
    let key = module["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().parse().unwrap();
    let token = sas::sign("localhost/devices/gw1/modules/m", &key, now() + 600, None);
    let (device, ack) = Device::say_hello(hub, hello_with("gw1/m", &token)).await;
    (device, ack.code)
}

#[tokio::test]
async fn a_module_has_its_own_connection_twin_and_methods() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let body = json!({"deviceId": "gw1", "moduleId": "m", "managedBy": "me"});
    let created = service.send("PUT", "/devices/gw1/modules/m", body).await;
    assert_eq!((created.status, &created.body["managedBy"]), (200, &json!("me")));
    assert!(hub.file("devices/gw1~m").contains(";DeviceId=gw1;ModuleId=m;SharedAccessKey="));

    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    let (mut module, code) = connect(&hub, &service).await;
    assert_eq!(code, ConnectReturnCode::Success);
    for filter in [METHOD_CALLS, TWIN_RESPONSES, DESIRED_PATCHES] {
        module.subscribe(filter).await;
    }
    device.ping().await; // The device's own connection was not replaced by the module's.

    module.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"a":1}"#).await;
    assert_eq!(module.message().await.0, "$iothub/twin/res/204/?$rid=1&$version=2");
    let twin = service.read("/twins/gw1/modules/m").await;
    assert_eq!((&twin["moduleId"], &twin["properties"]["reported"]["a"]), (&json!("m"), &json!(1)));
    assert!(service.read("/twins/gw1").await["properties"]["reported"].get("a").is_none());
    let change = json!({"properties": {"desired": {"b": 2}}});
    assert_eq!(service.send("PATCH", "/twins/gw1/modules/m", change).await.status, 200);
    assert_eq!(module.message().await.1, json!({"b": 2, "$version": 2}));

    let call = tokio::spawn({
        let service = service.clone();
        async move { service.send("POST", "/twins/gw1/modules/m/methods", json!({"methodName": "x"})).await }
    });
    let (_, rid, _) = module.method().await;
    module.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), "7").await;
    assert_eq!(call.await.unwrap().body["payload"], 7);
    module.publish("devices/gw1/modules/m/messages/events/", "{}").await;
    assert!(device.is_idle().await);

    let query = json!({"query": "SELECT * FROM devices.modules WHERE properties.reported.a = 1"});
    let found = service.send("POST", "/devices/query", query).await;
    let mut row = service.read("/twins/gw1/modules/m").await;
    assert_eq!(row.get("capabilities"), None);
    row["capabilities"] = json!({"iotEdge": false});
    assert_eq!(found.body, json!([row]));
    assert_eq!(service.read("/devices").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_module_goes_with_its_device() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/gw1/modules/m", json!({})).await;
    let (mut module, _) = connect(&hub, &service).await;
    service.change("/devices/gw1", json!({"status": "disabled"})).await;
    module.expect_close().await;
    assert_eq!(connect(&hub, &service).await.1, ConnectReturnCode::NotAuthorized);
    assert_eq!(service.send("DELETE", "/devices/gw1", Value::Null).await.status, 204);
    assert!(!hub.data().join("devices/gw1~m").exists());
    service.get("/devices/gw1/modules/m").await.refused(404, "DeviceNotFound");
}

#[tokio::test]
async fn lists_and_refusals() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for module in ["b", "a"] {
        service.send("PUT", &format!("/devices/gw1/modules/{module}"), json!({})).await;
    }
    let list = service.read("/devices/gw1/modules").await;
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|module| &module["moduleId"]).collect();
    assert_eq!(ids, ["a", "b"]);
    let again = service.send("PUT", "/devices/gw1/modules/a", json!({})).await;
    again.refused_flat(409, 409_301, "ModuleAlreadyExistsOnDevice");
    service.get("/devices/gw1/modules/x").await.refused_flat(404, 404_010, "ModuleNotFound");
    service.get("/devices/nobody/modules").await.refused(404, "DeviceNotFound");
    service.send("PUT", "/devices/nobody/modules/a", json!({})).await.refused(404, "DeviceNotFound");
    let call = service.send("POST", "/twins/gw1/modules/a/methods", json!({"methodName": "x"})).await;
    call.refused_nested(404, 404_103, "DeviceNotOnline");
    assert_eq!(service.send("DELETE", "/devices/gw1/modules/a", Value::Null).await.status, 204);
    assert_eq!(service.read("/devices/gw1/modules").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn queries_over_modules_give_rows_or_an_error() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for device in ["gw2", "gw3"] {
        service.send("PUT", &format!("/devices/{device}"), json!({})).await;
    }
    for path in ["gw1/modules/iotdm", "gw1/modules/other", "gw2/modules/iotdm"] {
        service.send("PUT", &format!("/devices/{path}"), json!({})).await;
    }
    let change = json!({"tags": {"ring": 1}, "properties": {"desired": {"a": {"b": "x"}}}});
    service.send("PATCH", "/twins/gw2/modules/iotdm", change).await;
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    let found = async |condition: &str| {
        let text = format!("SELECT deviceId, moduleId FROM devices.modules WHERE {condition}");
        let rows = service.send("POST", "/devices/query", json!({ "query": text })).await;
        assert_eq!(rows.status, 200, "{condition}: {:?}", rows.body);
        let rows = rows.body.as_array().unwrap().clone();
        let id = |row: &Value| {
            format!("{}/{}", row["deviceId"].as_str().unwrap(), row["moduleId"].as_str().unwrap())
        };
        rows.iter().map(id).collect::<Vec<_>>().join(" ")
    };
    for (condition, ids) in [
        ("moduleId = 'iotdm'", "gw1/iotdm gw2/iotdm"),
        ("moduleId = 'iotdm' AND devices.deviceId = 'gw2'", "gw2/iotdm"),
        ("devices.modules.moduleId = 'iotdm' AND devices.modules.deviceId = 'gw1'", "gw1/iotdm"),
        ("deviceId IN ['gw1', 'gw3'] AND ModuleId != 'iotdm'", "gw1/other"),
        ("tags.ring = 1 AND properties.desired.a.b = 'x'", "gw2/iotdm"),
        ("moduleId = 'iotdm' AND NOT is_defined(tags.ring)", "gw1/iotdm"),
        // Each has its own connection.
        ("connectionState = 'Connected'", ""),
        ("moduleId = 'none'", ""),
    ] {
        assert_eq!(found(condition).await, ids, "{condition}");
    }
    device.ping().await;
    for text in [
        "SELECT * FROM devices.modules WHERE module = 'iotdm'",
        "SELECT * FROM devices.modules WHERE modules.moduleId = 'iotdm'",
        "SELECT * FROM devices.modules WHERE ring = 1",
        "SELECT * FROM devices.modules WHERE devices.tags.ring = 1",
        "SELECT * FROM devices.modules WHERE properties.a.b = 'x'",
        "SELECT * FROM devices WHERE moduleId = 'iotdm'",
        "SELECT * FROM modules",
        "SELECT COUNT() AS n, deviceId FROM devices.modules GROUP BY deviceId",
    ] {
        let refused = service.send("POST", "/devices/query", json!({ "query": text })).await;
        refused.refused(400, "ArgumentInvalid");
    }
}
