"""What is decided before a trial: where in a reboot's life the power is cut, and how."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# What of a request is drawn, by its kind.
METHOD_PAYLOADS: dict[str, Callable[[random.Random], dict]] = {
    "immediate": lambda drawn: {},
    "delayed": lambda drawn: {"delaySeconds": drawn.randint(1, 2)},
    "waiting": lambda drawn: {"onInhibitor": "wait"},
}


@dataclass(frozen=True)
class Stage:
    """Where in a reboot's life the power is cut: up to so many seconds after an event, by the kind of machine."""

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


class Subject(Protocol):
    """A machine under trial, as far as a plan has to know it."""

    name: str
    # Which kinds of reboot can be tried on it.
    kinds: tuple[str, ...]

    def spread(self, stage: Stage) -> float:
        """How many seconds after the stage's event the cut may come."""


@dataclass
class Plan:
    """What is decided before a trial."""

    identity: str
    stage: Stage
    kind: str
    payload: dict
    withheld: str | None
    delay: float
    # After how many seconds another cut follows the next power-on, if one does.
    again: float | None
    # For how many seconds the inhibitor is held, in a request that waits for its release.
    held: float

    def __str__(self) -> str:
        again = f", again {self.again:.2f} s after power-on" if self.again is not None else ""
        return f"{self.kind}, {self.withheld or 'nothing'} withheld, cut {self.delay:.3f} s after {self.stage.name}{again}"


def plan(seed: int, subject: Subject, number: int) -> Plan:
    """The plan of a trial: the stages come in turn, the rest is drawn."""
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
