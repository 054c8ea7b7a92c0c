"""A hub for the SDKs that take no port and so need the standard ones."""

import contextlib
import socket
from pathlib import Path

import pytest
from pyharness.hub import Hub

# An address of its own keeps out of the way of whatever else runs here.
ADDRESS = "127.0.0.9"


@contextlib.contextmanager
def standard_hub(data: Path, mqtt_port: int = 8883, https_port: int = 0):
    """A hub at ADDRESS, where its standard ports are free; 0 takes any."""
    for port in (mqtt_port, https_port):
        try:
            socket.create_server((ADDRESS, port)).close()
        except PermissionError:
            pytest.skip(f"left out: needs the right to listen on port {port}, as root has it")
    with Hub(data, "gw1", mqtt_port=mqtt_port, https_port=https_port, host=ADDRESS, options=["--bind", ADDRESS],
             verbose=True) as hub:
        yield hub
