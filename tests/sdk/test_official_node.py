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
from programs import ADDRESS, DEADLINE, program, standard_emulator

HERE = pathlib.Path(__file__).parent / "node"
MODULES = os.environ.get("NODE_PATH")

pytestmark = pytest.mark.skipif(not MODULES or not shutil.which("node"), reason="left out: Node SDKs (no npm)")


@pytest.fixture
def emulator(tmp_path):
    with standard_emulator(tmp_path / "hub", https_port=443) as emulator:
        yield emulator


def node(emulator, script, *arguments, **variables):
    environment = {
        **os.environ,
        "NODE_EXTRA_CA_CERTS": str(emulator.ca_file),
        "EMULATOR": program("iotdm-emulator"),
        "EMULATOR_DATA": str(emulator.directory),
        "EMULATOR_HOST": ADDRESS,
        **variables,
    }
    ran = subprocess.run(
        ["node", str(HERE / script), *arguments], capture_output=True, text=True, env=environment, timeout=2 * DEADLINE
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr + "\n".join(emulator.lines[-30:])


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
def test_a_device(emulator, transport):
    node(emulator, "device.js", transport)
    assert any("session_present=true" in line for line in emulator.lines), "it did not reconnect"


def test_an_operator(emulator):
    node(emulator, "operator.js")


def test_provisioning(emulator):
    key = base64.b64encode(bytes(range(32))).decode()
    enrol_group(emulator, "fleet", key)
    derived = hmac.new(base64.b64decode(key), b"cam1", hashlib.sha256).digest()
    node(emulator, "provisioning.js", REGISTRATION_ID="cam1", DEVICE_KEY=base64.b64encode(derived).decode())
