"""The device's model, before parsers that nobody here has written."""

import os
import pathlib
import shutil
import subprocess

import pytest
from pyharness.process import PATIENCE
from pyharness.programs import program

SCRIPT = pathlib.Path(__file__).parent / "node" / "model.js"
MODULES = os.environ.get("NODE_PATH")


@pytest.mark.skipif(not MODULES or not shutil.which("node"), reason="left out: parsers of DTDL (no npm)")
def test_two_parsers_take_the_model_and_refuse_broken_ones():
    environment = {**os.environ, "AGENT": program("iotdm-agentd")}
    ran = subprocess.run(
        ["node", str(SCRIPT)], capture_output=True, text=True, env=environment, timeout=2 * PATIENCE
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    # Node also ends, and silently, when nothing is left that could settle what is awaited.
    assert ran.stdout.splitlines()[-1:] == ["reached the end of model.js"], said
