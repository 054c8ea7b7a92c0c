//! The hub's errors: those that IoT Hub itself was seen to send, and each of
//! its codes in both forms.

use crate::common::{FakeHub, HttpResponse, Ran};
use serde_json::json;

/// Runs `iotdm-ctl` against a hub that answers everything alike.
fn run(answer: HttpResponse, arguments: &[&str]) -> Ran {
    // Trying again is tested elsewhere; here it shall not take long.
    let answer = answer.with("retry-after", "0");
    FakeHub::start(move |_, _| answer.clone()).run(arguments)
}

const INVOKE: [&str; 3] = ["invoke", "gw1", "rebootDevice"];
const QUERY: [&str; 2] = ["query", "SELECT * FORM devices"];

/// What users of IoT Hub quoted in public issues and in its documentation, to
/// the letter.
#[test]
fn bodies_that_iot_hub_has_sent() {
    for (status, header, body, arguments, code, said) in [
        (
            404,
            Some("DeviceNotOnline"),
            r#"{"Message":"ErrorCode:DeviceNotOnline;Timed out waiting for device to connect.","ExceptionMessage":"Tracking ID:66b8d59066b24105a49bffcbde18495d-G:5-TimeStamp:01/18/2017 08:11:45"}"#,
            &INVOKE[..],
            4,
            r#"gw1: the device is offline (hub localhost: 404 DeviceNotOnline, "Timed out waiting for device to connect."); start the device's agent, or let the hub wait for it with --connect-timeout SECONDS"#,
        ),
        (
            404,
            None,
            r#"{"Message":"{\"errorCode\":404103,\"trackingId\":\"aa761f96e9174d0e849c96a8b2e10a8c-TimeStamp:03/14/2024 09:54:49\",\"message\":\"The operation failed because the requested device isn't online or hasn't registered the direct method callback. To learn more, see https://aka.ms/iothub404103\",\"info\":{\"timeout\":\"00:00:00\"},\"timestampUtc\":\"2024-03-14T09:54:49.6536567Z\"}","ExceptionMessage":""}"#,
            &INVOKE,
            4,
            r#"gw1: the device is offline (hub localhost: 404 404103, "The operation failed because the requested device isn't online or hasn't registered the direct method callback. To learn more, see https://aka.ms/iothub404103"); start the device's agent, or let the hub wait for it with --connect-timeout SECONDS"#,
        ),
        (
            504,
            None,
            r#"{"Message":"{\"errorCode\":504101,\"trackingId\":\"55b1d7845498428593c2738d94442607-G:32-TimeStamp:05/15/2020 20:43:10-G:10-TimeStamp:05/15/2020 20:43:10\",\"message\":\"Timed out waiting for the response from device.\",\"info\":{},\"timestampUtc\":\"2020-05-15T20:43:10.3899553Z\"}","ExceptionMessage":""}"#,
            &INVOKE,
            6,
            r#"gw1: the device did not reply in time (hub localhost: 504 504101, "Timed out waiting for the response from device."); it is not known whether the device has carried it out"#,
        ),
        (
            401,
            None,
            r#"{"Message":"{\"errorCode\":401002,\"trackingId\":\"b1da85801b2e4faf951a2291a2c467c3-G:32-TimeStamp:04/06/2020 17:15:11\",\"message\":\"Unauthorized\",\"timestampUtc\":\"2020-04-06T17:15:11.6990676Z\"}","ExceptionMessage":""}"#,
            &INVOKE,
            8,
            r#"gw1: not authorised (hub localhost: 401 401002, "Unauthorized"); check the connection string's key, or the token, and that it has the right"#,
        ),
        (
            401,
            None,
            r#"{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized","ExceptionMessage":"Tracking ID:8d08ff1144d6450680295a10d760244f-G:9-TimeStamp:10/15/2018 03:54:24"}"#,
            &["twin", "show", "gw1"],
            8,
            r#"gw1: not authorised (hub localhost: 401 IotHubUnauthorizedAccess, "Unauthorized"); check the connection string's key, or the token, and that it has the right"#,
        ),
        (
            404,
            None,
            r#"{"Message":"ErrorCode:DeviceNotFound;sensor-thl-001","ExceptionMessage":"Tracking ID:06e0221675514160850421f0b3b787a9-G:0-TimeStamp:10/24/2023 16:57:00"}"#,
            &["device", "show", "sensor-thl-001"],
            5,
            r#"sensor-thl-001: no such device (hub localhost: 404 DeviceNotFound, "sensor-thl-001"); see iotdm-ctl device list"#,
        ),
        (
            409,
            None,
            r#"{"Message":"ErrorCode:DeviceAlreadyExists;A device with ID 'device004' is already registered.","ExceptionMessage":"Tracking ID:987573ab94334e77a1cd0beb671a71c4-G:5-TimeStamp:09/28/2017 17:31:56"}"#,
            &["device", "create", "device004"],
            1,
            r#"device004: it exists already (hub localhost: 409 DeviceAlreadyExists, "A device with ID 'device004' is already registered.")"#,
        ),
        (
            409,
            None,
            r#"{"Message":"ErrorCode:DeviceAlreadyExists;A device with ID 'iotdevice1' is already registered.\r\nTracking Id:218b497e330b41119036553381cc63de-G:GatewayWorkerRole.11-B:1-P:8a500395-cf20-45f1-831b-e0a49c9bd5fa-TimeStamp:03/16/2016 17:26:37\r\nErrorCode:DeviceAlreadyExists"}"#,
            &["device", "create", "iotdevice1"],
            1,
            r#"iotdevice1: it exists already (hub localhost: 409 DeviceAlreadyExists, "A device with ID 'iotdevice1' is already registered. Tracking Id:218b497e330b41119036553381cc63de-G:GatewayWorkerRole.11-B:1-P:8a500395-cf20-45f1-831b-e0a49c9bd5fa-TimeStamp:03/16/2016 17:26:37 ErrorCode:DeviceAlreadyExists")"#,
        ),
        (
            412,
            None,
            r#"{"Message":"ErrorCode:PreconditionFailed;Precondition failed: Invalid ETag","ExceptionMessage":"Tracking ID:bd6f32154462454986bdcb7f7083a49f-G:2-TimeStamp:07/30/2018 18:02:31"}"#,
            &["twin", "update", "gw1", "--tags", "{}", "--etag", "x"],
            1,
            r#"gw1: it was changed meanwhile (hub localhost: 412 PreconditionFailed, "Precondition failed: Invalid ETag"); read it again and give its new --etag, or none"#,
        ),
        (
            400,
            None,
            r#"{"Message":"ErrorCode:ArgumentNull;BadRequest","ExceptionMessage":"Tracking ID:0145380c335046479275c10be0eb278f-G:0-TimeStamp:11/10/2016 08:37:23"}"#,
            &QUERY,
            1,
            r#"the query "SELECT * FORM devices" failed: the hub refused (hub localhost: 400 ArgumentNull, "BadRequest")"#,
        ),
    ] {
        let mut answer = HttpResponse::text(body).status(status);
        if let Some(name) = header {
            answer = answer.with("iothub-errorcode", name);
        }
        let run = run(answer, arguments);
        // The hub's port is another one each time.
        let host = run.stderr.find("localhost:").unwrap_or_default() + "localhost:".len();
        let port: String = run.stderr[host..].chars().take_while(char::is_ascii_digit).collect();
        let shown = run.stderr.replace(&format!("localhost:{port}:"), "localhost:");
        assert_eq!((run.code, shown), (code, format!("iotdm-ctl: {said}\n")), "{body}");
    }
}

