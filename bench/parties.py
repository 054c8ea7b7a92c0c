"""The programs that are measured, started and stopped, and the emulator's REST interface."""

import contextlib
import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).parent / "peers"
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
LOAD = RELEASE / "iotdm-load"
# Replaced by --programs.
PROGRAMS = {"dir": RELEASE}
PATIENCE = 60
API = "api-version=2021-04-12"
TOPICS = ("$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#")
KEEP_ALIVE = 240


def program(name: str) -> str:
    return str(PROGRAMS["dir"] / name)


class Process:
    """A running program whose lines are kept with the time at which they came, in seconds of the monotonic clock."""

    def __init__(self, command: list, terminal: bool = False, **options) -> None:
        self.lines: list[tuple[float, str]] = []
        self._news = threading.Condition()
        # On a terminal, programs give each line as it comes.
        ours, theirs = pty.openpty() if terminal else os.pipe()
        self.started = time.monotonic()
        self._process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=theirs,
                                         stderr=options.pop("stderr", theirs), **options)
        os.close(theirs)
        self.pid = self._process.pid
        threading.Thread(target=self._read, args=[ours], daemon=True).start()

    def _read(self, source: int) -> None:
        rest = b""
        with contextlib.suppress(OSError):  # How a terminal ends.
            while news := os.read(source, 65536):
                now = time.monotonic()
                *whole, rest = (rest + news).split(b"\n")
                with self._news:
                    self.lines += [(now, line.decode(errors="replace").rstrip()) for line in whole]
                    self._news.notify_all()
        os.close(source)

    def wait_for(self, pattern: str, nth: int = 1, patience: float = PATIENCE) -> tuple[float, re.Match]:
        """When the nth line with `pattern` came, and its match."""

        def found():
            matches = ((at, re.search(pattern, line)) for at, line in self.lines)
            return [(at, match) for at, match in matches if match][nth - 1:nth]

        with self._news:
            assert self._news.wait_for(found, patience), \
                f"no {pattern!r} from {self._process.args}: {self.lines[-20:]}"
            return found()[0]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self.stop()


class Emulator(Process):
    """`iotdm-emulator serve` at the ports of a real hub, since the Node SDK takes no others."""

    def __init__(self, data: Path, *devices: str, host: str = "localhost", inside: tuple = (), options: tuple = ()) -> None:
        self.data, self.host = data, host
        names = [word for device in devices for word in ("--device", device)]
        super().__init__([*inside, program("iotdm-emulator"), "serve", "--host", host, "--https-port", 443, "--data", data, *names, *options],
                         stderr=subprocess.DEVNULL)
        self.ready_at, _ = self.wait_for("^ready ")
        self.ca = data / "ca.pem"
        self.service_file = data / "service-connection-string"
        self.ctl = [*inside, program("iotdm-ctl"), "--connection-string-file", self.service_file, "--ca-file", self.ca]
        self._local = threading.local()
        self._tls = ssl.create_default_context(cafile=str(self.ca))
        self.token = self.sas_token()

    def sas_token(self, *options: str) -> str:
        command = [*self.ctl, "sas-token", "--ttl", "24h", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def device_file(self, device: str) -> Path:
        return self.data / "devices" / device

    def send(self, method: str, path: str, body=None):
        """A request over a connection that is kept for each thread; the body of its answer."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(self.host, context=self._tls, timeout=400)
            self._local.connection.connect()
            self._local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._local.connection
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
        return json.loads(text) if text else None

    def create(self, count: int) -> None:
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


class Daemon(Process):
    """`iotdm-agentd` as its unit starts it: told of readiness and of the watchdog by systemd's socket."""

    def __init__(self, home: Path, hub: Emulator, device: str, config: str = "", bus: str | None = None,
                 inside: tuple = (), binary: Path | None = None) -> None:
        home.mkdir(exist_ok=True)
        self.notified: list[tuple[float, str]] = []
        self._heard = threading.Condition()
        string = home / "connection-string"
        string.touch(0o600)
        string.write_text(hub.device_file(device).read_text())
        backend = "" if bus else 'reboot.backend = "simulate"\nreboot.simulate_duration = "1s"\n'
        (home / "agentd.toml").write_text(
            f'hub.connection_string_file = "{string}"\nhub.ca_file = "{hub.ca}"\n{backend}{config}')
        notify = home / "notify"
        notify.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(notify))
        threading.Thread(target=self._hear, daemon=True).start()
        environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        # What the unit's WatchdogSec= comes to.
        environment |= {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": str(WATCHDOG * 10**6)}
        environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus or f"unix:path={home}/no-bus"
        super().__init__([*inside, binary or program("iotdm-agentd"), "--config", home / "agentd.toml", "--state-dir", home / "state"],
                         env=environment)

    def _hear(self) -> None:
        while True:
            text = self._socket.recv(4096).decode()
            now = time.monotonic()
            with self._heard:
                self.notified.append((now, text))
                self._heard.notify_all()

    def told(self, pattern: str, nth: int = 1) -> float:
        """When it told systemd for the nth time what has `pattern`."""
        at = self.tells(pattern, nth, PATIENCE)
        assert at, f"not told: {pattern}: {self.notified[-5:]} {self.lines[-5:]}"
        return at

    def tells(self, pattern: str, nth: int, patience: float) -> float | None:
        """The same, or nothing when it does not in time."""
        with self._heard:
            found = self._heard.wait_for(lambda: self._times(pattern)[nth - 1:nth], patience)
        return found[0] if found else None

    def times_told(self, pattern: str) -> int:
        with self._heard:
            return len(self._times(pattern))

    def _times(self, pattern: str) -> list[float]:
        return [at for at, text in self.notified if re.search(pattern, text)]


def git(*arguments: str) -> str:
    # The clone may be another user's.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def watchdog_of_the_unit() -> int:
    """In seconds."""
    unit = (ROOT / "packaging/systemd/iotdm-agentd.service").read_text()
    value, unit_name = re.search(r"^WatchdogSec=(\d+)(s|min)?", unit, re.M).groups()
    return int(value) * (60 if unit_name == "min" else 1)


WATCHDOG = watchdog_of_the_unit()


def echo(hub: Emulator, device: str) -> Process:
    return Process([LOAD, "echo", hub.data, device])


def python_device(hub: Emulator, device: str, libraries: Path | None = None) -> Process:
    return Process([sys.executable, PEERS / "device.py", hub.device_file(device), hub.ca], env=unshared(libraries))


def node_device(hub: Emulator, device: str) -> Process:
    return Process(["node", PEERS / "device.js", hub.device_file(device)],
                   env=os.environ | {"NODE_EXTRA_CA_CERTS": str(hub.ca)})


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


def mosquitto_sub(hub: Emulator, device: str, inside: tuple = (), libraries: Path | None = None) -> Process:
    """With the subscriptions of the daemon; says "Subscribed" when the hub has acknowledged them."""
    token = hub.sas_token("--device", device)
    topics = [word for topic in TOPICS for word in ("-t", topic)]
    return Process([*inside, "mosquitto_sub", "-d", "-V", "mqttv311", "-h", hub.host, "-p", 8883, "--cafile", hub.ca,
                    "-i", device, "-c", "-q", "0", "-k", KEEP_ALIVE,
                    "-u", f"{hub.host}/{device}/?{API}", "-P", token, *topics], terminal=True, env=unshared(libraries))


def has_node() -> bool:
    return "NODE_PATH" in os.environ
