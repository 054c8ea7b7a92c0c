"""The machines under trial: a container, or a whole machine in QEMU."""

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from judges.reports import LOGIND_REBOOTS
from machines import gateways, image, slow_disk, vm
from machines.container import Container
from machines.gateways import UNIT
from pyharness.hub import Hub

from powercuts.harm import HARMS, RECORD
from powercuts.plan import ARRIVING, STAGES, Stage

# A short patience with acknowledgements, so that a trial with a withheld one does not take long.
CONFIGURATION = '[reboot]\nack_timeout = "1s"\n'
# The daemon's limit of reboots in an hour, and the number of trials that one machine is used for: fewer than the
# requests that the daemon grants in an hour.
LIMIT = "max_per_hour"
TRIALS_PER_MACHINE = 25
# How much slower a slow disk is, by the thousandth of a second for each fsync and rename.
SLOWNESS = 250


@dataclass(frozen=True)
class Suffering:
    """What a machine under trial has to endure besides the cuts."""

    name: str
    words: str
    # What each cut does to the state directory, one of `powercuts.harm.HARMS`.
    harm: str | None = None
    slow: bool = False


SUFFERINGS = {kind.name: kind for kind in [
    Suffering("plain", "power cuts and no more"),
    Suffering("slow", f"on a disk whose fsync and rename take {SLOWNESS} ms longer", slow=True),
    Suffering("emptied", "after each cut the state directory is empty", "emptied"),
    Suffering("flipped", "after each cut one bit of the record is another one", "flipped")]}


class Box:
    """A machine in a container under trial."""

    name = "container"
    kinds = ("immediate", "delayed", "waiting", "cancelled", "wish", "wish for later", "withdrawn wish", "local")
    # How many seconds a trial's events are waited for.
    patience = 120

    def __init__(self, root: Path, suffering: Suffering) -> None:
        self.machine = Container(root)
        self.suffer(suffering)

    def suffer(self, suffering: Suffering) -> None:
        """What the cuts from now on do besides."""
        self._harm = HARMS.get(suffering.harm)
        # On a slow disk what happens before the answer takes long, and is looked at the more.
        self.stages = [*STAGES, *(ARRIVING if suffering.slow else [])]

    def spread(self, stage: Stage) -> float:
        return stage.in_container

    def switch_on(self) -> None:
        self.machine.switch_on()

    def is_up(self) -> bool:
        return self.machine.lives[-1].up

    def harm(self, luck: float) -> bool:
        """Destroys what is to be destroyed by a cut; whether the daemon's memory is gone."""
        return self._harm is not None and self._harm(self.machine.root, luck)

    def logind(self) -> dict[str, float]:
        """When logind said that it reboots the machine, by the boot's id."""
        lines = self.machine.journal(
            "--output=json", "--output-fields=MESSAGE,_BOOT_ID", "_SYSTEMD_UNIT=systemd-logind.service")
        now = time.monotonic() - time.time()
        entries = filter(lambda entry: LOGIND_REBOOTS in str(entry["MESSAGE"]), map(json.loads, lines.splitlines()))
        return {entry["_BOOT_ID"]: now + int(entry["__REALTIME_TIMESTAMP"]) / 1e6 for entry in entries}

    def on_disk(self, identity: str) -> str:
        """How far the record on the disk says that a request is, for the statistics."""
        with contextlib.suppress(FileNotFoundError):
            record = json.loads((self.machine.root / RECORD).read_text().splitlines()[0])
            reboot = record.get("reboot", {})
            if reboot.get("id") == identity:
                words = [reboot["status"], record.get("asked"), "going down" if record.get("goingDown") else None]
                return ", ".join(filter(None, words))
        return "nothing of it"


class Qemu:
    """A whole machine in QEMU under trial."""

    name = "qemu"
    kinds = ("immediate", "delayed")
    # The same; each boot alone may take minutes.
    patience = 600
    stages = STAGES

    def __init__(self, root: Path, directory: Path) -> None:
        self.machine = vm.VirtualMachine(root, directory)

    def spread(self, stage: Stage) -> float:
        return stage.in_qemu

    def switch_on(self) -> None:
        self.machine.power_on()

    def is_up(self) -> bool:
        return True

    def harm(self, luck: float) -> bool:
        return False

    def logind(self) -> dict[str, float]:
        # The journal is on a disk that is in use.
        return {}

    def on_disk(self, identity: str) -> str:
        return "not looked at"


def configure(root: Path, hub: Hub) -> None:
    gateways.configure(root, hub)
    limited = LIMIT in (root / "etc/iotdm/agentd.toml").read_text()
    text = CONFIGURATION + (f"{LIMIT} = {TRIALS_PER_MACHINE}\n" if limited else "")
    (root / "etc/iotdm/agentd.toml.d/campaign.toml").write_text(text)
    vm.enable(root, UNIT)


@contextlib.contextmanager
def container(installed: Path, hub: Hub, place: Path, suffering: Suffering):
    """A container on a layer over a root with the package installed."""
    with image.layer(installed, place) as root:
        configure(root, hub)
        if suffering.slow:
            slow_disk.install(root, fsync=SLOWNESS, rename=SLOWNESS)
        box = Box(root, suffering)
        box.switch_on()
        try:
            yield box
        finally:
            box.machine.dispose()


@contextlib.contextmanager
def qemu(debian: Path, deb: Path, hub: Hub, place: Path):
    """A whole machine with the package installed, the unit as shipped."""
    place.mkdir()
    with image.layer(debian, place / "layer") as root:
        image.install(root, deb)
        configure(root, hub)
        vm.prepare(root, [hub.mqtt_port])
        subject = Qemu(root, place)
        subject.switch_on()
        try:
            yield subject
        finally:
            subject.machine.cut_power()
    subject.machine.disk.unlink()
