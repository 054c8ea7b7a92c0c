"""The requests that Microsoft's Azure CLI makes with its IoT extension (`az iot …`), which is no package of Python's index:
their paths, versions, headers and bodies as its generated clients write them (github.com/Azure/azure-iot-cli-extension,
0.25.0), and what it takes from the answers."""

import base64
import hashlib
import hmac
import time
import urllib.parse
import uuid

import pytest
import requests
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, MethodResponse
from standard_hub import standard_hub

HUB_API, DPS_API = "2024-03-31", "2021-10-01"


class Cli:
    """One policy of a hub, with the headers of each request of the CLI's."""

    def __init__(self, hub, policy, api):
        text = (hub.data / "policies" / policy).read_text().strip()
        parts = dict(part.split("=", 1) for part in text.split(";"))
        self.host, self.api, self.hub = parts["HostName"], api, hub
        resource, expiry = urllib.parse.quote(self.host, safe=""), int(time.time()) + 600
        mac = hmac.new(base64.b64decode(parts["SharedAccessKey"]), f"{resource}\n{expiry}".encode(), hashlib.sha256)
        signature = urllib.parse.quote(base64.b64encode(mac.digest()).decode(), safe="")
        self.token = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"

    def send(self, method, path, body=None, expected=(200,), query="", **headers):
        sent = {"Content-Type": "application/json; charset=utf-8", "x-ms-client-request-id": str(uuid.uuid1()),
                "accept-language": "en-US", "Accept": "application/json", "Authorization": self.token}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = requests.request(method, f"https://{self.host}{path}?api-version={self.api}{query}", json=body,
                                  headers=sent, verify=str(self.hub.ca_file), timeout=60)
        assert answer.status_code in expected, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def get(self, path, **options):
        return self.send("GET", path, **options).json()

    def query(self, path, body, top=None):
        """All pages, as the CLI asks for them."""
        rows, headers = [], {"Cache_Control": "no-cache, must-revalidate"}
        if top:
            headers["x_ms_max_item_count"] = str(top)
        while True:
            answer = self.send("POST" if body is not None else "GET", path, body, **headers)
            rows += answer.json()
            token = answer.headers.get("x-ms-continuation")
            if not token or (top and len(rows) >= top):
                return rows
            headers["x_ms_continuation"] = token


@pytest.fixture
def cli(hub):
    return Cli(hub, "iothubowner", HUB_API)


@pytest.fixture
def dps(hub):
    return Cli(hub, "provisioningserviceowner", DPS_API)


def new(id_, **fields):
    return {"deviceId": id_, "status": "enabled", "capabilities": {"iotEdge": False},
            "authentication": {"symmetricKey": {}, "type": "sas"}} | fields


