"""Cuts the power of gateways at random instants of a reboot, many times, and
counts what became of the requests. As root; 'make deb' and the emulator and
iotdm-ctl have to be built before."""

import argparse
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path

from judges.tally import Tally
from judges.wire import Wire
from machines import gateways, image, package
from powercuts import subjects
from powercuts.plan import STAGES
from powercuts.trial import Campaign
from pyharness.hub import Hub


def main() -> int:
    arguments = parse()
    # Leaves no machine behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failures = 0
    for name, trials in [("container", arguments.container), ("qemu", arguments.qemu)]:
        if trials:
            failures += run(name, range(arguments.first, arguments.first + trials), arguments)
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="repeats a campaign")
    parser.add_argument("--container", type=int, default=0, metavar="N", help="trials in a container")
    parser.add_argument("--qemu", type=int, default=0, metavar="N", help="trials in QEMU")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first trial, to repeat a single one")
    parser.add_argument("--deb", type=Path, help="the daemon's package (default: the one in target/deb)")
    arguments = parser.parse_args()
    if min(arguments.container, arguments.qemu) < 0 or arguments.container + arguments.qemu == 0:
        parser.error("no trial was asked for: say how many with --container or --qemu")
    return arguments


def run(name: str, numbers: range, arguments: argparse.Namespace) -> int:
    """Prints each trial and the counts of all; how many things were wrong, trials that were left out included."""
    planned = len(numbers)
    tally, began = Tally(stage.name for stage in STAGES), time.monotonic()
    try:
        while numbers:
            now, numbers = numbers[:subjects.TRIALS_PER_MACHINE], numbers[subjects.TRIALS_PER_MACHINE:]
            with tempfile.TemporaryDirectory(prefix="iotdm-campaign-") as place:
                run_on_one(name, now, arguments, Path(place), tally)
    finally:
        # A campaign that is ended early prints its counts as well.
        took = f"{time.monotonic() - began:.0f} s"
        print(f"\n{name}, seed {arguments.seed}, {tally.trials} of {planned} trials, {took}\n\n{tally}\n", flush=True)
    return tally.failures() + planned - tally.trials


def run_on_one(name: str, numbers: range, arguments: argparse.Namespace, place: Path, tally: Tally) -> None:
    """As many trials as one machine is used for, unless one ends in a state that no other can begin with."""
    wire = Wire(gateways.DEVICE)
    hub = Hub(place / "hub", verbose=True, listener=wire.hear)
    hub.start()
    try:
        with machine(name, arguments.deb or package.daemon(), hub, place) as subject:
            campaign = Campaign(subject, hub, wire, arguments.seed)
            campaign.settle()
            for number in numbers:
                trial = campaign.trial(number)
                tally.add(trial)
                print(f"{number}: {trial}", flush=True)
    except AssertionError as stuck:
        tally.stuck.append(str(stuck))
        print(f"STUCK: {stuck}", flush=True)
    finally:
        hub.stop()


def machine(name: str, deb: Path, hub: Hub, place: Path):
    debian = image.debian()
    if name == "qemu":
        return subjects.qemu(debian, deb, hub, place / "qemu")
    root = image.copy(debian, place / "root")
    image.install(root, deb)
    gateways.relax_for_container(root)
    return subjects.container(root, hub, place / "layer", f"iotdm-campaign-{uuid.uuid4().hex[:8]}")


if __name__ == "__main__":
    sys.exit(main())
