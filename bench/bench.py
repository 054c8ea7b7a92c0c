"""Measures iotdm and its peers and prints the table; see bench/run."""

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import costs
import curves
import fleets
import gateway
import instructions
import local_hub
import operator_tool
from goals import goals
from parties import RELEASE, git, has_node
from pyharness.programs import use
from table import Table

SIZES = [10, 100, 1_000, 10_000]
# Of fleets that are only pretended.
LARGE_SIZES = [100, 1_000, 10_000, 100_000]
# These run neither the daemon nor any program that it is compared with.
BESIDE_IDLE = ("size", "scale", "twins", "fleet", "pretended", "sites")
RESULTS = Path(__file__).parent / "RESULTS.md"
# The written part of the results is between the tables.
MARKS = "<!-- {} -->"


def sections(table: Table, directory: Path, options: argparse.Namespace) -> dict:
    return {
        "size": lambda: gateway.sizes(table),
        "start": lambda: gateway.start(table, made(directory, "start"), 20),
        "method": lambda: gateway.methods(table, made(directory, "method"), 20),
        "reboot": lambda: gateway.reboot(table, made(directory, "reboot"), 10),
        "network": lambda: gateway.network(table, made(directory, "network"), 10),
        "ctl": lambda: operator_tool.commands(table, made(directory, "ctl"), 20),
        "ready": lambda: local_hub.start(table, made(directory, "ready"), 15),
        "instructions": lambda: instructions.measure(table, made(directory, "instructions")),
        "syncs": lambda: local_hub.syncs(table, made(directory, "syncs")),
        "fleet": lambda: operator_tool.fleet(table, made(directory, "fleet"), SIZES[:options.sizes], 3),
        "pretended": lambda: operator_tool.pretended(table, made(directory, "pretended"), LARGE_SIZES[:options.sizes]),
        "sites": lambda: operator_tool.sites(table, made(directory, "sites"), SIZES[options.sizes - 1]),
        "scale": lambda: local_hub.scale(table, 3, SIZES[:options.sizes]),
        "twins": lambda: local_hub.twins(table, made(directory, "twins")),
        "health": lambda: costs.health(table, made(directory, "health"), 5),
        "preflight": lambda: costs.preflight(table, made(directory, "preflight"), 20),
        "history": lambda: costs.history(table, made(directory, "history"), 10),
        "idle": lambda: gateway.idle(table, made(directory, "idle"), options.minutes, options.reconnects),
    }


def made(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/run", description="Measures iotdm beside what people would use instead.")
    parser.add_argument("sections", nargs="*", metavar="SECTION",
                        help=f"what to measure, of {', '.join(sections(Table(), Path(), argparse.Namespace()))} [default: everything, which "
                             "also writes RESULTS.md, the pictures beside it, and the tables of docs/scale.md]")
    parser.add_argument("--programs", type=Path, help="a directory with other builds of the programs, to compare with")
    parser.add_argument("--minutes", type=float, default=10, help="how long to be idle [default: 10]")
    parser.add_argument("--reconnects", type=int, default=100, help="how often to reconnect meanwhile [default: 100]")
    parser.add_argument("--sizes", type=int, default=4, choices=range(1, 5), help="how many of 10, 100, 1,000, 10,000 devices, and of 100 to 100,000 pretended ones [default: 4]")
    parser.add_argument("--values", type=Path, help="write what was measured to this file, as JSON, and nothing else")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of what was measured [default: none, or this one for everything]")
    options = parser.parse_args()
    use(options.programs.resolve() if options.programs else RELEASE)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="iotdm-bench-") as directory:
        known = sections(table, Path(directory), options)
        if unknown := set(options.sections) - set(known):
            parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        failed = measure(table, Path(directory), options, known)
    if options.values:
        options.values.write_text(json.dumps({"failed": failed, "values": table.values}))
        return
    head = f"{datetime.date.today()}, commit {git('describe', '--always', '--dirty', '--exclude=*')}, on {machine()}"
    if failed:
        head += f"\n\nNot measured, as something failed: {', '.join(failed)}."
    tables = {"goals": goals(table), "table": table.markdown()}
    print(head, *tables.values(), sep="\n\n")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        print(*curves.draw(table, options.pictures), sep="\n")
    if not options.sections and not options.programs:
        pictures = ", ".join(f"[{file.stem}]({file.name})" for file in curves.draw(table, RESULTS.parent))
        write({"head": f"{head}\n\nPictures: {pictures}.", **tables})
        fleets.write()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def measure(table: Table, directory: Path, options: argparse.Namespace, known: dict) -> list[str]:
    """Measures the sections that are wanted, and returns those that failed.

    One that fails costs none of the others. In a run of everything, the idle programs
    have a network of their own and wait while the hub and the operator's tool are
    measured, which run no program of theirs.
    """
    idle = None
    if not options.sections:
        values = directory / "idle.json"
        ours = [sys.executable, __file__, "idle", "--minutes", options.minutes, "--reconnects", options.reconnects, "--values", values]
        if options.programs:
            ours += ["--programs", options.programs.resolve()]
        command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *map(str, ours)]
        idle = subprocess.Popen(command)
    failed = []
    for name in options.sections or [*BESIDE_IDLE, *(name for name in known if name not in (*BESIDE_IDLE, "idle"))]:
        if idle and name not in BESIDE_IDLE:
            failed += take_over(table, idle, values)
            idle = None
        print(f"{datetime.datetime.now():%H:%M:%S} measuring: {name}", file=sys.stderr, flush=True)
        try:
            known[name]()
        except Exception:
            traceback.print_exc()
            failed.append(name)
    return failed


def take_over(table: Table, idle: subprocess.Popen, values: Path) -> list[str]:
    """Waits for what was measured meanwhile, and adds it; whether that failed."""
    if idle.wait() or not values.exists():
        return ["idle"]
    told = json.loads(values.read_text())
    for what, parties in told["values"].items():
        for whom, measured in parties.items():
            for value in measured:
                table.add(what, whom, value)
    return told["failed"]


def write(parts: dict[str, str]) -> None:
    """Replaces what stands between each pair of marks in the results."""
    text = RESULTS.read_text()
    for name, part in parts.items():
        begin, end = MARKS.format(name), MARKS.format(f"end of {name}")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{part}\n\n{end}{rest.split(end)[1]}"
    RESULTS.write_text(text)


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1024 / 1024
    load = Path("/proc/loadavg").read_text().split()[0]
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    curl, broker = (subprocess.run([name, "--version"], capture_output=True, text=True).stdout.split()[which]
                    for name, which in (("curl", 1), ("mosquitto_sub", 2)))
    return f"{cores} cores of {cpu[1] if cpu else platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}, " \
           f"load at the end {load}; curl {curl}, mosquitto {broker}, node {node()}, Python {platform.python_version()}"


def node() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip() if has_node() else "none"


if __name__ == "__main__":
    main()
