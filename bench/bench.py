"""Measures iotdm and its peers and prints the table; see bench/run."""

import argparse
import datetime
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import gateway
import instructions
import local_hub
import operator_tool
from goals import goals
from parties import RELEASE, git, has_node
from pyharness.programs import use
from table import Table

SIZES = [10, 100, 1_000, 10_000]
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
        "fleet": lambda: operator_tool.fleet(table, made(directory, "fleet"), SIZES[:options.sizes]),
        "scale": lambda: local_hub.scale(table, 3, SIZES[:options.sizes]),
        "idle": lambda: gateway.idle(table, made(directory, "idle"), options.minutes, options.reconnects),
    }


def made(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/run", description="Measures iotdm beside what people would use instead.")
    parser.add_argument("sections", nargs="*", help="what to measure [default: everything, which also writes RESULTS.md]")
    parser.add_argument("--programs", type=Path, help="a directory with other builds of the programs, to compare with")
    parser.add_argument("--minutes", type=float, default=10, help="how long to be idle [default: 10]")
    parser.add_argument("--reconnects", type=int, default=100, help="how often to reconnect meanwhile [default: 100]")
    parser.add_argument("--sizes", type=int, default=4, choices=range(1, 5), help="how many of 10, 100, 1,000, 10,000 [default: 4]")
    options = parser.parse_args()
    use(options.programs.resolve() if options.programs else RELEASE)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="iotdm-bench-") as directory:
        known = sections(table, Path(directory), options)
        if unknown := set(options.sections) - set(known):
            parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        for name in options.sections or known:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            known[name]()
    head = f"{datetime.date.today()}, commit {git('describe', '--always', '--dirty', '--exclude=*')}, on {machine()}"
    tables = {"goals": goals(table), "table": table.markdown()}
    print(head, *tables.values(), sep="\n\n")
    if not options.sections and not options.programs:
        write({"head": head, **tables})


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
