"""The official device SDK as a device, `iotdm-ctl` as the operator."""

import datetime
import pathlib
import subprocess
import sys

import pytest
from azure.iot.device import IoTHubDeviceClient
from pyharness.hub import Hub
from pyharness.process import Process
from standard_hub import standard_hub

DEVICE_PROGRAM = pathlib.Path(__file__).with_name("reboot_device.py")


@pytest.fixture
def hub(tmp_path):
    with standard_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def device(hub):
    arguments = [sys.executable, str(DEVICE_PROGRAM), str(hub.device_file("gw1")), str(hub.ca_file)]
    device = Process(arguments, stdin=subprocess.PIPE)
    device.wait_for("waiting for commands")
    # The SDK subscribes to methods after it has connected.
    hub.wait_for("device connected")
    yield device
    device.stop()


def test_the_tutorials_program_is_rebooted_by_iotdm_ctl(hub, device):
    before = datetime.datetime.now(datetime.UTC)
    rebooted = hub.ctl("reboot", "gw1", "--reason", "kernel update", "--interval", "1s", "--connect-timeout", "10")
    assert rebooted.returncode == 0, rebooted.stdout + rebooted.stderr
    assert "kernel update" in device.wait_for("received rebootDevice: (.*)").match[1]
    reported = device.wait_for("reported rebootTime: (.*)").match[1]
    assert datetime.datetime.fromisoformat(reported) >= before
    assert reported[:19] in rebooted.stdout, rebooted.stdout

    refused = hub.ctl("invoke", "gw1", "levitate")
    assert refused.returncode == 3, refused.stdout + refused.stderr


def test_twin_and_telemetry_of_the_official_device(hub):
    client = IoTHubDeviceClient.create_from_connection_string(
        hub.device_file("gw1").read_text().strip(), server_verification_cert=hub.ca_file.read_text()
    )
    try:
        assert client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        client.patch_twin_reported_properties({"a": {"b": [1, "x", True]}, "c": 1})
        client.patch_twin_reported_properties({"c": None})
        assert client.get_twin()["reported"] == {"a": {"b": [1, "x", True]}, "$version": 3}
        client.send_message("hello")  # returns once it is acknowledged
        hub.wait_for(r"devices/gw1/messages/events/\S* .*hello")
        with pytest.raises(Exception) as refusal:
            client.patch_twin_reported_properties({"no.dots": 1})
        assert "400" in f"{refusal.value} {refusal.value.__cause__}"
    finally:
        client.shutdown()


def test_methods_arrive_after_a_dropped_link(hub, device):
    """The SDK does not subscribe again: it relies on the hub's session."""
    hub.fault("set", "gw1", "drop-link")
    hub.wait_for("device connected.*session_present=true")
    invoked = hub.ctl("invoke", "gw1", "rebootDevice", "--connect-timeout", "30")
    assert invoked.returncode == 0, invoked.stdout + invoked.stderr
    device.wait_for("reported rebootTime")


def test_over_websocket(tmp_path):
    """The SDK's other transport has a fixed port as well: 443."""
    with standard_hub(tmp_path / "hub", mqtt_port=0, https_port=443) as hub:
        # Without the gateway part, which is about the other transport's port.
        text = hub.device_file("gw1").read_text().strip().partition(";GatewayHostName=")[0]
        client = IoTHubDeviceClient.create_from_connection_string(
            text, server_verification_cert=hub.ca_file.read_text(), websockets=True
        )
        client.patch_twin_reported_properties({"over": "websocket"})
        assert client.get_twin()["reported"] == {"over": "websocket", "$version": 2}
        client.shutdown()


def test_a_wrong_key_and_a_wrong_ca_are_refused(hub, tmp_path):
    text = hub.device_file("gw1").read_text().strip()
    key = text.split("SharedAccessKey=")[1]
    wrong = text.replace(key, "d3JvbmcgYXMgY2FuIGJlLCBidXQgYmFzZTY0IGFsbCA=")
    client = IoTHubDeviceClient.create_from_connection_string(
        wrong, server_verification_cert=hub.ca_file.read_text()
    )
    with pytest.raises(Exception) as refusal:
        client.connect()
    assert type(refusal.value).__name__ == "CredentialError", repr(refusal.value)
    client.shutdown()

    with Hub(tmp_path / "other") as other:
        client = IoTHubDeviceClient.create_from_connection_string(
            text, server_verification_cert=other.ca_file.read_text()
        )
        with pytest.raises(Exception) as refusal:
            client.connect()
        assert type(refusal.value.__cause__).__name__ == "TlsExchangeAuthError", repr(refusal.value)
        client.shutdown()
    # The hub says so of a device that it lets in, see above.
    assert "device connected" not in hub.log()
