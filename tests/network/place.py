"""A hub and a gateway at the two ends of a line, the programs as users have them."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from pyharness.daemon import Daemon, write_settings
from pyharness.hub import Hub
from pyharness.line import HUB, Line
from pyharness.process import Process
from pyharness.programs import program

DEVICE = "gw1"
# The hub's name, which a file in place of /etc/hosts leads to the line's other end.
NAME = "hub.test"
# The port of the relay, which is on the gateway's way to the hub.
RELAY = 28883
MQTT, HTTPS = 8883, 443
SETTINGS = 'hub.keep_alive = "5s"'
# What each daemon has besides.
MORE = 'reboot.simulate_duration = "500ms"\nreboot.max_per_hour = 60\nlog.level = "debug"\n'
BIND_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


class Place:
    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.line = Line(seed)
        self._hosts = directory / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost\n{HUB} {NAME}\n")
        # What the daemon has logged, over all its starts.
        self.log = directory / "daemon.log"
        self.log.touch()
        self._daemon: Daemon | None = None
        self._hub = Hub(directory / "hub", DEVICE, mqtt_port=MQTT, https_port=HTTPS, host=NAME,
                        inside=self._inside(self.line.hub), options=["--bind", "::"], stderr=subprocess.DEVNULL)
        self._hub.start()
        relay = [sys.executable, "-B", Path(__file__).parent / "relay.py", RELAY, f"127.0.0.1:{MQTT}", seed]
        self._relay = Process([*self._inside(self.line.hub), *relay], stdin=subprocess.PIPE)
        self._relay.wait_for("^listens$")
        # How many words the relay was told.
        self._told = 0

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
        self._relay.kill()
        self._hub.kill()
        self.line.close()

    def relay(self, word: str) -> int:
        """Tells the relay a fault, or "count"; how many connections the relay has had."""
        self._relay.tell(word)
        self._told += 1
        return int(self._relay.wait_for(r"^(\d+)$", self._told).match[1])

    def resolve(self, *addresses: str) -> None:
        """The hub's addresses, from now on."""
        # Not replaced: the programs have the file itself mounted.
        self._hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {NAME}\n" for address in addresses))

    def enrol(self) -> str:
        """Lets the device register, with the key that goes into the file "key"; the id scope."""
        return self._hub.emulator("enrol", DEVICE, "--out", self.directory / "key").strip()

    def start(self, settings: str = "", port: int = RELAY, string: bool = True) -> None:
        """The daemon, by way of the relay unless a port is given, and with a connection string unless not."""
        self._daemon = Daemon(self.directory, self._hub.ca_file, self._string(port) if string else None, MORE + settings,
                              inside=self._inside(self.line.gateway), log=self.log)

    def set_up(self, settings: str = "", port: int = RELAY, string: bool = True) -> None:
        """The same settings without a daemon, so that the way is tried with them."""
        write_settings(self.directory, self._hub.ca_file, self._string(port) if string else None,
                       f'reboot.backend = "simulate"\n{settings}')

    def _string(self, port: int) -> str:
        known = self._hub.device_file(DEVICE).read_text().strip().split(";GatewayHostName=")[0]
        return f"{known};GatewayHostName={NAME}:{port}"

    def provisioned(self, scope: str) -> str:
        """The settings of a device that registers, with the key that is in the file "key"."""
        return f"""{SETTINGS}
[provisioning]
id_scope = "{scope}"
registration_id = "{DEVICE}"
global_endpoint = "{NAME}:{MQTT}"
symmetric_key_file = "{self.directory}/key\""""

    def try_way(self) -> tuple[int, dict[str, dict]]:
        """Has the daemon's settings try the way to the hub; the exit code, and each step by its name."""
        command = [*self._inside(self.line.gateway), program("iotdm-agentd"), "--config", self.directory / "agentd.toml",
                   "--state-dir", self.directory / "state", "--test", "--json"]
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.directory}/no-bus"}
        # A minute is what is promised.
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False, timeout=60)
        return done.returncode, {step["step"]: step for step in json.loads(done.stdout)["steps"]}

    def stop(self) -> None:
        assert self._daemon.stop() == 0, f"see {self.log}"
        self._daemon = None

    def size(self) -> tuple[int, int]:
        """The daemon's open files, and its private memory in KiB."""
        process = Path(f"/proc/{self._daemon.pid}")
        private = sum(int(kib) for kib in re.findall(r"^Private\w*: +(\d+)", (process / "smaps_rollup").read_text(), re.M))
        return len(list((process / "fd").iterdir())), private

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs iotdm-ctl to its end; the caller judges the exit code."""
        return self._hub.ctl(*arguments, timeout=300)

    def fault(self, *arguments: str) -> None:
        self._hub.fault(*arguments)

    def invoke(self, payload: dict, connect_timeout: int = 60, response_timeout: int = 60) -> int:
        """Calls rebootDevice; the status of the device's reply, or iotdm-ctl's exit code if there is none."""
        done = self.ctl("-o", "json", "invoke", DEVICE, "rebootDevice", "--payload", json.dumps(payload),
                        "--connect-timeout", str(connect_timeout), "--response-timeout", str(response_timeout))
        return json.loads(done.stdout)["status"] if done.stdout else done.returncode

    def reported(self) -> dict:
        return self._hub.reported(DEVICE)

    def said(self, pattern: str) -> list[str]:
        """What the daemon has logged."""
        return re.findall(pattern, self.log.read_text())

    def wait(self, what: str, condition, patience: float = 120, meanwhile=lambda: None):
        """Asks until it is so, for at most `patience` seconds; neither the twin nor a log can tell by themselves."""
        deadline = time.monotonic() + patience
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited {patience} s in vain for {what}; see {self.log}"
            meanwhile()
            time.sleep(0.2)
        return found

    def wait_connected(self, meanwhile=lambda: None) -> None:
        self.wait("a call that is answered", lambda: self.invoke({"check": True}, 5, 5) == 200, meanwhile=meanwhile)

    def _inside(self, namespace: str) -> list[str]:
        """What a command begins with that is to run at one end of the line, with hosts of its own."""
        return ["unshare", "--mount", "sh", "-c", BIND_HOSTS, "sh", str(self._hosts), "ip", "netns", "exec", namespace]
