"""The emulator as the hub, and the operator's tool pointed at it. Whatever
starts an emulator in Python does it here, and its ready line is read here."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pyharness.process import PATIENCE, Process, Said
from pyharness.programs import program

# For how many seconds at most the hub itself holds a method call back.
LONGEST_CALL = 300


class Hub:
    """`iotdm-emulator serve` with its state in `data`, started and stopped as often as is wanted.

    `inside` is what every command begins with, such as a network namespace to
    enter; `options` are further ones of `serve`, and `process` those of
    Process. A port of 0 is a free one, which stays the same from then on.
    """

    def __init__(self, data: Path, *devices: str, mqtt_port: int = 0, https_port: int = 0, host: str = "localhost",
                 inside: Sequence[str] = (), options: Sequence[str] = (), verbose: bool = False,
                 listener: Callable[[str], object] | None = None, **process) -> None:
        self.data, self.host = Path(data), host
        self.mqtt_port, self.https_port = mqtt_port, https_port
        self.inside = list(inside)
        self._serve = [*(["--verbose"] if verbose else []), "serve", "--host", host, *options]
        for device in devices:
            self._serve += ["--device", device]
        self._options = {"listener": listener, **process}
        # One for each start.
        self._processes: list[Process] = []
        self._running = False

    def start(self) -> "Hub":
        """Serves; returns once the hub is ready."""
        process = Process(self._command("iotdm-emulator", *self._serve, "--data", self.data,
                                        "--mqtt-port", self.mqtt_port, "--https-port", self.https_port), **self._options)
        self._processes.append(process)
        self._running = True
        ready = process.wait_for(r"^ready mqtts=\S+:(\d+) https=\S+:(\d+) data=")
        self.ready_at = ready.at
        self.mqtt_port, self.https_port = int(ready.match[1]), int(ready.match[2])
        return self

    def stop(self) -> None:
        """Asks the hub to end, which it has to do without complaint."""
        if self._running:
            self._running = False
            code = self.process.stop()
            assert code == 0, f"exit {code}: {self.process.text()[-4000:]}"

    def kill(self) -> None:
        """Ends the hub at once."""
        if self._running:
            self._running = False
            self.process.kill()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def process(self) -> Process:
        """The one that runs, or ran last."""
        return self._processes[-1]

    def wait_for(self, pattern: str, nth: int = 1) -> Said:
        """The nth line of the log, since the last start, that has `pattern`."""
        return self.process.wait_for(pattern, nth)

    def log(self) -> str:
        """All that was logged so far, since the first start."""
        return "\n".join(process.text() for process in self._processes)

    # Its files

    @property
    def ca_file(self) -> Path:
        return self.data / "ca.pem"

    @property
    def service_file(self) -> Path:
        return self.data / "service-connection-string"

    @property
    def service_string(self) -> str:
        return self.service_file.read_text().strip()

    def device_file(self, device: str) -> Path:
        return self.data / "devices" / device

    # The operator

    def ctl_command(self, *arguments) -> list[str]:
        """iotdm-ctl with this hub."""
        return self._command("iotdm-ctl", "--connection-string-file", self.service_file, "--ca-file", self.ca_file, *arguments)

    def ctl(self, *arguments, timeout: float = 2 * PATIENCE) -> subprocess.CompletedProcess:
        """Runs iotdm-ctl to its end; the caller judges the exit code."""
        return subprocess.run(self.ctl_command(*arguments), capture_output=True, text=True, timeout=timeout)

    def done(self, *arguments) -> str:
        """What iotdm-ctl prints, which has to succeed."""
        done = self.ctl(*arguments)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def emulator(self, *arguments) -> str:
        """What a command of iotdm-emulator on this hub prints, which has to succeed."""
        command = self._command("iotdm-emulator", *arguments, "--data", self.data)
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stderr}"
        return done.stdout

    def fault(self, *arguments) -> None:
        """Makes the hub misbehave, see `iotdm-emulator fault --help`."""
        self.emulator("fault", *arguments)

    def create(self, device: str) -> str:
        """A new device; its connection string, with the hub's ports."""
        self.done("device", "create", device)
        return self.device_file(device).read_text()

    def reported(self, device: str) -> dict:
        """The device's reported properties."""
        twin = json.loads(self.done("twin", "show", device, "--output", "json"))
        return twin["properties"]["reported"]

    def wait_reported(self, device: str, condition: Callable[[dict], object], timeout: float = PATIENCE) -> dict:
        """The device's reported properties once `condition` holds of them.

        The service has no way to be told, so this asks again and again, as
        iotdm-ctl itself does.
        """
        deadline = time.monotonic() + timeout
        while not condition(reported := self.reported(device)):
            assert time.monotonic() < deadline, f"not in {timeout} s: {json.dumps(reported, indent=1)}"
            time.sleep(0.2)
        return reported

    def wait_connected(self, device: str, timeout: float = PATIENCE) -> None:
        """Waits until the device answers a method; what it answers does not matter."""
        deadline = time.monotonic() + timeout
        while True:
            # The hub holds a call back until the device listens.
            patience = max(0, min(LONGEST_CALL, round(deadline - time.monotonic())))
            done = self.ctl("invoke", device, "rebootDevice", "--payload", '{"check":true}',
                            "--connect-timeout", str(patience), timeout=patience + PATIENCE)
            # 0: accepted; 3: refused by the device; 4: not connected.
            if done.returncode in (0, 3):
                return
            assert done.returncode == 4 and time.monotonic() < deadline, f"exit {done.returncode}: {done.stderr}"

    def _command(self, name: str, *arguments) -> list[str]:
        return [*self.inside, program(name), *map(str, arguments)]
