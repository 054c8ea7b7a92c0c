"""iotdm-ctl beside other ways to do the same, and with fleets."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import process
from gateway import values
from parties import API, LOAD, PEERS, MeasuredHub, echo, has_node
from pyharness.process import PATIENCE, Process
from pyharness.programs import program
from table import Table

OURS, FLOOR = "iotdm-ctl", "curl"
PYTHON, NODE = "azure-iot-hub (Python)", "azure-iothub (Node)"
AT_ONCE = 64
# A device is in flight from its call until it is seen to be back, which takes an interval at least.
IN_FLIGHT, INTERVAL = 1000, "200ms"
# How long a device is away in `sites`, in milliseconds, and how often the tool is killed there.
AWAY, KILLS = 1000, 5


def at_full_speed(in_flight: int = IN_FLIGHT) -> list:
    """The options of a fleet that is rebooted as fast as it can be."""
    return ["--yes", "--canary", "0", "--max-in-flight", in_flight, "--max-per-second", "100000", "--interval", INTERVAL, "-o", "jsonl"]


def commands(table: Table, directory: Path, rounds: int) -> None:
    with MeasuredHub(directory / "hub", "gw1", "large") as hub, echo(hub, "gw1") as device:
        device.wait_for("ready")
        hub.fill("gw1", 1)
        hub.fill("large", 32)
        environment = os.environ | {
            "IOTHUB_CONNECTION_STRING": hub.service_file.read_text().strip(),
            "IOTDM_CA_FILE": str(hub.ca_file), "REQUESTS_CA_BUNDLE": str(hub.ca_file), "NODE_EXTRA_CA_CERTS": str(hub.ca_file),
        }
        # The header from a file: an argument would be readable by others.
        (directory / "curl").write_text(f'header = "Authorization: {hub.token}"\ncacert = "{hub.ca_file}"\nsilent\nfail\n')
        curl = ["curl", "--config", directory / "curl"]
        call = json.dumps({"methodName": "getRebootStatus", "payload": {}, "responseTimeoutInSeconds": 60})
        post = ["-H", "Content-Type: application/json", "-d", call]
        url = f"https://{hub.host}/twins"
        tasks = {
            "ctl: twin show": {
                OURS: [program("iotdm-ctl"), "twin", "show", "gw1"], FLOOR: [*curl, f"{url}/gw1?{API}"],
                PYTHON: [sys.executable, PEERS / "service.py", "twin", "gw1"],
                NODE: ["node", PEERS / "service.js", "twin", "gw1"]},
            "ctl: twin show of 32 KB": {
                OURS: [program("iotdm-ctl"), "twin", "show", "large"], FLOOR: [*curl, f"{url}/large?{API}"]},
            "ctl: invoke": {
                OURS: [program("iotdm-ctl"), "invoke", "gw1", "getRebootStatus"],
                FLOOR: [*curl, *post, f"{url}/gw1/methods?{API}"],
                PYTHON: [sys.executable, PEERS / "service.py", "invoke", "gw1"],
                NODE: ["node", PEERS / "service.js", "invoke", "gw1"]},
            "ctl: --version": {OURS: [program("iotdm-ctl"), "--version"], FLOOR: ["curl", "--version"]},
        }
        for turn in range(rounds + 1):
            for what, ways in tasks.items():
                for whom, command in ways.items():
                    if (turn > rounds // 4 and whom in (PYTHON, NODE)) or (whom == NODE and not has_node()):
                        continue
                    used = run(command, environment)
                    if turn:
                        for measure, value in used.items():
                            table.add(f"{what}, {measure}", whom, value)


def run(command: list, environment: dict | None = None) -> dict[str, float]:
    """Milliseconds of the whole process and of CPU, and KiB at most."""
    # What a command says of each of thousands of devices is not shown.
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        done = subprocess.run([LOAD, "run", *map(str, command)], stdout=subprocess.PIPE, stderr=said, text=True, env=environment)
        said.seek(0)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{said.read()[-2000:]}"
    return values(done.stdout)


def fleet(table: Table, directory: Path, sizes: list[int], rounds: int) -> None:
    """A fleet rebooted by one command, taking turns with a program that only calls and reads each twin once."""
    for count in sizes:
        turns = rounds if count == sizes[-1] else 1
        with MeasuredHub(directory / f"hub{count}") as hub:
            hub.create_many(count)
            with Process([LOAD, "devices", hub.data, count]) as devices:
                devices.wait_for("ready", patience=600)
                for turn in range(turns):
                    one_fleet(table, hub, count, directory / f"state{count}-{turn}")


def one_fleet(table: Table, hub: MeasuredHub, count: int, home: Path) -> None:
    what, bare = f"fleet of {count:,}", "calls and twins alone"
    before = process.cpu(hub.process.pid)
    alone = run([LOAD, "calls", hub.data, "-", count, "--all", "--method", "rebootDevice", "--read-twin", "--at-once", AT_ONCE])
    between = process.cpu(hub.process.pid)
    command = [*hub.ctl_command(), "reboot", "--where", "properties.reported.agent.version = '1.0.0'", *at_full_speed()]
    used = run(command, os.environ | {"XDG_STATE_HOME": str(home)})
    after = process.cpu(hub.process.pid)
    table.add(f"{what}: devices a second", OURS, count / used["ms"] * 1e3)
    table.add(f"{what}: devices a second", bare, count / alone["ms"] * 1e3)
    table.add(f"{what}: CPU for each device, ms", OURS, used["CPU, ms"] / count)
    table.add(f"{what}: CPU for each device, ms", bare, alone["CPU, ms"] / count)
    table.add(f"{what}: CPU for each device, ms", "the emulator meanwhile", 1e3 * (after - between) / count)
    table.add(f"{what}: CPU for each device, ms", f"the emulator, {bare}", 1e3 * (between - before) / count)
    table.add(f"{what}: peak of memory, KiB", OURS, used["peak of memory, KiB"])


@contextlib.contextmanager
def pretended_fleet(data: Path, count: int, in_flight: int = IN_FLIGHT) -> Iterator[tuple[Process, list]]:
    """A hub that is nothing but answers, and the command that reboots its devices."""
    with Process([LOAD, "pretended", data, count]) as hub:
        hub.wait_for("^ready")
        where = ["--connection-string-file", data / "service-connection-string", "--ca-file", data / "ca.pem"]
        yield hub, [program("iotdm-ctl"), *where, "reboot", "--where", "tags.site != ''", *at_full_speed(in_flight)]


def pretended(table: Table, directory: Path, sizes: list[int]) -> None:
    """What the tool itself takes for a fleet: a hub that is nothing but answers, and devices that are but numbers."""
    peaks = {}
    for count in sizes:
        with pretended_fleet(directory / f"hub{count}", count) as (hub, command):
            environment = os.environ | {"XDG_STATE_HOME": str(directory / f"state{count}")}
            for how, options in (("planned", ["--dry-run"]), ("rebooted", [])):
                used = run([*command, *options], environment)
                what = f"{count:,} pretended devices {how}"
                peaks[count, how] = used["peak of memory, KiB"]
                table.add(f"{what}: devices a second", OURS, count / used["ms"] * 1e3)
                table.add(f"{what}: CPU for each device, ms", OURS, used["CPU, ms"] / count)
                table.add(f"{what}: peak of memory, KiB", OURS, used["peak of memory, KiB"])
            hub.wait_for("^all were called")
            assert "twice" not in hub.text(), hub.text()
    if len(sizes) > 1:
        *_, fewer, most = sizes
        for how in ("planned", "rebooted"):
            more = (peaks[most, how] - peaks[fewer, how]) / (most - fewer)
            table.add(f"pretended devices {how}: memory for each beyond {fewer:,}, KiB", OURS, more)


def sites(table: Table, directory: Path, count: int) -> None:
    """A fleet of which no two devices of a site may be away at once, with the tool killed five times and resumed."""
    site = {f"d{n}": n % max(count // 20, 1) for n in range(count)}
    with MeasuredHub(directory / "hub") as hub:
        hub.create_many(count)
        for device, number in site.items():
            hub.send("PATCH", f"/twins/{device}?{API}", {"tags": {"site": f"s{number}"}})
        back = threading.Semaphore(0)

        def listen(line: str) -> None:
            if line.startswith("back "):
                back.release()

        with Process([LOAD, "devices", hub.data, count, "--away", AWAY], listener=listen) as devices:
            devices.wait_for("ready", patience=600)
            began, state = time.monotonic(), directory / "state"
            options = ["--interval", "1s", "-o", "jsonl"]
            fleet = ["--where", "tags.site != ''", "--yes", "--at-most", "1", "--per", "tags.site", "--max-in-flight", IN_FLIGHT,
                     "--max-per-second", "100000", *options]
            environment = os.environ | {"XDG_STATE_HOME": str(state)}
            peaks = []
            for nth in range(KILLS):
                with Process([*hub.ctl_command(), "reboot", *fleet], env=environment, stderr=subprocess.DEVNULL) as run_of_all:
                    for _ in range(count // (KILLS + 1)):
                        assert back.acquire(timeout=PATIENCE), f"no device has come back in run {nth + 1}"
                    peaks.append(peak(run_of_all.pid))
                    run_of_all.kill()
                [journal] = state.rglob("*.jsonl")
                fleet = ["--resume", str(journal), *options]
            used = run([*hub.ctl_command(), "reboot", *fleet], environment)
            table.add(f"{count:,} devices, one of a site at a time: devices a second", OURS, count / (time.monotonic() - began))
            table.add(f"{count:,} devices, one of a site at a time: peak of memory, KiB", OURS, max(used["peak of memory, KiB"], *peaks))
            judge(devices.text(), site)


def judge(said: str, site: dict[str, int]) -> None:
    """Fails unless each device was away once, and never two of a site at the same time."""
    away: dict[int, str] = {}
    gone: list[str] = []
    for what, device in re.findall(r"^(away|back) (d\d+)$", said, re.M):
        if what == "away":
            assert site[device] not in away, f"{device} went while {away[site[device]]} of the same site was away"
            away[site[device]] = device
            gone.append(device)
        else:
            del away[site[device]]
    assert sorted(gone) == sorted(site), f"{len(gone)} reboots of {len(set(gone))} of {len(site)} devices"


def peak(pid: int) -> float:
    """The most memory that a process has had, in KiB."""
    return float(re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)[1])
