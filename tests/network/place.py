"""A hub and a gateway at the two ends of a line, the programs as users have them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from line import HUB, Line

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parents[2] / "target") / "debug"
DEVICE = "gw1"
NAME = "hub.test"
RELAY = 28883
MQTT, HTTPS = 8883, 443
SETTINGS = 'hub.keep_alive = "5s"'
BIND_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


class Place:
    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.line = Line(seed)
        self._hosts = directory / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost\n{HUB} {NAME}\n")
        self.log = directory / "daemon.log"
        self._daemon: subprocess.Popen | None = None
        self._emulator = self._start(self.line.hub, TARGET / "iotdm-emulator", "serve", "--bind", "::", "--host", NAME,
                                     "--mqtt-port", MQTT, "--https-port", HTTPS, "--device", DEVICE,
                                     "--data", directory / "hub", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._emulator.stdout.readline().startswith("ready")
        self._relay = self._start(self.line.hub, sys.executable, "-B", Path(__file__).parent / "relay.py", RELAY,
                                  f"127.0.0.1:{MQTT}", seed, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._relay.stdout.readline()

    def close(self) -> None:
        for process in (self._daemon, self._relay, self._emulator):
            if process is not None:
                process.kill()
                process.wait()
        self.line.close()

    def relay(self, word: str) -> int:
        """Tells the relay a fault, or "count"; how many connections it has had."""
        self._relay.stdin.write(f"{word}\n")
        self._relay.stdin.flush()
        return int(self._relay.stdout.readline())

    def resolve(self, *addresses: str) -> None:
        """The hub's addresses, from now on."""
        # Not replaced: the programs have the file itself mounted.
        self._hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {NAME}\n" for address in addresses))

    def enrol(self) -> str:
        """Lets the device register, with the key that goes into the file "key"; the id scope."""
        command = self._inside(self.line.hub, TARGET / "iotdm-emulator", "enrol", DEVICE, "--out",
                               self.directory / "key", "--data", self.directory / "hub")
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def start(self, settings: str = "", port: int = RELAY, string: bool = True) -> None:
        """The daemon, by way of the relay unless a port is given, and with a connection string unless not."""
        named = f'hub.connection_string_file = "{self.directory}/string"\n' if string else ""
        self._write_string(port)
        (self.directory / "agentd.toml").write_text(
            f'{named}hub.ca_file = "{self.directory}/hub/ca.pem"\n'
            'reboot.backend = "simulate"\nreboot.simulate_duration = "500ms"\nreboot.max_per_hour = 60\n'
            f'log.level = "debug"\n{settings}\n')
        self._daemon = self._start(
            self.line.gateway, TARGET / "iotdm-agentd", "--config", self.directory / "agentd.toml",
            "--state-dir", self.directory / "state", stderr=open(self.log, "a"))

    def _write_string(self, port: int) -> None:
        string = (self.directory / "hub" / "devices" / DEVICE).read_text().strip().split(";GatewayHostName=")[0]
        (self.directory / "string").write_text(f"{string};GatewayHostName={NAME}:{port}")
        (self.directory / "string").chmod(0o600)

    def stop(self) -> None:
        self._daemon.send_signal(signal.SIGTERM)
        assert self._daemon.wait(30) == 0
        self._daemon = None

    def size(self) -> tuple[int, int]:
        """Open files, and private memory in KiB."""
        process = Path(f"/proc/{self._daemon.pid}")
        private = sum(int(kib) for kib in re.findall(r"^Private\w*: +(\d+)", (process / "smaps_rollup").read_text(), re.M))
        return len(list((process / "fd").iterdir())), private

    def ctl(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        command = self._inside(self.line.hub, TARGET / "iotdm-ctl", "--connection-string-file",
                               self.directory / "hub" / "service-connection-string", "--ca-file",
                               self.directory / "hub" / "ca.pem", *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    def fault(self, *arguments: str) -> None:
        subprocess.run(self._inside(self.line.hub, TARGET / "iotdm-emulator", "fault", *arguments,
                                    "--data", self.directory / "hub"), check=True)

    def invoke(self, payload: dict, connect_timeout: int = 60, response_timeout: int = 60) -> int:
        """Calls rebootDevice; the status of the device's answer, or ctl's exit code if there is none."""
        done = self.ctl("-o", "json", "invoke", DEVICE, "rebootDevice", "--payload", json.dumps(payload),
                        "--connect-timeout", str(connect_timeout), "--response-timeout", str(response_timeout))
        return json.loads(done.stdout)["status"] if done.stdout else done.returncode

    def reported(self) -> dict:
        done = self.ctl("-o", "json", "twin", "show", DEVICE)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["properties"]["reported"]

    def said(self, pattern: str) -> list[str]:
        """What the daemon has logged."""
        return re.findall(pattern, self.log.read_text())

    def wait(self, what: str, condition, patience: float = 120, meanwhile=lambda: None):
        """Asks until it is so; neither the twin nor a log can tell by themselves."""
        deadline = time.monotonic() + patience
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited {patience} s in vain for {what}; see {self.log}"
            meanwhile()
            time.sleep(0.2)
        return found

    def wait_connected(self, meanwhile=lambda: None) -> None:
        self.wait("a call that is answered", lambda: self.invoke({"check": True}, 5, 5) == 200, meanwhile=meanwhile)

    def _inside(self, namespace: str, *command) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", BIND_HOSTS, "sh", str(self._hosts),
                "ip", "netns", "exec", namespace, *map(str, command)]

    def _start(self, namespace: str, *command, **pipes) -> subprocess.Popen:
        return subprocess.Popen(self._inside(namespace, *command), text=True, **pipes)


