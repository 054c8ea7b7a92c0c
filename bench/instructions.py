"""Instructions in user space, counted by callgrind: a number that does not depend on what else the machine does.

Each program runs twice from its start to its end, with few and with many of what is
counted; the difference is that of the further ones. The clocks and the random ids are
others in each run, so that the last digits are not the same.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from operator_tool import pretended_fleet
from parties import LOAD, MeasuredDaemon, MeasuredHub
from pyharness.process import Process
from table import Table

OURS, ECHO, CTL = "iotdm-agentd", "echo client", "iotdm-ctl"
# What a command that is counted begins with. It says "Collected : …" at its end.
COUNTED = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
COLLECTED = r"Collected : (\d+)"
# Few and many: of calls, of requests that are called off again, and of devices.
CALLS, REQUESTS, FLEETS = (50, 550), (5, 25), (100, 1100)
# So few devices of a fleet that all of its connections are made within the first hundred: a
# handshake takes as many instructions as a device.
IN_FLIGHT = 20


def measure(table: Table, directory: Path) -> None:
    if shutil.which(COUNTED[0]) is None:
        print("left out: counting instructions (needs valgrind)", file=sys.stderr)
        return
    with MeasuredHub(directory / "hub", "agentd", "echo") as hub:
        daemons = iter(range(100))

        def daemon(work: Callable[[int], object]) -> Callable[[int], int]:
            def run(count: int) -> int:
                home = directory / f"home{next(daemons)}"
                with MeasuredDaemon(home, hub, "agentd", "reboot.max_per_hour = 60\n", inside=COUNTED) as party:
                    party.told("STATUS=connected")
                    hub.invoke("agentd", connect_timeout=60)
                    work(count)
                    return collected(party)
            return run

        def echo(count: int) -> int:
            with Process([*COUNTED, LOAD, "echo", hub.data, "echo"]) as party:
                party.wait_for("ready")
                call(hub, "echo", count)
                return collected(party)

        what = "instructions: for each method call"
        table.add(what, OURS, each(daemon(lambda count: call(hub, "agentd", count)), CALLS))
        table.add(what, ECHO, each(echo, CALLS))
        what = "instructions: for each request that is recorded, told in the twin, and called off"
        table.add(what, OURS, each(daemon(lambda count: ask_and_cancel(hub, count)), REQUESTS))
    what = "instructions: for each device of a fleet that is rebooted"
    table.add(what, CTL, each(lambda count: of_fleet(directory, count), FLEETS))


def each(run: Callable[[int], int], counts: Sequence[int]) -> float:
    """The instructions for each of what `run` is told to do so often."""
    few, many = counts
    less = run(few)
    return (run(many) - less) / (many - few)


def collected(party: Process) -> int:
    """Ends a program that is counted; its instructions."""
    party.stop()
    return int(party.wait_for(COLLECTED).match[1])


def of_fleet(directory: Path, count: int) -> int:
    """The instructions of the tool for a whole fleet of pretended devices."""
    state = os.environ | {"XDG_STATE_HOME": str(directory / f"state{count}")}
    with pretended_fleet(directory / f"fleet{count}", count, IN_FLIGHT) as (_, reboot):
        done = subprocess.run([*COUNTED, *map(str, reboot)], check=True, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, env=state)
    return int(re.search(COLLECTED, done.stderr)[1])


def call(hub: MeasuredHub, device: str, count: int) -> None:
    subprocess.run([LOAD, "calls", hub.data, device, str(count)], check=True, capture_output=True)


def ask_and_cancel(hub: MeasuredHub, count: int) -> None:
    for nth in range(count):
        reply = hub.invoke("agentd", "rebootDevice", {"id": f"r{nth}-{count}", "delaySeconds": 3600})
        assert reply["status"] == 200, reply
        reply = hub.invoke("agentd", "cancelReboot", {})
        assert reply["status"] == 200, reply
