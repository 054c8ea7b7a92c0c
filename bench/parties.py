"""The programs that are measured, started and stopped, and the emulator's REST interface."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

from pyharness.daemon import Daemon
from pyharness.hub import Hub
from pyharness.process import Process
from pyharness.programs import ROOT, TARGET

PEERS = Path(__file__).parent / "peers"
RELEASE = TARGET / "release"
LOAD = RELEASE / "iotdm-load"
# The version of the service's REST interface.
API = "api-version=2021-04-12"
TOPICS = ("$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#")
# In seconds, the daemon's default.
KEEP_ALIVE = 240


class MeasuredHub(Hub):
    """The emulator at the ports of a real hub, since the Node SDK takes no others; nobody reads its log."""

    def __init__(self, data: Path, *devices: str, host: str = "localhost", inside: tuple = (), options: tuple = ()) -> None:
        super().__init__(data, *devices, mqtt_port=8883, https_port=443, host=host, inside=inside, options=options,
                         stderr=subprocess.DEVNULL)

    def __enter__(self):
        self.start()
        self._local = threading.local()
        self._tls = ssl.create_default_context(cafile=str(self.ca_file))
        self.token = self.sas_token()
        return self

    def sas_token(self, *options: str) -> str:
        return self.done("sas-token", "--ttl", "24h", *options).strip()

    def send(self, method: str, path: str, body=None):
        """A request over a connection that is kept for each thread; the body of its response."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(self.host, context=self._tls, timeout=400)
            self._local.connection.connect()
            self._local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._local.connection
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        assert response.status < 300, f"{method} {path}: {response.status} {text}"
        return json.loads(text) if text else None

    def create_many(self, count: int) -> None:
        """The devices d0, d1 and so on."""
        for first in range(0, count, 100):
            self.send("POST", f"/devices?{API}", [{"id": f"d{n}"} for n in range(first, min(first + 100, count))])

    def invoke(self, device: str, method: str = "getRebootStatus", payload=None, connect_timeout: int = 0) -> dict:
        body = {"methodName": method, "payload": payload, "connectTimeoutInSeconds": connect_timeout,
                "responseTimeoutInSeconds": 60}
        return self.send("POST", f"/twins/{device}/methods?{API}", body)

    def fill(self, device: str, kib: int) -> None:
        """Makes the device's desired properties that large; a value has 4 KB at most."""
        desired = {f"k{n}": "x" * 1000 for n in range(kib)}
        self.send("PATCH", f"/twins/{device}?{API}", {"properties": {"desired": desired}})

    def drop(self, device: str) -> None:
        self.send("POST", "/emulator/faults", {"deviceId": device, "fault": "dropLink"})


class MeasuredDaemon(Daemon):
    """The daemon of a device of the hub, with the watchdog of its unit."""

    def __init__(self, home: Path, hub: Hub, device: str, settings: str = "", **options) -> None:
        if "bus" not in options:
            settings = f'reboot.simulate_duration = "1s"\n{settings}'
        super().__init__(home, hub.ca_file, hub.device_file(device).read_text(), settings, watchdog=WATCHDOG, **options)


def git(*arguments: str) -> str:
    # The clone may be another user's.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def watchdog_of_the_unit() -> int:
    """The watchdog's time of the shipped unit, in seconds."""
    unit = (ROOT / "packaging/systemd/iotdm-agentd.service").read_text()
    value, unit_name = re.search(r"^WatchdogSec=(\d+)(s|min)?", unit, re.M).groups()
    return int(value) * (60 if unit_name == "min" else 1)


WATCHDOG = watchdog_of_the_unit()


def echo(hub: Hub, device: str) -> Process:
    return Process([LOAD, "echo", hub.data, device])


def python_device(hub: Hub, device: str, libraries: Path | None = None) -> Process:
    return Process([sys.executable, PEERS / "device.py", hub.device_file(device), hub.ca_file], env=unshared(libraries))


def node_device(hub: Hub, device: str) -> Process:
    return Process(["node", PEERS / "device.js", hub.device_file(device)],
                   env=os.environ | {"NODE_EXTRA_CA_CERTS": str(hub.ca_file)})


def unshared(libraries: Path | None) -> dict[str, str]:
    """An environment with copies of libraries that others use, too, if there are such."""
    return os.environ | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})


def copy_libraries(folder: Path) -> Path:
    """Those of OpenSSL, which this program has in memory as well."""
    folder.mkdir()
    maps = Path("/proc/self/maps").read_text()
    for library in set(re.findall(r"(/\S*/lib(?:ssl|crypto)\.so\S*)", maps)):
        shutil.copy(library, folder)
    return folder


def mosquitto_sub(hub: MeasuredHub, device: str, inside: tuple = (), libraries: Path | None = None) -> Process:
    """With the subscriptions of the daemon; says "Subscribed" when the hub has acknowledged them."""
    token = hub.sas_token("--device", device)
    topics = [word for topic in TOPICS for word in ("-t", topic)]
    return Process([*inside, "mosquitto_sub", "-d", "-V", "mqttv311", "-h", hub.host, "-p", 8883, "--cafile", hub.ca_file,
                    "-i", device, "-c", "-q", "0", "-k", KEEP_ALIVE,
                    "-u", f"{hub.host}/{device}/?{API}", "-P", token, *topics], terminal=True, env=unshared(libraries))


def has_node() -> bool:
    return "NODE_PATH" in os.environ