/// The Azure CLI's extension goes by this as well.
#[test]
fn a_job_of_unknown_status_is_none() {
    let unknown = json!({"jobId": "nosuch", "type": "unknown", "status": "unknown"});
    let run = run(HttpResponse::ok(unknown), &["job", "show", "nosuch"]);
    run.ends(1, &["job nosuch", "404 JobNotFound", "see iotdm-ctl job list"]);
}

/// Source: IoT Hub's documentation, "Troubleshooting Azure IoT Hub error
/// codes".
const CODES: [(u32, &str, i32, &str); 33] = [
    (400_001, "InvalidProtocolVersion", 1, "the hub refused"),
    (400_003, "InvalidOperation", 1, "the hub refused"),
    (400_004, "ArgumentInvalid", 1, "the hub refused"),
    (400_005, "ArgumentNull", 1, "the hub refused"),
    (400_006, "IotHubFormatError", 1, "the hub refused"),
    (400_027, "ConnectionForcefullyClosedOnNewConnection", 4, "connection broke"),
    (400_103, "InvalidContentEncodingOrType", 1, "the hub refused"),
    (401_002, "IotHubUnauthorizedAccess", 8, "not authorised"),
    (401_003, "IotHubUnauthorized", 8, "not authorised"),
    (403_000, "GenericForbidden", 8, "not authorised"),
    (403_001, "IotHubSuspended", 1, "the hub refused"),
    (403_002, "IotHubQuotaExceeded", 1, "quota is used up"),
    (403_003, "JobQuotaExceeded", 1, "the hub refused"),
    (403_004, "DeviceMaximumQueueDepthExceeded", 1, "the hub refused"),
    (403_010, "OperationNotAvailableInCurrentTier", 1, "tier does not have this"),
    (403_012, "DeviceDisabled", 1, "the hub refused"),
    (404_001, "DeviceNotFound", 5, "no such device"),
    (404_002, "JobNotFound", 1, "the hub refused"),
    (404_010, "ModuleNotFound", 5, "no such module"),
    (404_103, "DeviceNotOnline", 4, "offline"),
    (404_104, "DeviceConnectionClosedRemotely", 4, "connection broke"),
    (409_001, "DeviceAlreadyExists", 1, "it exists already"),
    (409_301, "ModuleAlreadyExistsOnDevice", 1, "it exists already"),
    (412_001, "PreconditionFailed", 1, "changed meanwhile"),
    (412_002, "DeviceMessageLockLost", 1, "changed meanwhile"),
    (413_001, "MessageTooLarge", 1, "the hub refused"),
    (413_002, "TooManyDevices", 1, "the hub refused"),
    (429_001, "ThrottlingException", 9, "throttled"),
    (429_002, "ThrottleBacklogLimitExceeded", 9, "throttled"),
    (500_001, "ServerError", 1, "the hub failed"),
    (500_008, "GenericTimeout", 1, "the hub failed"),
    (503_001, "ServiceUnavailable", 1, "the hub failed"),
    (504_101, "GatewayTimeout", 6, "did not reply in time"),
];

