"""A machine in a container: a real systemd, D-Bus, polkit and logind, booted
by systemd-nspawn, with power to switch on and to cut.

It shares the host's network, so the hub is where its connection string says.
"""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from machines import power
from machines.power import Life

# systemd-nspawn's exit status when the machine asked for a reboot.
REBOOT = 133


@dataclass
class Boot:
    """One boot of the machine."""

    boot_id: str
    leader: int
    began: datetime
    # CLOCK_BOOTTIME can only be set back by whole seconds, see Container._command.
    BEGAN_TOLERANCE = timedelta(seconds=1)


@dataclass
class Container:
    root: Path
    # Unique on the host, as others run machines, too.
    name: str = field(default_factory=lambda: f"iotdm-test-{uuid.uuid4().hex[:8]}")
    boots: list[Boot] = field(default_factory=list)
    # How each boot that is over ended: REBOOT or another status.
    ends: list[int] = field(default_factory=list)
    # All boots, those included that did not get as far as being up.
    lives: list[Life] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._power: threading.Thread | None = None
        # The first process of the newest boot, as a pidfd.
        self._leader: int | None = None
        self._cut = False
        self._on = False
        self._failure: BaseException | None = None

    # Power

    def power_on(self) -> Boot:
        """Boots, and boots again whenever the machine asks for it."""
        count = len(self.boots)
        self.switch_on()
        return self.wait_boot(count + 1)

    def switch_on(self) -> None:
        """Boots as power_on does, without waiting until the machine is up."""
        self._cut, self._on = False, True
        self._power = threading.Thread(target=self._run, daemon=True)
        self._power.start()

    def wait_boot(self, count: int, timeout: float = 60) -> Boot:
        """Waits until the machine has booted `count` times and is up."""
        self._wait(lambda: len(self.boots) >= count, timeout, f"boot {count}")
        return self.boots[count - 1]

    def cut_power(self) -> None:
        """SIGKILL to the machine's first process takes all others along, and none gets to say a word."""
        self._cut = True
        while self._on:
            # More than once only if the machine was between two boots.
            with self._changed, contextlib.suppress(ProcessLookupError):
                if self._leader is not None:
                    signal.pidfd_send_signal(self._leader, signal.SIGKILL)
            self._power.join(timeout=0.1)

    def dispose(self) -> None:
        """Cuts the power and removes what systemd-nspawn leaves on the host."""
        self.cut_power()
        for cgroup in _own_cgroups():
            for directory, _, _ in os.walk(cgroup / self.name, topdown=False):
                os.rmdir(directory)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(f"/run/systemd/nspawn/propagate/{self.name}")

    def console(self) -> str:
        """What was printed before there was a journal, systemd-nspawn's own words included."""
        return Path(f"{self.root}.console").read_text(errors="replace")

    # In the machine

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        """What a command prints that is run in the machine as root."""
        enter = ["nsenter", "--target", str(self.boots[-1].leader), "--all", "--wd=/"]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
        done = subprocess.run([*enter, *environment, *command], capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` gives them."""
        text = self.run("systemctl", "show", unit, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in text.splitlines())

    def kill(self, pid: str) -> None:
        """SIGKILL to a process, by the machine's own number of it."""
        self.run("sh", "-c", f"kill -KILL {pid}")

    # From outside

    def journal(self, *options: str) -> str:
        """The journal's lines, of all boots unless `options` say otherwise."""
        return subprocess.run([*self._journalctl(), *options], capture_output=True, text=True, check=True).stdout

    def wait_journal(self, pattern: str, *options: str, timeout: float = 60) -> str:
        """Waits for a line, past or to come, that matches; the line."""
        follow = subprocess.Popen([*self._journalctl(), "--follow", "--lines=all", *options], stdout=subprocess.PIPE)
        try:
            return _wait_line(follow.stdout, pattern, timeout)
        finally:
            follow.kill()
            follow.wait()

    def _journalctl(self) -> list[str]:
        return ["journalctl", f"--directory={self.root}/var/log/journal", "--quiet", "--no-pager", "--output=cat"]

    # The supply

    def _command(self) -> list[str]:
        # A container sees the host's time since boot. In a time namespace it
        # begins at 0 (at less than 1 s: the offset is in whole seconds), so
        # that the machine finds out when *it* booted.
        since_boot = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        return [
            "unshare", "--time", f"--boottime=-{since_boot}", "--fork",
            "systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.name}", "--hostname=gw1",
            "--boot", "--notify-ready=yes", "--register=no", "--keep-unit", "--console=pipe",
        ]

    def _run(self) -> None:
        try:
            while self._boot() == REBOOT and not self._cut:
                pass
        except BaseException as failure:  # handed to whoever waits
            self._failure = failure
            raise
        finally:
            with self._changed:
                self._on = False
                self._changed.notify_all()

    def _boot(self) -> int:
        """Runs the machine from power-on to its end."""
        life = Life()
        self.lives.append(life)
        address = f"{self.root}.notify"
        Path(address).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(f"{self.root}.console", "ab") as console:
            notify.bind(address)
            began = datetime.now(UTC)
            process = subprocess.Popen(
                self._in_cgroup(self._command()), env={**os.environ, "NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
            leader = self._ready(notify, process)
            if leader is not None:
                boot_id = Path(f"/proc/{leader}/root/proc/sys/kernel/random/boot_id").read_text().strip()
                with self._changed:
                    life.up = True
                    self.boots.append(Boot(boot_id, leader, began))
                    self._changed.notify_all()
            _read_on(notify, process)
            end = process.wait()
        with self._changed:
            life.over(power.REBOOT if end == REBOOT else power.CUT if self._cut else power.OFF)
            self.ends.append(end)
            self._changed.notify_all()
        return end

    def _in_cgroup(self, command: list[str]) -> list[str]:
        """The command in a cgroup of its own, in which systemd-nspawn makes the machine's."""
        enter = ""
        for cgroup in _own_cgroups():
            (cgroup / self.name).mkdir(exist_ok=True)
            enter += f"echo $$ >{cgroup / self.name}/cgroup.procs && "
        return ["sh", "-c", enter + 'exec "$@"', "sh", *command]

    def _ready(self, notify: socket.socket, process: subprocess.Popen) -> int | None:
        """The first process of the container once that is up; none if the container ended before."""
        leader = None
        ended = os.pidfd_open(process.pid)
        try:
            while True:
                readable, _, _ = select.select([notify, ended], [], [])
                if notify not in readable:
                    return None
                message = notify.recv(4096).decode()
                if found := re.search(r"^X_NSPAWN_LEADER_PID=(\d+)", message, re.M):
                    leader = int(found[1])
                    with self._changed:
                        if self._leader is not None:
                            os.close(self._leader)
                        self._leader = os.pidfd_open(leader)
                if re.search(r"^READY=1", message, re.M):
                    return leader
        finally:
            os.close(ended)

    def _wait(self, condition, timeout: float, what: str) -> None:
        with self._changed:
            done = self._changed.wait_for(lambda: condition() or self._failure or not self._on, timeout)
            if self._failure:
                raise AssertionError(f"no {what}") from self._failure
            if not condition():
                raise AssertionError(f"no {what} {'although it ended' if done else f'in {timeout} s'}; ends: {self.ends}")


def _read_on(notify: socket.socket, process: subprocess.Popen) -> None:
    """Takes what is told until the process ends: systemd-nspawn waits for whoever does not read."""
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            readable, _, _ = select.select([notify, ended], [], [])
            if notify not in readable:
                return
            notify.recv(4096)
    finally:
        os.close(ended)


def _own_cgroups() -> list[Path]:
    """Where this process is in the hierarchies of cgroups that systemd uses: one, or two in its hybrid mode."""
    hierarchies = {"/sys/fs/cgroup": "", "/sys/fs/cgroup/unified": "", "/sys/fs/cgroup/systemd": "name=systemd"}
    entries = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    paths = {name: path for _, name, path in entries}
    return [Path(mount + paths[name]) for mount, name in hierarchies.items() if Path(mount, "cgroup.procs").exists()]


def _wait_line(stream, pattern: str, timeout: float) -> str:
    """The first line of a pipe that matches."""
    deadline = time.monotonic() + timeout
    seen = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([stream], [], [], left)[0]:
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            break
        seen += chunk
        *lines, rest = seen.split(b"\n")
        for line in lines:
            if re.search(pattern, line.decode(errors="replace")):
                return line.decode(errors="replace")
        seen = rest
    raise AssertionError(f"no line matched {pattern!r} in {timeout} s")
