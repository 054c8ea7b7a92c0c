"""The official Node SDKs; what they do is in node/."""

import base64
import hashlib
import hmac
import os
import pathlib
import shutil
import subprocess

import pytest
from operators import enrol_group
from pyharness.process import PATIENCE
from pyharness.programs import program
from standard_hub import ADDRESS, standard_hub

HERE = pathlib.Path(__file__).parent / "node"
MODULES = os.environ.get("NODE_PATH")

pytestmark = pytest.mark.skipif(not MODULES or not shutil.which("node"), reason="left out: Node SDKs (no npm)")


@pytest.fixture
def hub(tmp_path):
    with standard_hub(tmp_path / "hub", https_port=443) as hub:
        yield hub


def node(hub, script, *arguments, **variables):
    environment = {
        **os.environ,
        "NODE_EXTRA_CA_CERTS": str(hub.ca_file),
        "EMULATOR": program("iotdm-emulator"),
        "EMULATOR_DATA": str(hub.data),
        "EMULATOR_HOST": ADDRESS,
        **variables,
    }
    ran = subprocess.run(
        ["node", str(HERE / script), *arguments], capture_output=True, text=True, env=environment, timeout=2 * PATIENCE
    )
    said = ran.stdout + ran.stderr + hub.log()[-4000:]
    assert ran.returncode == 0, said
    # Node also ends, and silently, when nothing is left that could settle what is awaited.
    assert ran.stdout.splitlines()[-1:] == [f"reached the end of {script}"], said


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
def test_a_device(hub, transport):
    node(hub, "device.js", transport)
    assert "session_present=true" in hub.log(), "it did not reconnect"


def test_an_operator(hub):
    node(hub, "operator.js")


def test_provisioning(hub):
    key = base64.b64encode(bytes(range(32))).decode()
    enrol_group(hub, "fleet", key)
    derived = hmac.new(base64.b64decode(key), b"cam1", hashlib.sha256).digest()
    node(hub, "provisioning.js", REGISTRATION_ID="cam1", DEVICE_KEY=base64.b64encode(derived).decode())
