"""The machines under trial: a container, or a whole machine in QEMU."""

import contextlib
import json
from pathlib import Path

from machines import gateways, image, vm
from machines.container import Container
from machines.gateways import UNIT
from pyharness.hub import Hub

from powercuts.plan import Stage

# A short patience with acknowledgements, so that a trial with a withheld one does not take long.
CONFIGURATION = '[reboot]\nack_timeout = "1s"\n'
# The daemon's limit of reboots in an hour, as many as requests that it grants in an
# hour, and hence the number of trials that one machine is used for.
LIMIT = "max_per_hour"
TRIALS_PER_MACHINE = 30


class Box:
    """A machine in a container under trial."""

    name = "container"
    kinds = ("immediate", "delayed", "waiting", "local")
    # How many seconds a trial's events are waited for.
    patience = 120

    def __init__(self, root: Path, name: str) -> None:
        self.machine = Container(root, name)

    def spread(self, stage: Stage) -> float:
        return stage.in_container

    def switch_on(self) -> None:
        self.machine.switch_on()

    def is_up(self) -> bool:
        return self.machine.lives[-1].up

    def on_disk(self, identity: str) -> str:
        """How far the record on the disk says that a request is, for the statistics."""
        with contextlib.suppress(FileNotFoundError):
            record = json.loads((self.machine.root / "var/lib/iotdm/state.json").read_text().splitlines()[0])
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

    def __init__(self, root: Path, directory: Path) -> None:
        self.machine = vm.VirtualMachine(root, directory)

    def spread(self, stage: Stage) -> float:
        return stage.in_qemu

    def switch_on(self) -> None:
        self.machine.power_on()

    def is_up(self) -> bool:
        return True

    def on_disk(self, identity: str) -> str:
        return "not looked at"


def configure(root: Path, hub: Hub) -> None:
    gateways.configure(root, hub)
    limited = LIMIT in (root / "etc/iotdm/agentd.toml").read_text()
    text = CONFIGURATION + (f"{LIMIT} = {TRIALS_PER_MACHINE}\n" if limited else "")
    (root / "etc/iotdm/agentd.toml.d/campaign.toml").write_text(text)
    vm.enable(root, UNIT)


@contextlib.contextmanager
def container(installed: Path, hub: Hub, place: Path, name: str):
    """A container on a layer over a root with the package installed."""
    with image.layer(installed, place) as root:
        configure(root, hub)
        box = Box(root, name)
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
