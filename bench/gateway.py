"""The daemon beside other device programs: start, methods, memory, idleness, reboots."""

import contextlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import process
from parties import (
    KEEP_ALIVE,
    LOAD,
    TOPICS,
    MeasuredDaemon,
    MeasuredHub,
    copy_libraries,
    echo,
    git,
    has_node,
    mosquitto_sub,
    node_device,
    python_device,
)
from pyharness.line import HUB, Line
from pyharness.process import Process
from pyharness.programs import ROOT, program
from table import Table

OURS, FLOOR, ECHO = "iotdm-agentd", "mosquitto_sub", "echo client"
PYTHON, NODE = "azure-iot-device (Python)", "azure-iot-device-mqtt (Node)"
# In seconds. Not a wait for an event: what follows a start is over after so long.
SETTLED = 10
DEVICES = ("agentd", "floor", "echo", "python", "node", "large", "again")


def start(table: Table, directory: Path, rounds: int) -> None:
    with MeasuredHub(directory / "hub", *DEVICES) as hub, ThreadPoolExecutor(1) as caller:
        hub.fill("agentd", 1)
        hub.fill("large", 32)
        starts = {
            OURS: ("agentd", lambda: MeasuredDaemon(directory / "home", hub, "agentd")),
            f"{OURS}, twin of 32 KB": ("large", lambda: MeasuredDaemon(directory / "large", hub, "large")),
            ECHO: ("echo", lambda: echo(hub, "echo")),
            PYTHON: ("python", lambda: python_device(hub, "python")),
        }
        if has_node():
            starts[NODE] = ("node", lambda: node_device(hub, "node"))
        for turn in range(rounds + 1):
            # Who comes first finds the caches as another program has left them, so it is another one each time.
            for whom in rotated([*starts, FLOOR], turn - 1):
                # The first turn only fills the caches of the system.
                into = table if turn else Table()
                if whom == FLOOR:
                    with mosquitto_sub(hub, "floor") as party:
                        at, _ = party.wait_for(f"Subscribed.*{', '.join('0' for _ in TOPICS)}")
                        into.add("start: exec to method answered, ms", f"{FLOOR}, exec to subscribed", 1e3 * (at - party.started))
                elif turn <= rounds // 4 or whom not in (PYTHON, NODE):
                    device, begin = starts[whom]
                    answered = caller.submit(answered_at, hub, device)
                    with begin() as party:
                        into.add("start: exec to method answered, ms", whom, 1e3 * (answered.result() - party.started))
                        if isinstance(party, MeasuredDaemon):
                            into.add("start: exec to READY=1, ms", whom, 1e3 * (party.told("READY=1") - party.started))
                            into.add("start: peak of resident memory, KiB", whom, process.field(party.pid, "VmHWM"))


def rotated(parties: list[str], turn: int) -> list[str]:
    """The parties from another one on in each turn."""
    first = turn % len(parties)
    return parties[first:] + parties[:first]


def answered_at(hub: MeasuredHub, device: str) -> float:
    """Makes a call that the hub holds back until the device listens; when its answer came."""
    hub.invoke(device, connect_timeout=60)
    return time.monotonic()


def methods(table: Table, directory: Path, rounds: int) -> None:
    with MeasuredHub(directory / "hub", *DEVICES) as hub, \
            MeasuredDaemon(directory / "home", hub, "agentd") as ours, echo(hub, "echo") as yardstick, \
            python_device(hub, "python") as python:
        parties = {OURS: ("agentd", ours, 500), ECHO: ("echo", yardstick, 500), PYTHON: ("python", python, 50)}
        yardstick.wait_for("ready")
        python.wait_for("ready")
        ours.told("STATUS=connected")
        if has_node():
            node = node_device(hub, "node")
            node.wait_for("ready")
            parties[NODE] = ("node", node, 50)
        calls(hub, "agentd", 100)
        before = process.private_memory(ours.pid)
        for _ in range(rounds):
            for whom, (device, party, count) in parties.items():
                cpu = process.cpu(party.pid)
                told = calls(hub, device, count)
                cpu = process.cpu(party.pid) - cpu
                table.add("method: round trip, median, ms", whom, told["call, median"])
                table.add("method: round trip, 99th percentile, ms", whom, told["call, 99th percentile"])
                table.add("method: CPU for each call, ms", whom, 1e3 * cpu / count)
        table.add(f"memory: private, before {rounds * 500:,} methods, KiB", OURS, before)
        table.add(f"memory: private, after {rounds * 500:,} methods, KiB", OURS, process.private_memory(ours.pid))
        if has_node():
            node.stop()


