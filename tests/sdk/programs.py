"""The programs under test, started and stopped."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
DEADLINE = 60
# For SDKs that take no port and so need the standard ones: an address of its
# own keeps out of the way of whatever else runs here.
ADDRESS = "127.0.0.9"


def program(name):
    path = BUILT / name
    assert path.exists(), f"{path} is missing; build it with: cargo build --workspace"
    return str(path)


class Process:
    """A running program whose output is kept, line by line."""

    def __init__(self, arguments, **options):
        self.lines = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, pattern):
        """The match of the first line, past or to come, that has `pattern`."""

        def found():
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, timeout=DEADLINE)
            match = found()
        assert match, f"no {pattern!r} in:\n" + "\n".join(self.lines)
        return match

    def stop(self):
        """Ends it; returns its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=DEADLINE)


class Emulator(Process):
    """`iotdm-emulator serve` with a directory of its own."""

    def __init__(self, directory, *options):
        self.directory = pathlib.Path(directory)
        super().__init__(
            [program("iotdm-emulator"), "-v", "serve", "--data", str(directory), *options]
        )
        self.wait_for(r"^ready mqtts=\S+ https=\S+ data=")

    @property
    def ca_file(self):
        return self.directory / "ca.pem"

    @property
    def service_file(self):
        return self.directory / "service-connection-string"

    @property
    def service_string(self):
        return self.service_file.read_text().strip()

    def device_file(self, device):
        return self.directory / "devices" / device


@contextlib.contextmanager
def standard_emulator(directory, mqtt_port=8883, https_port=0):
    """An emulator at ADDRESS, where its standard ports are free; 0 takes any."""
    for port in (mqtt_port, https_port):
        try:
            socket.create_server((ADDRESS, port)).close()
        except PermissionError:
            pytest.skip(f"needs the right to listen on port {port}")
    ports = ["--mqtt-port", str(mqtt_port), "--https-port", str(https_port)]
    emulator = Emulator(directory, "--bind", ADDRESS, "--host", ADDRESS, *ports, "--device", "gw1")
    try:
        yield emulator
    finally:
        stopped = emulator.stop()
    assert stopped == 0
