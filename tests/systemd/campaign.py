"""Cuts the power of gateways at random instants of a reboot, many times, and
counts what became of the requests. As root; 'make deb' and the emulator and
iotdm-ctl have to be built before."""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import slow_shutdown
from judges.tally import Tally
from judges.verdict import LOST
from judges.wire import Wire
from machines import gateways, image, package
from powercuts import subjects
from powercuts.plan import STAGES
from powercuts.subjects import SUFFERINGS, Suffering
from powercuts.trial import Campaign
from pyharness.hub import Hub
from pyharness.programs import ROOT

REPORT = "tests/systemd/CAMPAIGN.md"
HEAD = """\
# The last long campaign

As `make campaign` printed it. `powercuts/` says what is cut when, and what the machine endures besides;
`judges/verdict.py` what counts as lost, doubled, too early or untrue. A trial has one cut, or two; *asked by* counts
the kinds of requests, *local* is an administrator's own reboot, after which the request comes.
"""

# The part of the cuts on a slow disk that has to fall before the answer: else too little is shown of what is before it.
BEFORE_THE_ANSWER = 1 / 5


def main() -> int:
    arguments = parse()
    # Leaves no machine behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failures = 0
    runs = [("container", SUFFERINGS[name], arguments.container) for name in arguments.suffering]
    for name, suffering, trials in [*runs, ("qemu", SUFFERINGS["plain"], arguments.qemu)]:
        if trials:
            failures += run(name, suffering, range(arguments.first, arguments.first + trials), arguments)
    if arguments.slow_shutdown:
        failures += shut_down_slowly(arguments)
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="repeats a campaign")
    parser.add_argument("--container", type=int, default=0, metavar="N", help="trials in a container, of each kind")
    parser.add_argument("--suffering", nargs="+", choices=SUFFERINGS, default=list(SUFFERINGS), metavar="KIND",
                        help=f"what the container endures besides: {', '.join(SUFFERINGS)} (default: each)")
    parser.add_argument("--qemu", type=int, default=0, metavar="N", help="trials in QEMU")
    parser.add_argument("--slow-shutdown", type=int, default=0, metavar="SECONDS",
                        help="also a shutdown that takes so long, with the shipped settings")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first trial, to repeat a single one")
    parser.add_argument("--deb", type=Path, help="the daemon's package (default: the one in target/deb)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="writes the counts into FILE, with commit and date")
    arguments = parser.parse_args()
    if min(arguments.container, arguments.qemu) < 0 or arguments.container + arguments.qemu + arguments.slow_shutdown == 0:
        parser.error("no trial was asked for: say how many with --container or --qemu")
    arguments.tried = revision()
    return arguments


def run(name: str, suffering: Suffering, numbers: range, arguments: argparse.Namespace) -> int:
    """Prints each trial and the counts of all; how many things were wrong, trials that were left out included."""
    planned = len(numbers)
    tally, began = Tally(stage.name for stage in STAGES), time.monotonic()
    try:
        while numbers:
            now, numbers = numbers[:subjects.TRIALS_PER_MACHINE], numbers[subjects.TRIALS_PER_MACHINE:]
            with tempfile.TemporaryDirectory(prefix="iotdm-campaign-") as place:
                run_on_one(name, suffering, now, arguments, Path(place), tally)
    finally:
        # A campaign that is ended early prints its counts as well.
        took = f"{time.monotonic() - began:.0f} s"
        text = f"seed {arguments.seed}, {tally.trials} of {planned} trials, {took}\n\n{tally}\n"
        if suffering.slow:
            text += f"cuts before the answer: {tally.before_the_answer():.0%}, to be at least {BEFORE_THE_ANSWER:.0%}\n"
        tell(f"{name}, {suffering.name}: {suffering.words}", text, arguments)
    too_few = suffering.slow and tally.before_the_answer() < BEFORE_THE_ANSWER
    return tally.failures() + planned - tally.trials + too_few


def run_on_one(name: str, suffering: Suffering, numbers: range, arguments: argparse.Namespace, place: Path, tally: Tally) -> None:
    """As many trials as one machine is used for, unless one ends in a state that no other can begin with."""
    wire = Wire(gateways.DEVICE)
    hub = Hub(place / "hub", verbose=True, listener=wire.hear)
    hub.start()
    try:
        with machine(name, suffering, arguments.deb or package.daemon(), hub, place) as subject:
            campaign = Campaign(subject, hub, wire, arguments.seed)
            campaign.settle()
            for number in numbers:
                trial = campaign.trial(number)
                tally.add(trial)
                print(f"{suffering.name} {number}: {trial}", flush=True)
                if any(fault.name == LOST for fault in trial.verdict.faults):
                    return
    except AssertionError as stuck:
        tally.stuck.append(str(stuck))
        print(f"STUCK: {stuck}", flush=True)
    finally:
        hub.stop()


def machine(name: str, suffering: Suffering, deb: Path, hub: Hub, place: Path):
    debian = image.debian()
    if name == "qemu":
        return subjects.qemu(debian, deb, hub, place / "qemu")
    root = image.copy(debian, place / "root")
    image.install(root, deb)
    gateways.relax_for_container(root)
    return subjects.container(root, hub, place / "layer", suffering)


def shut_down_slowly(arguments: argparse.Namespace) -> int:
    wrong, text = 1, "WRONG: it has not ended"
    with tempfile.TemporaryDirectory(prefix="iotdm-campaign-") as place, Hub(Path(place) / "hub") as hub:
        root = image.copy(image.debian(), Path(place) / "root")
        image.install(root, arguments.deb or package.daemon())
        gateways.relax_for_container(root)
        gateways.configure(root, hub)
        for gateway in gateways.switched_off(root):
            began = time.monotonic()
            try:
                wrong, text = 0, slow_shutdown.carry_out(gateway, hub, arguments.slow_shutdown)
            except AssertionError as failure:
                text = f"WRONG: {failure}"
            text += f"; {time.monotonic() - began:.0f} s in all"
    tell(f"a shutdown of {arguments.slow_shutdown} s, with the default down_timeout", text, arguments)
    return wrong


def tell(title: str, counts: str, arguments: argparse.Namespace) -> None:
    print(f"\n{title}\n\n{counts}", flush=True)
    if arguments.report:
        write(arguments.report, title, counts, arguments.tried)


def revision() -> str:
    """What is tried: the sources as they are before the first trial."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{REPORT}")
    return f"commit {git('rev-parse', '--short', 'HEAD')}" + (", with changes that were not committed" if changed else "")


def write(report: Path, title: str, counts: str, tried: str) -> None:
    """Puts the counts into the report, in the place of earlier ones of the same title."""
    sections = report.read_text().split("\n## ")[1:] if report.exists() else []
    kept = {section.partition("\n")[0]: section.strip() for section in sections}
    kept[title] = f"{title}\n\nOn {datetime.now(UTC):%Y-%m-%d}, at {tried}.\n\n```text\n{counts.strip()}\n```"
    report.write_text("\n\n## ".join([HEAD.strip(), *kept.values()]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