def test_identities_and_keys(cli):
    # az iot hub device-identity create, in each kind of authentication
    made = cli.send("PUT", "/devices/d1", new("d1", statusReason="new")).json()
    keys = made["authentication"]["symmetricKey"]
    assert keys["primaryKey"] and keys["secondaryKey"] and made["statusReason"] == "new"
    thumbprints = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "A" * 40}}
    cli.send("PUT", "/devices/d2", new("d2", authentication=thumbprints))
    cli.send("PUT", "/devices/d3", new("d3", authentication={"type": "certificateAuthority"}))
    assert cli.send("PUT", "/devices/d1", new("d1"), expected=(409,)).headers["iothub-errorcode"] == "DeviceAlreadyExists"
    # update: what show has given, with the etag in quotes, or * in quotes
    shown = cli.get("/devices/d1")
    changed = new("d1", etag="*", status="disabled", authentication=shown["authentication"])
    assert cli.send("PUT", "/devices/d1", changed, If_Match='"*"').json()["status"] == "disabled"
    changed["etag"] = shown["etag"]
    cli.send("PUT", "/devices/d1", changed, expected=(412,), If_Match=f'"{shown["etag"]}"')
    # renew-key swap
    shown = cli.get("/devices/d1")
    swapped = shown["authentication"]["symmetricKey"]
    swapped["primaryKey"], swapped["secondaryKey"] = swapped["secondaryKey"], swapped["primaryKey"]
    after = cli.send("PUT", "/devices/d1", shown, If_Match='"*"').json()["authentication"]["symmetricKey"]
    assert (after["primaryKey"], after["secondaryKey"]) == (keys["secondaryKey"], keys["primaryKey"])
    # renew-key primary, of one and of a module
    cli.send("PUT", "/devices/d1/modules/m", {"deviceId": "d1", "moduleId": "m", "authentication": {"symmetricKey": {}, "type": "sas"}})
    for item, path in (({"id": "d1"}, "/devices/d1"), ({"id": "d1", "moduleId": "m"}, "/devices/d1/modules/m")):
        before = cli.get(path)["authentication"]["symmetricKey"]
        result = cli.send("POST", "/devices/keys/regenerate", {"policyKey": "primaryKey", "devices": [item]}).json()
        now = cli.get(path)["authentication"]["symmetricKey"]
        assert now["primaryKey"] != before["primaryKey"] and now["secondaryKey"] == before["secondaryKey"]
        assert result["policyKey"] == "primaryKey" and not result["errors"], result
        assert [one["id"] for one in result["rotatedKeys"]] == ["d1"]
    assert len(cli.get("/devices/d1/modules")) == 1
    # list is a query; delete asks for nothing with its *
    assert len(cli.query("/devices/query", {"query": "select * from devices"}, top=2)) == 2
    for path in ("/devices/d1/modules/m", "/devices/d1", "/devices/d2", "/devices/d3"):
        assert cli.send("DELETE", path, expected=(204,), If_Match='"*"').content == b""
    assert cli.send("GET", "/devices/d1", expected=(404,)).headers["iothub-errorcode"] == "DeviceNotFound"


def test_parents_and_children(cli):
    edge = cli.send("PUT", "/devices/e1", new("e1", capabilities={"iotEdge": True}, parentScopes=[])).json()
    assert edge["deviceScope"].startswith("ms-azure-iot-edge://e1-")
    cli.send("PUT", "/devices/leaf", new("leaf"))
    # children add, parent set
    leaf = cli.get("/devices/leaf") | {"deviceScope": edge["deviceScope"]}
    cli.send("PUT", "/devices/leaf", leaf, If_Match=f'"{leaf["etag"]}"')
    # parent show reads the name out of the scope; children list asks for it
    scope = cli.get("/devices/leaf")["parentScopes"][0]
    assert scope[len("ms-azure-iot-edge://"):scope.rindex("-")] == "e1"
    rows = cli.query("/devices/query", {"query": f"select deviceId from devices where array_contains(parentScopes, '{scope}')"})
    assert rows == [{"deviceId": "leaf"}]
    # children remove
    leaf = cli.get("/devices/leaf") | {"deviceScope": ""}
    cli.send("PUT", "/devices/leaf", leaf, If_Match=f'"{leaf["etag"]}"')
    assert not cli.get("/devices/leaf").get("parentScopes")


def test_twins_of_devices_and_modules(cli):
    cli.send("PUT", "/devices/d1", new("d1"))
    cli.send("PUT", "/devices/d1/modules/m", {"deviceId": "d1", "moduleId": "m", "authentication": {"symmetricKey": {}, "type": "sas"}})
    for path in ("/twins/d1", "/twins/d1/modules/m"):
        # device-twin update sends the twin as it was shown, with what is to change
        twin = cli.get(path)
        twin["properties"]["desired"]["interval"] = 7
        twin["tags"] = {"site": "a"}
        updated = cli.send("PATCH", path, twin, If_Match='"*"').json()
        assert updated["properties"]["desired"]["interval"] == 7 and updated["tags"] == {"site": "a"}
        stale = twin["etag"]
        cli.send("PATCH", path, {"tags": {"site": "b"}}, expected=(412,), If_Match=f'"{stale}"')
        cli.send("PATCH", path, {"tags": {"site": None}}, If_Match=f'"{updated["etag"]}"')
        # device-twin replace
        replaced = cli.send("PUT", path, {"properties": {"desired": {"other": 1}}}, If_Match='"*"').json()
        desired = {key: value for key, value in replaced["properties"]["desired"].items() if key[0] != "$"}
        assert desired == {"other": 1} and "tags" not in replaced
    rows = cli.query("/devices/query", {"query": "select * from devices.modules where devices.deviceId='d1'"})
    assert [row["moduleId"] for row in rows] == ["m"]


