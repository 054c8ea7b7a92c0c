"""The official device SDK as a device, `iotdm-ctl` as the operator."""

import datetime
import pathlib
import subprocess
import sys

import pytest
from azure.iot.device import IoTHubDeviceClient

from programs import DEADLINE, Emulator, Process, program, standard_emulator

DEVICE_PROGRAM = pathlib.Path(__file__).with_name("reboot_device.py")


@pytest.fixture
def emulator(tmp_path):
    with standard_emulator(tmp_path / "hub") as emulator:
        yield emulator


@pytest.fixture
def device(emulator):
    arguments = [sys.executable, str(DEVICE_PROGRAM), str(emulator.device_file("gw1")), str(emulator.ca_file)]
    device = Process(arguments, stdin=subprocess.PIPE)
    device.wait_for("waiting for commands")
    # The SDK subscribes to methods after it has connected.
    emulator.wait_for("device connected")
    yield device
    device.stop()


def ctl(emulator, *arguments):
    hub = ["--connection-string-file", str(emulator.service_file), "--ca-file", str(emulator.ca_file)]
    return subprocess.run(
        [program("iotdm-ctl"), *hub, *arguments], capture_output=True, text=True, timeout=DEADLINE
    )


def test_the_tutorials_program_is_rebooted_by_iotdm_ctl(emulator, device):
    before = datetime.datetime.now(datetime.timezone.utc)
    rebooted = ctl(emulator, "reboot", "gw1", "--reason", "kernel update", "--interval", "1s", "--connect-timeout", "10")
    assert rebooted.returncode == 0, rebooted.stdout + rebooted.stderr
    assert "kernel update" in device.wait_for("received rebootDevice: (.*)").group(1)
    reported = device.wait_for("reported rebootTime: (.*)").group(1)
    assert datetime.datetime.fromisoformat(reported) >= before
    assert reported[:19] in rebooted.stdout, rebooted.stdout

    refused = ctl(emulator, "invoke", "gw1", "levitate")
    assert refused.returncode == 3, refused.stdout + refused.stderr


def test_twin_and_telemetry_of_the_official_device(emulator):
    client = IoTHubDeviceClient.create_from_connection_string(
        emulator.device_file("gw1").read_text().strip(), server_verification_cert=emulator.ca_file.read_text()
    )
    try:
        assert client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        client.patch_twin_reported_properties({"a": {"b": [1, "x", True]}, "c": 1})
        client.patch_twin_reported_properties({"c": None})
        assert client.get_twin()["reported"] == {"a": {"b": [1, "x", True]}, "$version": 3}
        client.send_message("hello")  # returns once it is acknowledged
        emulator.wait_for(r"devices/gw1/messages/events/\S* .*hello")
        with pytest.raises(Exception) as refusal:
            client.patch_twin_reported_properties({"no.dots": 1})
        assert "400" in f"{refusal.value} {refusal.value.__cause__}"
    finally:
        client.shutdown()


def test_methods_arrive_after_a_dropped_link(emulator, device):
    """The SDK does not subscribe again: it relies on the hub's session."""
    dropped = subprocess.run(
        [program("iotdm-emulator"), "fault", "set", "gw1", "drop-link", "--data", str(emulator.directory)],
        timeout=DEADLINE,
    )
    assert dropped.returncode == 0
    emulator.wait_for("device connected.*session_present=true")
    invoked = ctl(emulator, "invoke", "gw1", "rebootDevice", "--connect-timeout", "30")
    assert invoked.returncode == 0, invoked.stdout + invoked.stderr
    device.wait_for("reported rebootTime")


def test_over_websocket(tmp_path):
    """The SDK's other transport has a fixed port as well: 443."""
    with standard_emulator(tmp_path / "hub", mqtt_port=0, https_port=443) as emulator:
        # Without the gateway part, which is about the other transport's port.
        text = emulator.device_file("gw1").read_text().strip().partition(";GatewayHostName=")[0]
        client = IoTHubDeviceClient.create_from_connection_string(
            text, server_verification_cert=emulator.ca_file.read_text(), websockets=True
        )
        client.patch_twin_reported_properties({"over": "websocket"})
        assert client.get_twin()["reported"] == {"over": "websocket", "$version": 2}
        client.shutdown()


def test_a_wrong_key_and_a_wrong_ca_are_refused(emulator, tmp_path):
    text = emulator.device_file("gw1").read_text().strip()
    key = text.split("SharedAccessKey=")[1]
    wrong = text.replace(key, "d3JvbmcgYXMgY2FuIGJlLCBidXQgYmFzZTY0IGFsbCA=")
    client = IoTHubDeviceClient.create_from_connection_string(
        wrong, server_verification_cert=emulator.ca_file.read_text()
    )
    with pytest.raises(Exception) as refusal:
        client.connect()
    assert type(refusal.value).__name__ == "CredentialError", repr(refusal.value)
    client.shutdown()

    other = Emulator(tmp_path / "other", "--mqtt-port", "0", "--https-port", "0")
    try:
        client = IoTHubDeviceClient.create_from_connection_string(
            text, server_verification_cert=other.ca_file.read_text()
        )
        with pytest.raises(Exception) as refusal:
            client.connect()
        assert type(refusal.value.__cause__).__name__ == "TlsExchangeAuthError", repr(refusal.value)
        client.shutdown()
    finally:
        other.stop()
    assert not any("device connected" in line for line in emulator.lines)
