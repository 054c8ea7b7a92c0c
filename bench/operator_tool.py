"""iotdm-ctl beside other ways to do the same, and with fleets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import process
from gateway import calls, values
from parties import API, LOAD, PEERS, MeasuredHub, echo, has_node
from pyharness.process import Process
from pyharness.programs import program
from table import Table

OURS, FLOOR = "iotdm-ctl", "curl"
PYTHON, NODE = "azure-iot-hub (Python)", "azure-iothub (Node)"
AT_ONCE = 64
# A device is in flight until it is back, which takes a second here at least.
IN_FLIGHT = 1000


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


def run(command: list, environment: dict) -> dict[str, float]:
    """Milliseconds of the whole process and of CPU, and KiB at most."""
    done = subprocess.run([LOAD, "run", *map(str, command)], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return values(done.stdout)


def fleet(table: Table, directory: Path, sizes: list[int]) -> None:
    """A fleet rebooted by one command, beside a program that only calls and reads each twin once."""
    for count in sizes:
        with MeasuredHub(directory / f"hub{count}") as hub:
            hub.create_many(count)
            with Process([LOAD, "devices", hub.data, count]) as devices:
                devices.wait_for("ready", patience=600)
                what = f"fleet of {count:,}"
                bare = calls(hub, "-", count, "--all", "--method", "rebootDevice", "--read-twin", "--at-once", str(AT_ONCE))
                home = directory / f"state{count}"
                before = process.cpu(hub.process.pid)
                used = run([
                    *hub.ctl_command(), "reboot", "--where", "properties.reported.agent.version = '1.0.0'", "--yes", "--canary", "0", "--max-in-flight", IN_FLIGHT,
                    "--max-per-second", "100000", "--interval", "1s", "-o", "jsonl"], os.environ | {"XDG_STATE_HOME": str(home)})
                emulator = process.cpu(hub.process.pid) - before
                table.add(f"{what}: devices a second", OURS, count / used["ms"] * 1e3)
                table.add(f"{what}: devices a second", "calls and twins alone", bare["calls a second"])
                table.add(f"{what}: CPU for each device, ms", OURS, used["CPU, ms"] / count)
                table.add(f"{what}: CPU for each device, ms", "the emulator meanwhile", 1e3 * emulator / count)
                table.add(f"{what}: peak of memory, KiB", OURS, used["peak of memory, KiB"])
