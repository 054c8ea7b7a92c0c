"""The official SDK as the device's own application, and the daemon as a module beside it."""

import concurrent.futures
import os

import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, MethodResponse
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod
from pyharness.daemon import Daemon
from standard_hub import standard_hub

# A thousand take a few minutes.
CALLS = int(os.environ.get("IOTDM_MODULE_CALLS", "100"))


@pytest.fixture
def hub(tmp_path):
    with standard_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def registry(hub, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.ca_file))
    return IoTHubRegistryManager.from_connection_string(hub.service_string)


def connected(kind, file, ca):
    """A client of the SDK that answers each call with what it was called with."""
    client = kind.create_from_connection_string(file.read_text().strip(), server_verification_cert=ca)

    def handle(request):
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, request.payload))

    client.on_method_request_received = handle
    client.connect()
    return client


@pytest.fixture
def daemon(hub, tmp_path):
    hub.done("device", "create", "gw1", "--module", "iotdm")
    with Daemon(tmp_path / "daemon", hub.ca_file, hub.device_file("gw1~iotdm").read_text().strip()) as daemon:
        yield daemon


def test_the_application_and_the_daemon_are_called_beside_each_other(hub, registry, daemon):
    ca = hub.ca_file.read_text()
    hub.done("device", "create", "gw1", "--module", "other")
    application = connected(IoTHubDeviceClient, hub.device_file("gw1"), ca)
    other = connected(IoTHubModuleClient, hub.device_file("gw1~other"), ca)
    daemon.told("connected to .* as gw1/iotdm")
    hub.wait_for("device connected", 3)
    # A client of the SDK subscribes to methods after it has connected.
    for arguments in (("gw1",), ("gw1", "--module", "other")):
        hub.done("invoke", *arguments, "echo", "--payload", "0", "--connect-timeout", "10")

    def call_application(n):
        reply = registry.invoke_device_method("gw1", CloudToDeviceMethod(method_name="echo", payload=n))
        return (reply.status, reply.payload) == (200, n)

    def call_other(n):
        reply = registry.invoke_device_module_method("gw1", "other", CloudToDeviceMethod(method_name="echo", payload=n))
        return (reply.status, reply.payload) == (200, n)

    def call_daemon(n):
        method = CloudToDeviceMethod(method_name="rebootDevice", payload={"check": True, "id": f"r-{n}"})
        reply = registry.invoke_device_module_method("gw1", "iotdm", method)
        return (reply.status, reply.payload["status"], reply.payload["id"]) == (200, "checked", f"r-{n}")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call, n) for n in range(CALLS) for call in (call_application, call_daemon, call_other)]
        answered = [call.result() for call in calls]
    assert len(answered) == 3 * CALLS and all(answered)

    # Each has its twin, and none of them was ever disconnected.
    application.patch_twin_reported_properties({"who": "application"})
    other.patch_twin_reported_properties({"who": "other"})
    twins = [registry.get_twin("gw1"), registry.get_module_twin("gw1", "other"), registry.get_module_twin("gw1", "iotdm")]
    assert [twin.properties.reported.get("who") for twin in twins] == ["application", "other", None]
    assert "rebootDevice" in twins[2].properties.reported["agent"]["methods"]
    assert "device disconnected" not in hub.log()
    assert [text for _, text in daemon.notified if "not connected" in text] == []
    assert [twin.connection_state for twin in twins] == ["Connected"] * 3

    hub.done("reboot", "gw1", "--module", "iotdm", "--interval", "1s")
    assert hub.log().count("device disconnected") == 1, "the module alone went down"
    other.shutdown()
    application.shutdown()
