"""run [--again] [PART…]: changes the sources in one small way after the other, runs the
tests each time, and counts the changes that no test notices. What came of it is written
into RESULTS.md beside this script.

The parts, all unless told: core, proto, ctl, emulator. The changes are those that
cargo-mutants lists. Most of them are built into one program, each behind a switch
(switches.py), and tried with the tests beside the code, in a second each, and, where these
do not notice them, with the crate's other tests. What cannot be behind a switch is built by
itself.

Fails, and names them, if changes go unnoticed that known.toml beside this script does
not say to be equivalent or accepted, and if it has some that are noticed or not there.

--again   only what was not noticed the last time; the rest counts as it was found then
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import switches

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
RESULTS, KNOWN = HERE / "RESULTS.md", HERE / "known.toml"
PLACE = ROOT / "target/mutants"
# Seconds after which tests count as endless: those beside the code, which take one or two, and all of a crate.
PATIENCE, PATIENCE_WITH_ALL = 120, 600


@dataclass
class Crate:
    package: str
    folder: str
    # Where decisions are taken and words are parsed.
    files: list[str]
    # What the unit tests' program is given.
    arguments: list[str]
    # The crate's other tests, which may notice what is left.
    other_tests: list[str]


def files(folder: str, names: str) -> list[str]:
    return [f"{folder}/{name}.rs" for name in names.split()]


PARTS = {
    "core": [
        # Random histories would notice now this change and now that one.
        Crate("iotdm-core", "core", ["core/src/**/*.rs"], ["--skip=::promises::"], []),
        Crate("iotdm-agentd", "daemon", files("daemon/src", "host/store durable"), ["store::", "durable::"], []),
    ],
    "proto": [
        Crate("iotdm-proto", "proto", files("proto/src", "sas twin connection_string topic time"), [], []),
    ],
    "ctl": [
        Crate("iotdm-ctl", "ctl", [
            *files("ctl/src/hub", "error refusal pace"),
            *files("ctl/src/commands/reboot", "outcome device_outcome summary fleet journal rules"),
        ], [], ["--test=it"]),
    ],
    "emulator": [
        Crate("iotdm-emulator", "emulator",
              files("emulator/src", "policies authentication proof throttle method_call"), [], ["--test=it"]),
    ],
}
# The lines of the table that the parts follow.
MARK = "|---|---|---|---|---|---|---|---|---|---|\n"
# What cargo mutants calls what came of a change.
CAUGHT, ENDLESS, MISSED, UNVIABLE = "CaughtMutant", "Timeout", "MissedMutant", "Unviable"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/mutants/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = read_known()
    faults = [fault for part in asked.part or PARTS for fault in judge(part, asked.again, known)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def read_known() -> dict[str, str]:
    """What may go unnoticed, as `stable` names it: 'equivalent' or 'accepted'."""
    kinds: dict[str, str] = {}
    for kind, changes in tomllib.loads(KNOWN.read_text()).items():
        if kind not in ("equivalent", "accepted"):
            sys.exit(f"{KNOWN}: there is no [[{kind}]], only [[equivalent]] and [[accepted]]")
        for change in changes:
            if set(change) != {"change", "line", "reason"} or not all(change.values()):
                sys.exit(f"{KNOWN}: {change} is not made of change, line and reason")
            name = entry(change["change"], change["line"])
            if name in kinds:
                sys.exit(f"{KNOWN} has this twice:\n{name}")
            if not (ROOT / change["change"].split(":")[0]).is_file():
                sys.exit(f"{KNOWN}: there is no such file:\n{name}")
            kinds[name] = kind
    return kinds


def entry(change: str, line: str) -> str:
    """As it stands in known.toml."""
    return f"change = '{change}'\nline = '{line}'\n"


def judge(part: str, again: bool, known: dict[str, str]) -> list[str]:
    """Tries the changes of a part and writes what came of it; returns what is wrong with that."""
    PLACE.mkdir(parents=True, exist_ok=True)
    earlier = PLACE / f"{part}.json"
    found: dict[str, list[str]] = json.loads(earlier.read_text()) if again else {}
    at = revision()
    listed: dict[str, str] = {}
    for crate in PARTS[part]:
        changes = every_change(crate)
        listed |= {change["name"]: change["stable"] for change in changes}
        left = [change for change in changes if found.get(change["name"], [MISSED])[0] == MISSED]
        if left:
            switched = try_switched(part, crate, left)
            found |= {name: [end, at] for name, end in switched.items()}
            left = [change for change in left if change["name"] not in switched]
        if left:
            found |= {name: [end, at] for name, end in try_each(part, crate, left).items()}
    found = {name: found[name] for name in listed}
    earlier.write_text(json.dumps(found, indent=1))
    return tell(part, found, listed, known)


def every_change(crate: Crate) -> list[dict]:
    """All changes of a crate's files as cargo mutants has them, each with `stable`'s name for it."""
    command = [*mutants(crate), "--list", "--json"]
    listed = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    if not listed:
        sys.exit(f"there is nothing to change in {crate.package}")
    sources = {change["file"]: (ROOT / change["file"]).read_text().splitlines() for change in listed}
    return [change | {"stable": stable(change["name"], sources[change["file"]])} for change in listed]


def stable(name: str, source: list[str]) -> str:
    """A change by its line, with a mark where it is: that outlives changes elsewhere in the file."""
    file, line, column, what = name.split(":", 3)
    text, before = source[int(line) - 1], int(column) - 1
    return entry(f"{file}:{what}", f"{text[:before]}▸{text[before:]}".strip())


def mutants(crate: Crate) -> list[str]:
    return ["cargo", "mutants", f"--package={crate.package}", *(f"--file={file}" for file in crate.files)]


def copied(name: str) -> Path:
    """A copy of the sources, in which they may be changed."""
    tree = PLACE / name
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).is_file():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            # With the time of now, as another copy may have been built in the same place.
            shutil.copy(ROOT / file, tree / file)
    return tree


def come_of(command: list[str], folder: Path, env: dict[str, str], patience: float) -> str:
    """What came of a change, by what these tests say. Noticed it is by a test that fails, or by not ending in time. Tests
    that end in another way, as by a machine without memory, have noticed nothing."""
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True)

    def end() -> None:
        """Ends the tests and what they have started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    ended = threading.Event()
    timer = threading.Timer(patience, lambda: (ended.set(), end()))
    timer.start()
    try:
        # One test is enough: the others need not run to their ends.
        if any(re.match(r"test .* \.\.\. FAILED$|test result: FAILED", line) for line in process.stdout):
            return CAUGHT
    finally:
        timer.cancel()
        end()
        code = process.wait()
    if ended.is_set():
        return ENDLESS
    if code:
        print(f"the tests ended with {code} and without a failed test", flush=True)
    return MISSED


