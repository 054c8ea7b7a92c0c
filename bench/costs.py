"""What health, preflight and the history of boots cost the daemon and who asks for them."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import process
from gateway import OURS, calls, values
from operator_tool import run
from parties import LOAD, MeasuredDaemon, MeasuredHub
from pyharness.process import Process
from pyharness.programs import ROOT
from table import Table

# How many boots the daemon has seen: a day, a month, a year, ten years of one a week.
BOOTS = (1, 8, 52, 520)
# So many of them are told.
KEPT = 32
UNITS = 200
CHANGES = 100
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def health(table: Table, directory: Path, rounds: int) -> None:
    """A daemon that follows a systemd with many units, beside one that finds none on its bus."""
    with MeasuredHub(directory / "hub", "agentd") as hub:
        for nth in range(rounds):
            for whom, options in (("without systemd on the bus", []), (f"following {UNITS} units", ["--units", UNITS])):
                whom = f"{OURS}, {whom}"
                with Process([LOAD, "logind", *options], stdin=subprocess.PIPE) as bus:
                    _, address = bus.wait_for("^unix:.*")
                    home = directory / f"home{nth}{len(options)}"
                    with MeasuredDaemon(home, hub, "agentd", 'log.level = "debug"\n', bus=address[0]) as daemon:
                        ready = daemon.told("READY=1")
                        daemon.told("STATUS=connected")
                        daemon.wait_for("with 204")
                        table.add("health: exec to READY=1, ms", whom, 1e3 * (ready - daemon.started))
                        table.add("health: CPU until its first report, ms", whom, 1e3 * process.cpu(daemon.pid))
                        table.add("health: private memory, KiB", whom, process.private_memory(daemon.pid))
                        if options:
                            before, told = process.cpu(daemon.pid), sum("with 204" in text for _, text in daemon.lines)
                            for _ in range(CHANGES):
                                bus.tell("change")
                            # The bus is asked about the units when it says that they have changed.
                            hub.wait_reported("agentd", lambda reported: "health" in reported)
                            settle(daemon.pid)
                            table.add("health: CPU for each change of a unit, ms", whom, 1e3 * (process.cpu(daemon.pid) - before) / CHANGES)
                            reports = sum("with 204" in text for _, text in daemon.lines) - told
                            table.add(f"health: reports for {CHANGES} changes within a minute", whom, reports)


def settle(pid: int) -> None:
    """Returns once the process has used no time for a second."""
    last = None
    while last != (last := process.cpu(pid)):
        # Not a wait for an event: that nothing happens takes time.
        time.sleep(1)


def preflight(table: Table, directory: Path, rounds: int) -> None:
    """Each shipped check by itself, as root runs it; what it says of this machine does not matter."""
    for _ in range(rounds):
        for check in sorted((ROOT / "packaging/preflight.d").iterdir()):
            done = subprocess.run([LOAD, "run", check], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            used = values(done.stdout)
            table.add(f"preflight: {check.name}, ms", "iotdm-preflight", used["ms"])
            table.add(f"preflight: {check.name}, CPU, ms", "iotdm-preflight", used["CPU, ms"])
    with MeasuredHub(directory / "hub", "agentd") as hub, MeasuredDaemon(directory / "home", hub, "agentd") as daemon:
        daemon.told("STATUS=connected")
        hub.invoke("agentd")
        for _ in range(rounds):
            for method, payload in (("getRebootStatus", None), ("rebootDevice", {"check": True})):
                began = time.monotonic()
                assert hub.invoke("agentd", method, payload)["status"] == 200
                whom = f"{method}, without checks" if payload else method
                table.add("preflight: round trip of a call, ms", whom, 1e3 * (time.monotonic() - began))


def history(table: Table, directory: Path, rounds: int) -> None:
    """Years of boots, each a start of the daemon with a boot id of its own."""
    boot_id = directory / "boot_id"
    new_boot(boot_id)
    try:
        subprocess.run(["mount", "--bind", boot_id, BOOT_ID], check=True, stderr=subprocess.PIPE)
    except subprocess.CalledProcessError:
        print("left out: the history of boots (another boot id cannot be mounted here)", file=sys.stderr)
        return
    try:
        # A simulated machine has boots of its own.
        with MeasuredHub(directory / "hub", "agentd") as hub, Process([LOAD, "logind"]) as logind:
            _, address = logind.wait_for("^unix:.*")
            seen = 0
            for boots in BOOTS:
                while seen < boots:
                    new_boot(boot_id)
                    with MeasuredDaemon(directory / "home", hub, "agentd", bus=address[0]) as daemon:
                        daemon.told("STATUS=connected")
                    seen += 1
                one_history(table, directory, hub, boots, rounds, address[0])
    finally:
        subprocess.run(["umount", BOOT_ID], check=True)


def one_history(table: Table, directory: Path, hub: MeasuredHub, boots: int, rounds: int, bus: str) -> None:
    what, state = f"history of {boots:,} boots", directory / "home/state"
    size = sum(file.stat().st_size for file in state.rglob("*") if file.is_file())
    table.add(f"{what}: its files, bytes", OURS, size)
    environment = os.environ | {"XDG_STATE_HOME": str(directory)}
    for _ in range(rounds):
        with MeasuredDaemon(directory / "home", hub, "agentd", bus=bus) as daemon:
            ready = daemon.told("READY=1")
            daemon.told("STATUS=connected")
            known = hub.invoke("agentd", "getBootHistory")["payload"]["boots"]
            assert len(known) == min(boots, KEPT), f"{len(known)} boots after {boots}"
            table.add(f"{what}: exec to READY=1, ms", OURS, 1e3 * (ready - daemon.started))
            table.add(f"{what}: peak of resident memory, KiB", OURS, process.field(daemon.pid, "VmHWM"))
            told = calls(hub, "agentd", 100, "--method", "getBootHistory")
            table.add(f"{what}: round trip of getBootHistory, median, ms", OURS, told["call, median"])
            used = run([*hub.ctl_command(), "history", "agentd"], environment)
            table.add(f"{what}: iotdm-ctl history, ms", "iotdm-ctl", used["ms"])


def new_boot(file: Path) -> None:
    # In place: what is mounted is the file and not its name.
    with file.open("r+" if file.exists() else "w") as opened:
        opened.write(f"{uuid.uuid4()}\n")
