"""The emulator on the host, and the operator's tool against it."""

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parents[2] / "target") / "debug"
EMULATOR = TARGET / "iotdm-emulator"
CTL = TARGET / "iotdm-ctl"


class Hub:
    def __init__(self, data: Path, listener=None) -> None:
        """A hub that keeps its state in `data`; `listener` is told each line of its log, exchanges included."""
        self.data = data
        self._listener = listener
        self.ports = {"mqtt": 0, "https": 0}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Serves, from the second time on at the same ports as before."""
        verbose, log = ([], open(f"{self.data}.log", "a")) if self._listener is None else (["--verbose"], subprocess.PIPE)
        self._process = subprocess.Popen(
            [EMULATOR, "serve", *verbose, "--data", self.data,
             "--mqtt-port", str(self.ports["mqtt"]), "--https-port", str(self.ports["https"])],
            stdout=subprocess.PIPE, stderr=log, text=True)
        if self._listener is not None:
            threading.Thread(target=self._listen, args=[self._process.stderr], daemon=True).start()
        ready = self._process.stdout.readline()
        found = re.match(r"ready mqtts=\S+:(\d+) https=\S+:(\d+) data=", ready)
        assert found, f"no ready line but {ready!r}; see {self.data}.log"
        self.ports = {"mqtt": int(found[1]), "https": int(found[2])}

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def ca(self) -> Path:
        return self.data / "ca.pem"

    def ctl(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess:
        """Runs iotdm-ctl to its end; the caller judges the exit code."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout)

    def command(self, *arguments: str) -> list:
        string = self.data / "service-connection-string"
        return [CTL, "--connection-string-file", string, "--ca-file", self.ca, *arguments]

    def fault(self, *arguments: str) -> None:
        """Makes the emulator misbehave, see `iotdm-emulator fault --help`."""
        subprocess.run([EMULATOR, "fault", *arguments, "--data", self.data], check=True)

    def create(self, device: str) -> str:
        """A new device; its connection string, with the emulator's ports."""
        self._done("device", "create", device)
        return (self.data / "devices" / device).read_text()

    def reported(self, device: str) -> dict:
        """The device's reported properties."""
        twin = json.loads(self._done("twin", "show", device, "--output", "json"))
        return twin["properties"]["reported"]

    def wait_reported(self, device: str, condition, timeout: float = 60) -> dict:
        """Reads the twin until `condition` holds of its reported properties.

        The service has no way to be told, so this asks again and again, as
        iotdm-ctl itself does.
        """
        deadline = time.monotonic() + timeout
        while not condition(reported := self.reported(device)):
            assert time.monotonic() < deadline, f"not in {timeout} s: {json.dumps(reported, indent=1)}"
            time.sleep(0.2)
        return reported

    def wait_connected(self, device: str, timeout: int = 60) -> None:
        """The hub holds a method back until the device listens; what the method is does not matter."""
        deadline = time.monotonic() + timeout
        while True:
            # The hub takes no more than 300 s for one call.
            patience = max(0, min(300, round(deadline - time.monotonic())))
            done = self.ctl("invoke", device, "rebootDevice", "--payload", '{"check":true}',
                            "--connect-timeout", str(patience), timeout=patience + 60)
            if done.returncode in (0, 3):
                return
            # 4: not yet.
            assert done.returncode == 4 and time.monotonic() < deadline, f"exit {done.returncode}: {done.stderr}"

    def _listen(self, lines) -> None:
        with open(f"{self.data}.log", "a") as log:
            for line in lines:
                log.write(line)
                self._listener(line)

    def _done(self, *arguments: str) -> str:
        done = self.ctl(*arguments)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stderr}"
        return done.stdout
