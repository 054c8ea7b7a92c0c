"""Cuts the power of a gateway at random instants of a reboot's life.

A trial asks for a reboot, cuts the power at some instant, switches on again,
perhaps cuts once more, asks again with the same id, and waits for the outcome.
What is random comes from the seed and the trial's number, so that both
together repeat it, up to what the scheduler does.
"""

import contextlib
import json
import random
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import gateway as gateways
import image
import inhibitor
import power
import verdict
import vm
from container import Container
from gateway import DEVICE, UNIT
from hub import Hub
from wire import METHOD_CALL, METHOD_REPLY, State, Wire

# A short patience with acknowledgements, so that withheld ones do not last.
CONFIGURATION = '[reboot]\nack_timeout = "1s"\n'
# As many as a daemon that counts them can be told to allow, and hence as many
# as one machine is used for.
LIMIT = "max_per_hour"
TRIALS_PER_MACHINE = 60

METHOD_PAYLOADS = {
    "immediate": lambda random: {},
    "delayed": lambda random: {"delaySeconds": random.randint(1, 2)},
    "waiting": lambda random: {"onInhibitor": "wait"},
}


@dataclass(frozen=True)
class Stage:
    """Where in a reboot's life the power is cut: up to so many seconds after an event."""

    name: str
    in_container: float
    in_qemu: float
    kinds: tuple[str, ...] = ("immediate", "delayed", "waiting")


DOWN = Stage("down", 1.5, 25.0, ("immediate", "delayed", "waiting", "local"))
STAGES = [
    Stage("asked", 0.15, 0.3),
    Stage("arrived", 0.03, 0.3),
    Stage("answered", 0.1, 0.5),
    Stage("pending", 2.0, 2.5, ("delayed", "waiting")),
    Stage("announced", 0.06, 0.6),
    Stage("going down", 1.0, 5.0, ("immediate", "delayed", "waiting", "local")),
    DOWN,
    Stage("back", 0.1, 1.0, ("immediate", "delayed", "waiting", "local")),
    Stage("reported", 0.1, 0.5),
]


@dataclass
class Plan:
    """What is decided before a trial."""

    identity: str
    stage: Stage
    kind: str
    payload: dict
    withheld: str | None
    delay: float
    # When another cut follows the next power-on, if one does.
    again: float | None
    # How long the inhibitor is held, for the kind that waits for it.
    held: float

    def __str__(self) -> str:
        again = f", again {self.again:.2f} s after power-on" if self.again is not None else ""
        return f"{self.kind}, {self.withheld or 'nothing'} withheld, cut {self.delay:.3f} s after {self.stage.name}{again}"


class Box:
    """A machine in a container under trial."""

    name = "container"
    kinds = ("immediate", "delayed", "waiting", "local")
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


def plan(seed: int, subject: Box | Qemu, number: int) -> Plan:
    """Goes through the stages in turn; the rest is drawn."""
    drawn = random.Random(f"{seed} {subject.name} {number}")
    stage = STAGES[(seed + number) % len(STAGES)]
    kind = drawn.choice([kind for kind in stage.kinds if kind in subject.kinds])
    payload = METHOD_PAYLOADS.get(kind, lambda _: {})(drawn)
    return Plan(
        identity=f"{subject.name}-{seed}-{number}", stage=stage, kind=kind,
        payload={"id": f"{subject.name}-{seed}-{number}", "reason": f"trial {number}", **payload},
        withheld=drawn.choice([None, None, "withhold-puback", "withhold-twin-reply"]),
        delay=drawn.uniform(0, subject.spread(stage)),
        again=drawn.uniform(0, subject.spread(DOWN)) if drawn.random() < 0.25 else None,
        held=drawn.uniform(0, 1))


@dataclass
class Trial:
    """What a trial led to."""

    plan: Plan
    cuts: int
    answered_before_the_cut: bool
    on_disk: str
    verdict: verdict.Verdict
    causes: list[str]
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        answered = "answered" if self.answered_before_the_cut else "not answered"
        return (f"{self.plan}: {answered}; on disk: {self.on_disk}; {self.verdict.reboots} reboots, "
                f"{self.verdict.outcome}; boots {', '.join(self.causes)}")


