"""One trial after the other on one machine."""

import contextlib
import json
import subprocess
import threading
import time
from dataclasses import dataclass, field

from judges import verdict
from judges.wire import METHOD_CALL, METHOD_REPLY, State, Wire
from machines import inhibitor, power
from machines.gateways import DEVICE
from pyharness.hub import Hub

from powercuts.plan import Plan, plan
from powercuts.subjects import Box, Qemu


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
        return self.hub.ctl_command(
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
        # What was on its way arrives before the hub sees the end of the connection.
        self.wire.wait(lambda: self.wire.open == 0, self.subject.patience, "end of the connection")
        self.hub.fault("clear", DEVICE)

    def _ask_again(self, planned: Plan) -> None:
        """Asks with the same id until there is a reply: at first the machine may still be about to go down once more."""
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
