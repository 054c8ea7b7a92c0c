"""What is decided before a trial: where in a reboot's life the power is cut, and how."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# What of a request is drawn, by its kind. Calls:
CALLS: dict[str, Callable[[random.Random], dict]] = {
    "immediate": lambda drawn: {},
    "delayed": lambda drawn: {"delaySeconds": drawn.randint(1, 2)},
    "waiting": lambda drawn: {"onInhibitor": "wait"},
    "cancelled": lambda drawn: {"delaySeconds": drawn.randint(2, 4)},
}
# Wishes in the twin; those for later have their time from this one, which is no key of the daemon's:
WISHES: dict[str, Callable[[random.Random], dict]] = {
    "wish": lambda drawn: {},
    "wish for later": lambda drawn: {"delaySeconds": drawn.randint(1, 2)},
    "withdrawn wish": lambda drawn: {"delaySeconds": drawn.randint(2, 4)},
}
TAKEN_BACK = ("cancelled", "withdrawn wish")
ASKED = (*CALLS, *WISHES)
CARRIED_OUT = tuple(kind for kind in ASKED if kind not in TAKEN_BACK)


@dataclass(frozen=True)
class Stage:
    """Where in a reboot's life the power is cut: up to so many seconds after an event, by the kind of machine."""

    name: str
    in_container: float
    in_qemu: float
    kinds: tuple[str, ...] = CARRIED_OUT


DOWN = Stage("down", 1.5, 25.0, (*CARRIED_OUT, "local"))
ARRIVING = [Stage("asked", 0.15, 0.3), Stage("arrived", 0.03, 0.3)]
STAGES = [
    *ARRIVING,
    Stage("answered", 0.1, 0.5),
    Stage("pending", 2.0, 2.5, ("delayed", "waiting", "wish for later")),
    Stage("taken back", 0.3, 0.5, TAKEN_BACK),
    Stage("announced", 0.06, 0.6),
    Stage("going down", 1.0, 5.0, (*CARRIED_OUT, "local")),
    DOWN,
    Stage("back", 0.1, 1.0, (*CARRIED_OUT, "local")),
    Stage("reported", 0.1, 0.5),
]


class Subject(Protocol):
    """A machine under trial, as far as a plan has to know it."""

    name: str
    # Which kinds of reboot can be tried on it.
    kinds: tuple[str, ...]
    # The stages that come in turn.
    stages: list[Stage]

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
    # Decides which bit flips, where one does.
    luck: float

    @property
    def wish(self) -> bool:
        return self.kind in WISHES

    @property
    def later(self) -> float:
        """How many seconds after it was asked for the reboot is due."""
        return self.payload.get("delaySeconds", 0)

    def __str__(self) -> str:
        again = f", again {self.again:.2f} s after power-on" if self.again is not None else ""
        return f"{self.kind}, {self.withheld or 'nothing'} withheld, cut {self.delay:.3f} s after {self.stage.name}{again}"


def plan(seed: int, subject: Subject, number: int) -> Plan:
    """The plan of a trial: the stages come in turn, the rest is drawn."""
    drawn = random.Random(f"{seed} {subject.name} {number}")
    usable = [stage for stage in subject.stages if set(stage.kinds) & set(subject.kinds)]
    stage = usable[(seed + number) % len(usable)]
    kind = drawn.choice([kind for kind in stage.kinds if kind in subject.kinds])
    payload = {**CALLS, **WISHES}.get(kind, lambda _: {})(drawn)
    identity = f"{subject.name}-{seed}-{number}"
    # A wish is not carried out before the hub has taken the report of it, however long that takes.
    faults = ["withhold-puback"] if kind in WISHES else ["withhold-puback", "withhold-twin-reply"]
    return Plan(
        identity=identity, stage=stage, kind=kind,
        payload={"id": identity, "reason": f"trial {number}", **payload},
        withheld=drawn.choice([None, None, *faults]),
        delay=drawn.uniform(0, subject.spread(stage)),
        again=drawn.uniform(0, subject.spread(DOWN)) if drawn.random() < 0.25 else None,
        held=drawn.uniform(0, 1), luck=drawn.random())