class Campaign:
    """Trials with one machine after the other's end."""

    def __init__(self, subject: Box | Qemu, hub: Hub, wire: Wire, seed: int) -> None:
        self.subject, self.hub, self.wire, self.seed = subject, hub, wire, seed
        # The lives in which an administrator reboots the machine.
        self.local: set[int] = set()
        self._judged = 0

    @property
    def lives(self) -> list[power.Life]:
        return self.subject.machine.lives

    def settle(self) -> None:
        """Waits until the machine is up, and the hub has the report of that boot."""
        self.wire.wait(self._settled, self.subject.patience, "report of the boot")

    def trial(self, number: int) -> Trial:
        planned = plan(self.seed, self.subject, number)
        first, since = len(self.lives) - 1, len(self.wire.messages)
        ask = self._start(planned)
        self._reach(planned, first, since)
        time.sleep(planned.delay)
        self._cut()
        if ask:
            ask.wait(timeout=60)
        answered = bool(verdict.answers(planned.identity, self.wire.messages))
        on_disk, cuts = self.subject.on_disk(planned.identity), 1
        self.subject.switch_on()
        if planned.again is not None:
            time.sleep(planned.again)
            self._cut()
            cuts += 1
            self.subject.switch_on()
        self._ask_again(planned)
        self.wire.wait(lambda: self._ended(planned.identity) and self._settled(), self.subject.patience,
                       f"outcome of {planned.identity}")
        return self._judge(planned, first, cuts, answered, on_disk)

    def _start(self, planned: Plan) -> subprocess.Popen | None:
        """Sends the request, or lets an administrator reboot the machine."""
        if planned.kind == "local":
            self.local.add(len(self.lives) - 1)
            self._in_background(lambda: self.subject.machine.run("systemctl", "reboot", check=False))
            return None
        if planned.kind == "waiting" and self.subject.name == "container":
            inhibitor.hold(self.subject.machine)
            self._in_background(lambda: (time.sleep(planned.held), inhibitor.release(self.subject.machine)))
        if planned.withheld:
            self.hub.fault("set", DEVICE, planned.withheld)
        return subprocess.Popen(self._request(planned, 0), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _request(self, planned: Plan, connect_timeout: int) -> list:
        return self.hub.command(
            "invoke", DEVICE, "rebootDevice", "--payload", json.dumps(planned.payload), "--output", "json",
            "--connect-timeout", str(connect_timeout), "--response-timeout", "30")

    def _in_background(self, action) -> None:
        def run():
            # The machine may lose its power meanwhile.
            with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
                action()

        threading.Thread(target=run, daemon=True).start()

    def _reach(self, planned: Plan, first: int, since: int) -> None:
        """Waits for the event that the plan's stage begins with."""

        def said(topic: str) -> bool:
            return any(message.topic.startswith(topic) for message in self.wire.messages[since:])

        def reported(*status: str) -> bool:
            reboot = self.wire.states[-1].reported.get("reboot", {})
            return reboot.get("id") == planned.identity and reboot["status"] in status

        def down() -> bool:
            return self.lives[first].end is not None

        def going_down() -> bool:
            return planned.kind == "local" or reported("rebooting") or down()

        reached = {
            "asked": lambda: True,
            "arrived": lambda: said(METHOD_CALL),
            "answered": lambda: said(METHOD_REPLY),
            "pending": lambda: reported("scheduled", "waiting") or going_down(),
            "announced": going_down,
            "going down": going_down,
            "down": down,
            "back": lambda: down() and self.wire.connects[-1] > self.lives[first + 1].began,
            "reported": lambda: reported("completed"),
        }
        self.wire.wait(reached[planned.stage.name], self.subject.patience, f"{planned.stage.name}: {planned}")

    def _cut(self) -> None:
        self.subject.machine.cut_power()
        # What was on its way arrives before the hub sees the end of it.
        self.wire.wait(lambda: self.wire.open == 0, self.subject.patience, "end of the connection")
        self.hub.fault("clear", DEVICE)

    def _ask_again(self, planned: Plan) -> None:
        """Until there is an answer: at first the machine may still be about to go down once more."""
        deadline = time.monotonic() + self.subject.patience
        while True:
            done = subprocess.run(self._request(planned, 60), capture_output=True, text=True)
            if done.returncode in (0, 3):
                break
            assert time.monotonic() < deadline, f"no answer to {planned.identity}: {done.stderr}"
        assert done.returncode == 0, f"asked again, {planned.identity} was refused: {done.stdout}"

    def _ended(self, identity: str) -> State | None:
        """The state in which the request's outcome was reported."""
        return next((state for state in self.wire.states
                     if state.reported.get("reboot", {}).get("id") == identity
                     and state.reported["reboot"]["status"] in verdict.FINAL), None)

    def _settled(self) -> bool:
        states = self.wire.states
        reported = bool(states) and states[-1].at > self.lives[-1].began and self.wire.acknowledged(states[-1])
        return reported and self.subject.is_up()

    def _judge(self, planned: Plan, first: int, cuts: int, answered: bool, on_disk: str) -> Trial:
        found = verdict.boots(self.lives, self.wire)
        judged = verdict.judge(planned.identity, self.lives, found, self.local, self.wire.states,
                               verdict.answers(planned.identity, self.wire.messages), first)
        wrong = verdict.wrong_reports(self.lives, found, self.local, self.wire.states)
        new = [text for number, text in sorted(wrong.items()) if number >= self._judged]
        causes = [boot.causes[-1] for boot in found[max(self._judged, 1):] if boot]
        self._judged = len(self.lives)
        return Trial(planned, cuts, answered, on_disk, judged, causes, judged.wrong + new)


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
        vm.prepare(root, [hub.ports["mqtt"]])
        subject = Qemu(root, place)
        subject.switch_on()
        try:
            yield subject
        finally:
            subject.machine.cut_power()
    subject.machine.disk.unlink()