def try_switched(part: str, crate: Crate, changes: list[dict]) -> dict[str, str]:
    """What came of each of these changes that can be behind a switch."""
    tree = copied(f"{part}-switched")
    print(f"{part}: building {len(changes)} changes of {crate.package} into one program", flush=True)
    env = switches.environment(PLACE / "target")
    programs, planted, broken = switches.build(tree, crate.package, crate.folder, changes, crate.other_tests, env)
    folder = tree / crate.folder
    unit, *others = programs
    # Those beside the code by themselves, lest one meet what another has changed; most of the others wait for something.
    commands = [([unit, "--test-threads=1", *crate.arguments], PATIENCE),
                *(([other, "--test-threads=16"], PATIENCE_WITH_ALL) for other in others)]
    found = {changes[number]["name"]: UNVIABLE for number in broken}
    left = sorted(planted)
    for command, patience in commands:
        unchanged = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        passed = re.search(r"^test result: ok\. ([0-9]+) passed", unchanged.stdout, re.M)
        if not passed or passed[1] == "0":
            sys.exit(f"{part}: without any change, the tests of {crate.package} do not pass:\n{unchanged.stdout}")
        print(f"{part}: {passed[1]} tests judge {len(left)} of them; {len(broken)} do not compile", flush=True)

        def of(number: int, command: list[str] = command, patience: float = patience) -> str:
            return come_of(command, folder, env | {"MUTANT": str(number)}, patience)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for number, came in zip(left, pool.map(of, left), strict=True):
                found[changes[number]["name"]] = came
                if came != CAUGHT:
                    print(f"{came}: {changes[number]['name']}", flush=True)
        left = [number for number in left if found[changes[number]["name"]] == MISSED]
    return found


