"""The device daemon as its unit starts it."""

import os
import re
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pyharness.process import PATIENCE, Line, Process
from pyharness.programs import program


class Daemon(Process):
    """`iotdm-agentd` with its files in `home`, told of readiness by a socket in place of systemd's.

    `string` is the device's connection string, or none; `settings` are lines of
    agentd.toml. Without `bus` nobody is asked to reboot this machine, and the
    daemon pretends to. `watchdog` is in seconds; `inside` is what the command
    begins with, and `process` are options of Process.
    """

    def __init__(self, home: Path, ca: Path, string: str | None, settings: str = "", *, bus: str | None = None,
                 watchdog: int | None = None, inside: Sequence[str] = (), binary: Path | None = None, **process) -> None:
        write_settings(home, ca, string, settings if bus else f'reboot.backend = "simulate"\n{settings}')
        self.notified: list[Line] = []
        self._heard = threading.Condition()
        notify = home / "notify"
        notify.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(notify))
        threading.Thread(target=self._hear, daemon=True).start()
        # By JOURNAL_STREAM the daemon would take its output for the journal.
        environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        environment["NOTIFY_SOCKET"] = str(notify)
        environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus or f"unix:path={home}/no-bus"
        if watchdog:
            environment["WATCHDOG_USEC"] = str(watchdog * 10**6)
        command = [*inside, binary or program("iotdm-agentd"), "--config", home / "agentd.toml", "--state-dir", home / "state"]
        super().__init__(command, env=environment, **process)

    def _hear(self) -> None:
        while True:
            text = self._socket.recv(4096).decode()
            now = time.monotonic()
            with self._heard:
                self.notified.append(Line(now, text))
                self._heard.notify_all()

    def told(self, pattern: str, nth: int = 1) -> float:
        """When the daemon told systemd for the nth time what has `pattern`."""
        at = self.tells(pattern, nth, PATIENCE)
        assert at, f"not told: {pattern}: {self.notified[-5:]} {self.text()[-2000:]}"
        return at

    def tells(self, pattern: str, nth: int, patience: float) -> float | None:
        """The same, or nothing when it is not told within `patience` seconds."""
        with self._heard:
            found = self._heard.wait_for(lambda: self._times(pattern)[nth - 1:nth], patience)
        return found[0] if found else None

    def times_told(self, pattern: str) -> int:
        """How often the daemon has told systemd what has `pattern`."""
        with self._heard:
            return len(self._times(pattern))

    def _times(self, pattern: str) -> list[float]:
        return [at for at, text in self.notified if re.search(pattern, text)]


def write_settings(home: Path, ca: Path, string: str | None, settings: str) -> None:
    """What an administrator writes: agentd.toml with these lines, and the connection string, if there is one."""
    home.mkdir(exist_ok=True)
    lines = [f'hub.ca_file = "{ca}"']
    if string is not None:
        secret = home / "connection-string"
        secret.touch(0o600)
        secret.write_text(string)
        lines.append(f'hub.connection_string_file = "{secret}"')
    (home / "agentd.toml").write_text("\n".join([*lines, settings]))
