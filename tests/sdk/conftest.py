"""What several tests start."""

import pytest
from azure.iot.hub import IoTHubRegistryManager

from programs import Emulator


@pytest.fixture
def emulator(tmp_path):
    emulator = Emulator(tmp_path / "hub", "--mqtt-port", "0", "--https-port", "0", "--device", "gw1")
    yield emulator
    assert emulator.stop() == 0


@pytest.fixture
def registry(emulator, monkeypatch):
    """The operator's SDK, trusting the emulator's CA the way users do it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(emulator.ca_file))
    return IoTHubRegistryManager.from_connection_string(emulator.service_string)