#[test]
fn each_code_in_both_forms() {
    for (number, name, code, words) in CODES {
        let status = u16::try_from(number / 1000).unwrap();
        let inner = json!({
            "errorCode": number, "trackingId": "0-TimeStamp:11/22/2026 18:00:00", "message": "canned",
            "timestampUtc": "2026-11-22T18:00:00Z",
        });
        let nested = json!({"Message": inner.to_string(), "ExceptionMessage": ""});
        let tracking = "Tracking ID:0-G:0-TimeStamp:11/22/2026 18:00:00";
        let classic = json!({"Message": format!("ErrorCode:{name};canned"), "ExceptionMessage": tracking});
        for (body, shown) in [(nested, number.to_string()), (classic, name.to_owned())] {
            let run = run(HttpResponse::ok(body).status(status), &INVOKE);
            run.ends(code, &["iotdm-ctl: gw1: ", words, &shown, "\"canned\""]);
            assert_eq!(run.stderr.lines().count(), 1, "one sentence: {run:#?}");
        }
    }
}

#[test]
fn what_a_proxy_says_in_place_of_the_hub() {
    let page = HttpResponse::text("<html>Bad Gateway</html>");
    run(page.clone().status(502), &INVOKE).ends(1, &["gw1: the hub failed (hub localhost:", ": 502)"]);
    run(page.status(200), &INVOKE).ends(1, &["is not IoT Hub's", "is it a hub?"]);
}
