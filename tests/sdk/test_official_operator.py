"""The official service SDK as the operator."""

import base64
import time

import pytest
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, QuerySpecification, Twin, TwinProperties
from msrest.exceptions import HttpOperationError
from pyharness.daemon import Daemon
from pyharness.process import PATIENCE

KEYS = [base64.b64encode(bytes([n] * 32)).decode() for n in range(2)]


@pytest.fixture
def daemon(hub, tmp_path):
    """Our daemon, which pretends to reboot."""
    string = hub.device_file("gw1").read_text()
    daemon = Daemon(tmp_path / "device", hub.ca_file, string, 'reboot.simulate_duration = "1s"')
    hub.wait_for("device connected")
    yield daemon
    assert daemon.stop() == 0, daemon.text()


def test_our_daemon_is_rebooted(hub, registry, daemon):
    call = CloudToDeviceMethod(
        method_name="rebootDevice",
        payload={"id": "req-1", "reason": "kernel update"},
        response_timeout_in_seconds=30,
        connect_timeout_in_seconds=30,
    )
    reply = registry.invoke_device_method("gw1", call)
    assert reply.status == 200, reply.payload
    assert reply.payload["id"] == "req-1" and reply.payload["status"] == "accepted"

    deadline = time.monotonic() + PATIENCE
    reported = {}
    while reported.get("reboot", {}).get("status") != "completed":
        assert time.monotonic() < deadline, f"{reported}\n" + daemon.text()
        time.sleep(0.2)  # the twin has to be polled; the service side has no notification
        reported = registry.get_twin("gw1").properties.reported
    assert reported["reboot"]["id"] == "req-1"
    assert reported["reboot"]["reason"] == "kernel update"
    assert reported["reboot"]["bootId"] != reported["reboot"]["previousBootId"]
    assert reported["rebootTime"].endswith("Z")
    assert "rebootTime" in reported["$metadata"]

    unknown = registry.invoke_device_method("gw1", CloudToDeviceMethod(method_name="levitate", payload={}))
    assert unknown.status == 404 and unknown.payload["error"]["code"] == "unknownMethod"


def test_identities(hub, registry):
    created = registry.create_device_with_sas("sensor*1", KEYS[0], KEYS[1], "enabled", status_reason="new")
    assert created.authentication.symmetric_key.primary_key == KEYS[0]
    assert KEYS[0] in hub.device_file("sensor*1").read_text()
    with pytest.raises(HttpOperationError) as refusal:
        registry.create_device_with_sas("sensor*1", KEYS[0], KEYS[1], "enabled")
    assert refusal.value.response.status_code == 409

    generated = registry.create_device_with_sas("sensor2", "", "", "enabled")
    assert len(base64.b64decode(generated.authentication.symmetric_key.primary_key)) == 32

    updated = registry.update_device_with_sas("sensor*1", created.etag, KEYS[1], KEYS[0], "disabled")
    assert updated.status == "disabled" and updated.etag != created.etag
    with pytest.raises(HttpOperationError) as refusal:
        registry.update_device_with_sas("sensor*1", created.etag, KEYS[1], KEYS[0], "enabled")
    assert refusal.value.response.status_code == 412

    assert [device.device_id for device in registry.get_devices()] == ["gw1", "sensor*1", "sensor2"]
    statistics = registry.get_device_registry_statistics()
    assert (statistics.total_device_count, statistics.disabled_device_count) == (3, 1)

    registry.delete_device("sensor*1")
    assert not hub.device_file("sensor*1").exists()
    with pytest.raises(HttpOperationError) as refusal:
        registry.get_device("sensor*1")
    assert refusal.value.response.status_code == 404


def test_twins(registry):
    twin = registry.get_twin("gw1")
    patch = Twin(tags={"site": "a"}, properties=TwinProperties(desired={"interval": 5, "mode": "x"}))
    updated = registry.update_twin("gw1", patch, twin.etag)
    assert updated.tags == {"site": "a"}
    assert updated.properties.desired["interval"] == 5
    assert updated.properties.desired["$metadata"]["interval"]["$lastUpdatedVersion"] == 2
    with pytest.raises(HttpOperationError) as refusal:
        registry.update_twin("gw1", patch, twin.etag)
    assert refusal.value.response.status_code == 412

    replacement = Twin(properties=TwinProperties(desired={"mode": "y"}))
    replaced = registry.replace_twin("gw1", replacement, updated.etag)
    assert "interval" not in replaced.properties.desired
    assert replaced.properties.desired["$version"] == 3
    assert not replaced.tags, "what a replacement does not name is gone"
    # A twin that was read can be sent back as it is.
    again = registry.replace_twin("gw1", registry.get_twin("gw1"), replaced.etag)
    assert again.properties.desired["mode"] == "y" and not again.tags


def test_queries_in_pages(registry):
    for n in range(5):
        registry.create_device_with_sas(f"d{n}", "", "", "enabled")
        registry.update_twin(f"d{n}", Twin(tags={"n": n}))
    query = QuerySpecification(query="SELECT * FROM devices WHERE tags.n >= 1 AND NOT deviceId IN ['d3']")
    found, token = [], None
    while True:
        page = registry.query_iot_hub(query, token, 2)
        assert len(page.items) <= 2
        found += [twin.device_id for twin in page.items]
        token = page.continuation_token
        if not token:
            break
    assert found == ["d1", "d2", "d4"]
    with pytest.raises(HttpOperationError) as refusal:
        registry.query_iot_hub(QuerySpecification(query="SELECT nonsense"))
    assert refusal.value.response.status_code == 400


def test_offline_and_unknown_devices_and_a_wrong_key(hub, registry):
    call = CloudToDeviceMethod(method_name="rebootDevice", payload={})
    for device in ["gw1", "nobody"]:
        with pytest.raises(HttpOperationError) as refusal:
            registry.invoke_device_method(device, call)
        assert refusal.value.response.status_code == 404

    key = hub.service_string.split("SharedAccessKey=")[1]
    wrong = hub.service_string.replace(key, KEYS[0])
    with pytest.raises(HttpOperationError) as refusal:
        IoTHubRegistryManager.from_connection_string(wrong).get_twin("gw1")
    assert refusal.value.response.status_code == 401