def try_each(part: str, crate: Crate, changes: list[dict]) -> dict[str, str]:
    """What came of each of these changes by itself."""
    tree = copied(f"{part}-each")
    env = switches.environment(PLACE / "target")
    tests = ["cargo", "test", "--locked", f"--package={crate.package}", "--lib", *crate.other_tests]
    found = {}
    for change in changes:
        file = tree / change["file"]
        source = file.read_text()
        file.write_text(switches.changed(source, change))
        if subprocess.run([*tests, "--no-run"], cwd=tree, env=env, capture_output=True).returncode:
            came = UNVIABLE
        else:
            came = come_of([*tests, "--", *crate.arguments], tree, env, PATIENCE_WITH_ALL)
        file.write_text(source)
        found[change["name"]] = came
        print(f"{came}: {change['name']}", flush=True)
    return found


def revision() -> str:
    """What is tried, and today."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return f"{git('rev-parse', '--short', 'HEAD')}{' and changes' if changed else ''}, {datetime.now(UTC):%Y-%m-%d}"


def tell(part: str, found: dict[str, list[str]], listed: dict[str, str], known: dict[str, str]) -> list[str]:
    ends = Counter(end for end, _ in found.values())
    missed = [name for name, (end, _) in found.items() if end == MISSED]
    noticed = ends[CAUGHT] + ends[ENDLESS]
    viable = noticed + len(missed)
    if noticed == 0:
        sys.exit(f"{part}: not one change was noticed, so no test was run")
    kinds = Counter(known.get(listed[name]) for name in missed)
    revisions = Counter(at for _, at in found.values())
    at = "; ".join(f"{when} ({count})" if len(revisions) > 1 else when for when, count in revisions.items())
    write(part, f"| {part} | {viable} | {noticed} | {ends[ENDLESS]} | {len(missed)} | {kinds['equivalent']} "
                f"| {kinds['accepted']} | {100 * noticed / viable:.1f} % "
                f"| {100 * noticed / (viable - kinds['equivalent']):.1f} % | {at} |")
    print(f"{part}: {noticed} of {viable} viable changes were noticed, {kinds[None]} went unnoticed and are not known")
    new = [f"{part}: nobody noticed {name}\n{listed[name]}" for name in missed if listed[name] not in known]
    left = {listed[name] for name in missed}
    own = {name.split(":")[0] for name in listed}
    stale = [f"{part}: {KNOWN.name} has what was noticed, or is there no longer\n{name}" for name in known
             if name not in left and name.split("'")[1].split(":")[0] in own]
    return new + stale


def write(part: str, row: str) -> None:
    """Puts a part into the table, in the place of an earlier one, and leaves all else."""
    head, _, rest = RESULTS.read_text().partition(MARK)
    table = re.match(r"(\|.*\n)*", rest)[0]
    rows = {line.split()[1]: line for line in table.splitlines()} | {part: row}
    written = "".join(f"{rows[name]}\n" for name in PARTS if name in rows)
    RESULTS.write_text(head + MARK + written + rest.removeprefix(table))


if __name__ == "__main__":
    sys.exit(main())