@pytest.mark.parametrize(("kind", "path", "file"), [
    (IoTHubDeviceClient, "/twins/gw1/methods", "gw1"),
    # az iot hub invoke-module-method
    (IoTHubModuleClient, "/twins/gw1/modules/m/methods", "gw1~m"),
])
def test_methods(tmp_path, kind, path, file):
    with standard_hub(tmp_path / "standard") as hub:
        cli = Cli(hub, "iothubowner", HUB_API)
        cli.send("PUT", "/devices/gw1/modules/m", {"deviceId": "gw1", "moduleId": "m", "authentication": {"symmetricKey": {}, "type": "sas"}})
        client = kind.create_from_connection_string(
            hub.device_file(file).read_text().strip(), server_verification_cert=hub.ca_file.read_text())
        client.on_method_request_received = lambda request: client.send_method_response(
            MethodResponse.create_from_method_request(request, 200, {"got": request.payload}))
        try:
            client.connect()
            body = {"methodName": "m", "payload": {"a": 1}, "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 30}
            assert cli.send("POST", path, body).json() == {"status": 200, "payload": {"got": {"a": 1}}}
            body["payload"] = None
            assert cli.send("POST", path, body).json()["payload"] == {"got": None}
            # az iot hub query: pages of the size that --top asks for, of devices and of modules
            where = "where deviceId = 'gw1' and connectionState = 'Connected'"
            source = "devices" if kind is IoTHubDeviceClient else "devices.modules"
            rows = cli.query("/devices/query", {"query": f"select * from {source} {where}"}, top=1)
            assert [(row["deviceId"], row.get("moduleId")) for row in rows] == [("gw1", None if source == "devices" else "m")]
        finally:
            client.shutdown()
        body |= {"responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 0}
        assert cli.send("POST", path, body, expected=(404,)).headers["iothub-errorcode"] == "DeviceNotOnline"


@pytest.mark.parametrize(("path", "code"), [("/twins/no/methods", "DeviceNotFound"), ("/twins/gw1/modules/no/methods", "ModuleNotFound")])
def test_a_method_of_nobody(cli, path, code):
    body = {"methodName": "m", "payload": {}, "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 0}
    assert cli.send("POST", path, body, expected=(404,)).headers["iothub-errorcode"] == code


def ended(cli, id_):
    while (job := cli.get(f"/jobs/v2/{id_}"))["status"] not in ("completed", "failed", "cancelled"):
        time.sleep(0.2)  # as the CLI itself waits, in seconds
    return job


def test_jobs(cli):
    # job create, with a condition for all
    patch = {"tags": {"job": "1"}, "etag": "*"}
    body = {"jobId": "j1", "type": "scheduleUpdateTwin", "updateTwin": patch, "queryCondition": "*", "maxExecutionTimeInSeconds": 3600}
    assert cli.send("PUT", "/jobs/v2/j1", body).json()["jobId"] == "j1"
    assert ended(cli, "j1")["status"] == "completed"
    assert cli.get("/twins/gw1")["tags"] == {"job": "1"}
    method = {"methodName": "m", "payload": {}, "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 30}
    later = {"jobId": "j2", "type": "scheduleDeviceMethod", "cloudToDeviceMethod": method, "queryCondition": "deviceId='gw1'",
             "startTime": "2099-01-01T00:00:00.000Z", "maxExecutionTimeInSeconds": 3600}
    assert cli.send("PUT", "/jobs/v2/j2", later).json()["status"] in ("queued", "scheduled")
    # job list, of both kinds of jobs, and job cancel, which reads the answer as JSON
    listed = cli.query("/jobs/v2/query", None)
    assert {job["jobId"] for job in listed} == {"j1", "j2"}
    some = cli.send("GET", "/jobs/v2/query", query="&jobType=scheduleUpdateTwin&jobStatus=completed").json()
    assert [job["jobId"] for job in some] == ["j1"]
    assert cli.get("/jobs") == []
    assert cli.send("POST", "/jobs/v2/j2/cancel").json()["jobId"] == "j2"
    assert ended(cli, "j2")["status"] == "cancelled"


def test_configurations(cli):
    queries = {"queries": {"all": "select deviceId from devices"}}
    body = {"id": "c1", "schemaVersion": "2.0", "labels": {"for": "test"}, "content": {"deviceContent": {"properties.desired.a": 1}},
            "metrics": queries, "targetCondition": "deviceId='gw1'", "priority": 3, "etag": "*"}
    made = cli.send("PUT", "/configurations/c1", body, expected=(200, 201)).json()
    assert made["labels"] == {"for": "test"} and made["priority"] == 3
    # update: what show has given
    shown = cli.get("/configurations/c1")
    fields = ("id", "schemaVersion", "labels", "content", "metrics", "targetCondition", "priority")
    changed = {name: shown[name] for name in fields} | {"priority": 5}
    assert cli.send("PUT", "/configurations/c1", changed, If_Match='"*"').json()["priority"] == 5
    cli.send("PUT", "/configurations/c1", changed, expected=(412,), If_Match=f'"{shown["etag"]}"')
    # list, and show-metric, which puts the metric's query itself
    assert [one["id"] for one in cli.get("/configurations")] == ["c1"]
    assert cli.query("/devices/query", {"query": shown["metrics"]["queries"]["all"]}) == [{"deviceId": "gw1"}]
    assert shown["systemMetrics"]["queries"]["targetedCount"].lower().startswith("select deviceid from devices where")
    cli.send("DELETE", "/configurations/c1", expected=(204,), If_Match='"*"')
    # iot edge set-modules is not there, and says so
    content = {"content": {"modulesContent": {}}}
    assert "not emulated" in cli.send("POST", "/devices/gw1/applyConfigurationContent", content, expected=(501,)).text


def test_enrolments(hub, dps):
    symmetric = {"type": "symmetricKey", "symmetricKey": {}}
    single = {"registrationId": "r1", "attestation": symmetric, "capabilities": {"iotEdge": False}, "provisioningStatus": "enabled",
              "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True}, "deviceId": "dev1",
              "initialTwin": {"tags": {"site": "a"}, "properties": {"desired": {"interval": 7}}}}
    group = {"enrollmentGroupId": "g1", "attestation": symmetric, "provisioningStatus": "enabled",
             "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False}, "allocationPolicy": "hashed"}
    for collection, id_, body in (("enrollments", "r1", single), ("enrollmentGroups", "g1", group)):
        path = f"/{collection}/{id_}"
        made = dps.send("PUT", path, body).json()
        assert made["etag"] and made["provisioningStatus"] == "enabled"
        assert made["reprovisionPolicy"] == body["reprovisionPolicy"]
        # show hides the keys, --show-keys asks for them
        shown = dps.get(path)
        keys = dps.send("POST", f"{path}/attestationmechanism").json()
        assert keys["type"] == "symmetricKey" and keys["symmetricKey"]["primaryKey"]
        # update writes back what was shown, with those keys and If-Match without quotes
        changed = shown | {"attestation": keys, "provisioningStatus": "disabled"}
        after = dps.send("PUT", path, changed, If_Match="*").json()
        assert after["provisioningStatus"] == "disabled"
        assert dps.send("POST", f"{path}/attestationmechanism").json() == keys
        dps.send("PUT", path, changed, expected=(412,), If_Match=shown["etag"])
        rows = dps.query(f"/{collection}/query", {"query": "SELECT *"})
        assert len(rows) == 1
        dps.send("DELETE", path, expected=(204,), If_Match="*")
        missing = dps.send("GET", path, expected=(404,)).json()
        assert missing["errorCode"] in (404201, 404204) and missing["message"]
    assert "not emulated" in dps.send("POST", "/registrations/g1/query", {}, expected=(501,)).text
