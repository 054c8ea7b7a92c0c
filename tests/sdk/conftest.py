"""What several tests start."""

import pytest
from azure.iot.hub import IoTHubRegistryManager
from pyharness.hub import Hub


@pytest.fixture
def hub(tmp_path):
    with Hub(tmp_path / "hub", "gw1", verbose=True) as hub:
        yield hub


@pytest.fixture
def registry(hub, monkeypatch):
    """The operator's SDK, trusting the hub's CA the way users do it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.ca_file))
    return IoTHubRegistryManager.from_connection_string(hub.service_string)
