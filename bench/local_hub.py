"""The emulator, and mosquitto carrying the same two messages for each method."""

import math
import os
import re
import subprocess
import time
from pathlib import Path

from gateway import values
from operator_tool import run
from parties import LOAD, MeasuredDaemon, MeasuredHub
from pyharness.process import Process
from pyharness.programs import program
from table import Table

OURS, FLOOR = "iotdm-emulator", "mosquitto"
# How often what is quick is measured.
ROUNDS = 10


def start(table: Table, directory: Path, rounds: int) -> None:
    for nth in range(rounds):
        for how in ("new directory", "existing directory"):
            with MeasuredHub(directory / f"hub{nth}", "gw1") as hub:
                table.add("emulator: exec to ready, ms", f"{OURS}, {how}", 1e3 * (hub.ready_at - hub.process.started))


def scale(table: Table, rounds: int, sizes: list[int]) -> None:
    """The largest number alternates with mosquitto, the others show how the cost grows."""
    most = sizes[-1]
    for _ in range(rounds):
        for whom, command in ((OURS, ["emulator", program("iotdm-emulator"), most]), (FLOOR, ["mosquitto", most])):
            add(table, most, whom, load(command))
    for count in sizes[:-1]:
        add(table, count, OURS, load(["emulator", program("iotdm-emulator"), count]))
    large = max(size for size in sizes if size <= 1000)
    add(table, large, f"{OURS}, twins of 32 KB", load(["emulator", program("iotdm-emulator"), large, "--twin", 32]))
    in_memory = load(["emulator", program("iotdm-emulator"), large], os.environ | {"TMPDIR": "/dev/shm"})
    add(table, large, f"{OURS}, store in memory", in_memory)


# In KB of reported properties.
TWINS = (1, 2, 4, 8, 16, 32)
# So many devices have such twins.
WITH_TWINS = 200


def twins(table: Table, directory: Path) -> None:
    """What the size of twins costs the emulator, and who reads one."""
    for kib in TWINS:
        told = load(["emulator", program("iotdm-emulator"), WITH_TWINS, "--twin", kib])
        for what in ("first reports a second", "durable reports a second", "store for each device, KiB",
                     "exec to ready with these devices, ms"):
            table.add(f"twin of {kib} KB: {what}", OURS, told[what])
    with MeasuredHub(directory / "hub", *(f"twin{kib}" for kib in TWINS)) as hub:
        for kib in TWINS:
            # Desired properties, as the desired and the reported ones of a twin are read alike.
            hub.fill(f"twin{kib}", kib)
        for _ in range(ROUNDS):
            for kib in TWINS:
                used = run([*hub.ctl_command(), "twin", "show", f"twin{kib}"])
                table.add(f"twin of {kib} KB: iotdm-ctl twin show, ms", "iotdm-ctl", used["ms"])
                table.add(f"twin of {kib} KB: iotdm-ctl twin show, peak of memory, KiB", "iotdm-ctl", used["peak of memory, KiB"])


def load(command: list, environment: dict | None = None) -> dict[str, float]:
    done = subprocess.run([LOAD, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return values(done.stdout)


def add(table: Table, devices: int, whom: str, told: dict[str, float]) -> None:
    for what, value in told.items():
        table.add(f"hub of {devices:,}: {what}", whom, value)


def syncs(table: Table, directory: Path) -> None:
    """How often the disk is waited for, counted by strace."""
    reports = 50
    with MeasuredHub(directory / "hub", "agentd", "gw1") as hub:
        with traced(hub.process.pid) as trace:
            for n in range(reports):
                hub.send("PATCH", "/twins/gw1?api-version=2021-04-12", {"tags": {"n": n}})
        table.add("syncs: for each change of a twin, one after the other", OURS, trace.count() / reports)
        with MeasuredDaemon(directory / "home", hub, "agentd") as daemon:
            daemon.told("STATUS=connected")
            hub.invoke("agentd", connect_timeout=60)
            with traced(daemon.pid) as trace:
                assert hub.invoke("agentd", "rebootDevice", {"id": "r"})["status"] == 200
                replied = time.time()
                table.add("syncs: until the reply to rebootDevice", "iotdm-agentd", trace.count(replied))


class traced(Process):
    """strace, attached to a process."""

    def __init__(self, pid: int) -> None:
        super().__init__(["strace", "-f", "-ttt", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-p", pid])
        self.wait_for("attached")

    def count(self, until: float = math.inf) -> int:
        began = (re.search(r"(\d+\.\d+) (?:fsync|fdatasync|msync)\(", line) for _, line in self.lines)
        return sum(float(match[1]) <= until for match in began if match)