def calls(hub: MeasuredHub, device: str, count: int, *options: str) -> dict[str, float]:
    return values(subprocess.run([LOAD, "calls", hub.data, device, str(count), *options],
                                 check=True, capture_output=True, text=True).stdout)


def values(text: str) -> dict[str, float]:
    """What the load says, by what it is."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert lines, f"nothing was measured: {text!r}"
    return {line["what"]: line["value"] for line in lines}


def idle(table: Table, directory: Path, minutes: float, reconnects: int) -> None:
    """Measures all device programs at once, while one more daemon reconnects again and again."""
    keep_alive = f'hub.keep_alive = "{KEEP_ALIVE}s"\n'
    with MeasuredHub(directory / "hub", *DEVICES) as hub, contextlib.ExitStack() as running:
        begin = {
            OURS: lambda: MeasuredDaemon(directory / "home", hub, "agentd", keep_alive),
            FLOOR: lambda libraries=None: mosquitto_sub(hub, "floor", libraries=libraries),
            PYTHON: lambda libraries=None: python_device(hub, "python", libraries),
        }
        if has_node():
            begin[NODE] = lambda: node_device(hub, "node")
        ready = {OURS: lambda daemon: daemon.told("STATUS=connected"), FLOOR: lambda sub: sub.wait_for("Subscribed")}
        parties = {}
        libraries = copy_libraries(directory / "lib")
        for whom in begin:
            with begin[whom](libraries) if whom in (FLOOR, PYTHON) else begin[whom]() as party:
                ready.get(whom, lambda device: device.wait_for("ready"))(party)
                time.sleep(SETTLED)
                table.add("memory: private, by itself, KiB", whom, process.private_memory(party.pid))
                table.add("memory: resident, by itself, KiB", whom, process.field(party.pid, "VmRSS"))
                table.add("memory: of no file, by itself, KiB", whom, process.field(party.pid, "RssAnon"))
        for whom in begin:
            parties[whom] = running.enter_context(begin[whom]())
            ready.get(whom, lambda device: device.wait_for("ready"))(parties[whom])
        time.sleep(SETTLED)
        before = {whom: process.activity(party.pid) for whom, party in parties.items()}
        reconnecting = running.enter_context(ThreadPoolExecutor(1)).submit(reconnect, table, directory, hub, reconnects)
        began = time.monotonic()
        time.sleep(60 * minutes)
        to_ten_minutes = 600 / (time.monotonic() - began)
        for whom, party in parties.items():
            now, then = process.activity(party.pid), before[whom]
            table.add("memory: private, beside the others, KiB", whom, process.private_memory(party.pid))
            table.add("memory: resident, KiB", whom, process.field(party.pid, "VmRSS"))
            table.add("memory: of no file, KiB", whom, process.field(party.pid, "RssAnon"))
            table.add("idle for 10 minutes: voluntary context switches", whom, (now.wake_ups - then.wake_ups) * to_ten_minutes)
            table.add("idle for 10 minutes: CPU, ms", whom, 1e3 * (now.cpu - then.cpu) * to_ten_minutes)
            table.add("idle for 10 minutes: bytes on the wire", whom, (now.bytes - then.bytes) * to_ten_minutes)
            table.add("idle: KiB in such a day, without new tokens", whom, (now.bytes - then.bytes) * to_ten_minutes * 144 / 1024)
        reconnecting.result()


def reconnect(table: Table, directory: Path, hub: MeasuredHub, times: int) -> None:
    # A copy of the program, so that its pages are shared with no other process.
    binary = shutil.copy(program("iotdm-agentd"), directory)
    with MeasuredDaemon(directory / "again", hub, "again", binary=binary) as daemon:
        for nth in range(1, times + 2):
            deadline = time.monotonic() + 120
            while not daemon.tells("STATUS=connected", nth, 0.2):
                assert time.monotonic() < deadline, f"not connected for the {nth}th time: {daemon.lines[-5:]}"
                # A new address makes the daemon try at once, as a network that comes back does.
                for verb in ("add", "del"):
                    subprocess.run(["ip", "address", verb, "192.0.2.1/32", "dev", "lo"], check=True)
            if nth in (2, times + 1):
                when = "after the first reconnect" if nth == 2 else f"after {times:,} reconnects"
                table.add(f"memory: private, {when}, KiB", OURS, process.private_memory(daemon.pid))
                table.add(f"memory: open files, {when}", OURS, process.open_files(daemon.pid))
            hub.drop("again")


def reboot(table: Table, directory: Path, rounds: int) -> None:
    """From the reply to the call of logind. The login manager is ours and does nothing."""
    # One asks once in each boot, also where only the twin still knows of it.
    devices = [f"gw{nth}" for nth in range(rounds + 1)]
    with MeasuredHub(directory / "hub", *devices) as hub:
        for nth, device in enumerate(devices):
            with Process([LOAD, "logind"]) as logind:
                _, address = logind.wait_for("^unix:.*")
                with MeasuredDaemon(directory / f"home{nth}", hub, device, bus=address[0]) as daemon:
                    daemon.told("STATUS=connected")
                    hub.invoke(device, connect_timeout=60)
                    reply = hub.invoke(device, "rebootDevice", {"id": f"r{nth}"})
                    replied = time.monotonic()
                    assert reply["status"] == 200, reply
                    asked, _ = logind.wait_for(r"^Reboot\(")
                    if nth:
                        table.add("reboot: reply at the operator to logind called, ms", OURS, 1e3 * (asked - replied))
                    daemon.kill()


def network(table: Table, directory: Path, rounds: int) -> None:
    """From the network up to rebootTime acknowledged, over a line with a delay."""
    if os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK) or not os.access("/run", os.W_OK):
        print("left out: the way over a line with a delay (needs root and /dev/net/tun)", file=sys.stderr)
        return
    delay, chance = 0.05, random.Random(1)
    line = Line(1)
    ends = {end: ("ip", "netns", "exec", end) for end in (line.hub, line.gateway)}
    try:
        with MeasuredHub(directory / "hub", *DEVICES, host=HUB, inside=ends[line.hub], options=("--bind", HUB)) as hub:
            for nth in range(rounds):
                line.delay = delay
                began = time.monotonic()
                subprocess.run([*ends[line.gateway], "true"], check=True)
                entering = time.monotonic() - began
                with mosquitto_sub(hub, "floor", ends[line.gateway]) as floor:
                    accepted, _ = floor.wait_for("received CONNACK")
                    subscribed, _ = floor.wait_for("Subscribed")
                round_trip = subscribed - accepted
                table.add("network: exec to connected, ms", FLOOR, 1e3 * (accepted - floor.started - entering))
                table.add("network: round trip, ms", FLOOR, 1e3 * round_trip)
                with MeasuredDaemon(directory / f"home{nth}", hub, "agentd", 'log.level = "debug"\n', inside=ends[line.gateway]) as daemon:
                    daemon.wait_for("with 204")
                    subprocess.run([*hub.ctl_command(), "reboot", "agentd", "--no-wait"], check=True, capture_output=True)
                    daemon.wait_for("the simulated machine is down")
                    told = daemon.times_told("STATUS=not connected")
                    line.plug("down")
                    daemon.told("STATUS=not connected", told + 1)
                    # Not a wait for an event: as long as a network may take.
                    time.sleep(chance.uniform(1, 8))
                    done = sum("with 204" in text for _, text in daemon.lines)
                    up = time.monotonic()
                    line.plug("up")
                    dialled, _ = daemon.wait_for("handshake", nth=1 + sum("handshake" in text for _, text in daemon.lines))
                    acknowledged, _ = daemon.wait_for("with 204", nth=done + 1)
                table.add("network up to TLS done, ms", OURS, 1e3 * (dialled - up))
                table.add("network: TLS done to rebootTime acknowledged, round trips", OURS, (acknowledged - dialled) / round_trip)
                table.add("network up to rebootTime acknowledged, ms", OURS, 1e3 * (acknowledged - up))
    finally:
        line.close()


def sizes(table: Table) -> None:
    """The packages' as well, for as many architectures as have been built since the last commit."""
    table.add("size: stripped binary, KiB", f"{OURS}, as built here", Path(program("iotdm-agentd")).stat().st_size / 1024)
    # When this commit was made or checked out.
    committed = int(re.search(r"\{(\d+)", git("reflog", "-1", "--date=unix", "--format=%gd"))[1])
    for architecture in ("amd64", "arm64", "armhf"):
        packages = (ROOT / "target/deb").glob(f"iotdm-agentd_*_{architecture}.deb")
        package = next((package for package in packages if package.stat().st_mtime > committed), None)
        if package is None:
            print(f"left out: the package for {architecture} (make deb ARCH={architecture})", file=sys.stderr)
            continue
        table.add("size: package, KiB", f"{OURS}, {architecture}", package.stat().st_size / 1024)
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
        inside = tarfile.open(fileobj=io.BytesIO(tar)).getmember("./usr/bin/iotdm-agentd")
        table.add("size: stripped binary, KiB", f"{OURS}, {architecture}, of the package", inside.size / 1024)
