"""One trial after the other on one machine."""

import contextlib
import json
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from judges import verdict
from judges.history import History
from judges.verdict import LOST, Asked, Verdict
from judges.wire import DESIRED_PATCH, METHOD_CALL, METHOD_REPLY, State, Wire
from machines import inhibitor
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
    cuts_before_the_answer: int
    on_disk: str
    verdict: Verdict
    causes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        answered = "answered" if self.answered_before_the_cut else "not answered"
        return (f"{self.plan}: {answered}; on disk: {self.on_disk}; {self.verdict.reboots} reboots, "
                f"{self.verdict.outcome}; boots {', '.join(self.causes)}"
                + "".join(f"\n   WRONG: {fault}" for fault in self.verdict.faults))


class Campaign:
    """Trials with one machine after the other's end."""

    def __init__(self, subject: Box | Qemu, hub: Hub, wire: Wire, seed: int) -> None:
        self.subject, self.hub, self.wire, self.seed = subject, hub, wire, seed
        self.history = History(subject.machine.lives, wire)
        self._judged = 0
        self._wished = False

    def settle(self) -> None:
        """Waits until the machine is up, and the hub has the report of that boot."""
        self.wire.wait(self._settled, self.subject.patience, "report of the boot")

    def trial(self, number: int) -> Trial:
        planned = plan(self.seed, self.subject, number)
        if planned.wish and self._wished:
            # Until then it stands, to be carried out once more by a daemon that forgot it.
            self._wish(None)
        since = len(self.wire.messages)
        asked = Asked(planned.identity, time.monotonic(), wish=planned.wish)
        asked.due, first = asked.since + planned.later, len(self.history.lives) - 1
        asking = self._start(planned)
        self._reach(planned, first, since)
        if planned.stage.name == "taken back":
            asking = self._take_back(planned, asked, asking)
        time.sleep(planned.delay)
        self._cut(planned)
        if asking:
            asking.wait(timeout=60)
        if planned.kind == "withdrawn wish":
            asked.withdrawn = time.monotonic()
        answered = self._answered(planned)
        on_disk, cuts, before = self.subject.on_disk(planned.identity), 1, int(not answered)
        self._switch_on(planned)
        if planned.again is not None:
            time.sleep(planned.again)
            self._cut(planned)
            cuts, before = cuts + 1, before + int(not self._answered(planned))
            self._switch_on(planned)
        self._bring_to_an_end(planned, asked)
        return self._judge(planned, asked, Trial(planned, cuts, answered, before, on_disk, Verdict(answered, 0, "none")))

    # The operator

    def _start(self, planned: Plan) -> subprocess.Popen | None:
        """Sends the request, or lets an administrator reboot the machine."""
        if planned.kind == "local":
            self.history.local.add(len(self.history.lives) - 1)
            self._in_background(lambda: self.subject.machine.run("systemctl", "reboot", check=False))
            return None
        if planned.kind == "waiting" and self.subject.name == "container":
            inhibitor.hold(self.subject.machine)
            self._in_background(lambda: (time.sleep(planned.held), inhibitor.release(self.subject.machine)))
        if planned.withheld:
            self.hub.fault("set", DEVICE, planned.withheld)
        if planned.wish:
            wish = {key: value for key, value in planned.payload.items() if key != "delaySeconds"}
            if planned.later:
                due = datetime.now(UTC) + timedelta(seconds=planned.later)
                wish["notBefore"] = due.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._wished = True
            return self._spawn(self._desire(wish))
        return self._spawn(self._call("rebootDevice", planned.payload, 0))

    def _take_back(self, planned: Plan, asked: Asked, asking: subprocess.Popen) -> subprocess.Popen:
        asking.wait(timeout=60)
        if planned.wish:
            self._wished = False
            return self._spawn(self._desire(None))
        asked.cancelled = True
        return self._spawn(self._call("cancelReboot", {"id": planned.identity}, 0))

    def _wish(self, wish: dict | None) -> None:
        done = subprocess.run(self._desire(wish), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        self._wished = wish is not None

    def _desire(self, wish: dict | None) -> list:
        return self.hub.ctl_command("twin", "update", DEVICE, "--desired", json.dumps({"reboot": wish}))

    def _call(self, method: str, payload: dict, connect_timeout: int) -> list:
        return self.hub.ctl_command(
            "invoke", DEVICE, method, "--payload", json.dumps(payload), "--output", "json",
            "--connect-timeout", str(connect_timeout), "--response-timeout", "30")

    def _spawn(self, command: list) -> subprocess.Popen:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _in_background(self, action) -> None:
        def run():
            # The machine may lose its power meanwhile.
            with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
                action()

        threading.Thread(target=run, daemon=True).start()

    # The power

    def _reach(self, planned: Plan, first: int, since: int) -> None:
        """Waits for the event that the plan's stage begins with."""
        lives = self.history.lives

        def said(topic: str) -> bool:
            return any(message.topic.startswith(topic) for message in self.wire.messages[since:])

        def reported(*status: str) -> bool:
            reboot = self.wire.states[-1].reported.get("reboot", {})
            return reboot.get("id") == planned.identity and (not status or reboot["status"] in status)

        def down() -> bool:
            return lives[first].end is not None

        def going_down() -> bool:
            return planned.kind == "local" or reported("rebooting") or down()

        def pending() -> bool:
            return reported("scheduled", "waiting") or going_down()

        reached = {
            "asked": lambda: True,
            "arrived": lambda: said(DESIRED_PATCH if planned.wish else METHOD_CALL),
            "answered": lambda: reported() if planned.wish else said(METHOD_REPLY),
            "pending": pending,
            "taken back": pending,
            "announced": going_down,
            "going down": going_down,
            "down": down,
            "back": lambda: down() and self.wire.connects[-1] > lives[first + 1].began,
            "reported": lambda: reported("completed"),
        }
        self.wire.wait(reached[planned.stage.name], self.subject.patience, f"{planned.stage.name}: {planned}")

    def _cut(self, planned: Plan) -> None:
        self.subject.machine.cut_power()
        # What was on its way arrives before the hub sees the end of the connection.
        self.wire.wait(lambda: self.wire.open == 0, self.subject.patience, "end of the connection")
        self.hub.fault("clear", DEVICE)

    def _switch_on(self, planned: Plan) -> None:
        """With what the cut has destroyed besides."""
        count = len(self.history.lives)
        # By another cut another bit: the same one would be right again.
        if self.subject.harm((planned.luck + count / 97) % 1):
            self.history.harmed.add(count - 1)
        self.subject.switch_on()
        self.wire.wait(lambda: len(self.history.lives) > count, self.subject.patience, "power")

    # The end

    def _answered(self, planned: Plan) -> bool:
        """Whether the device has told that it takes the request up: a wish only the twin can tell of."""
        told = self.history.reports(planned.identity) if planned.wish else self.history.grants(planned.identity)
        return bool(told)

    def _bring_to_an_end(self, planned: Plan, asked: Asked) -> None:
        """Waits for the outcome. It has to come by itself, unless nothing was promised; asked for again, the
        request has then to be known."""
        if not planned.wish:
            grants = self.history.grants(planned.identity)
            if not grants or self.history.forgiven(planned.identity, grants[0][0]):
                self._ask_again(planned)
            if asked.cancelled:
                self._insist("cancelReboot", {"id": planned.identity})
        try:
            self.wire.wait(lambda: self._ended(planned) and self._settled(), self.subject.patience,
                           f"outcome of {planned.identity}")
        except AssertionError:
            # Without an outcome a request may be lost; anything else is a machine with which nothing can be tried.
            if not any(fault.name == LOST for fault in self._verdict(asked).faults):
                raise
            return
        if not planned.wish:
            self._ask_again(planned)

    def _ask_again(self, planned: Plan) -> None:
        code, said = self._insist("rebootDevice", planned.payload)
        assert code == 0, f"asked again, {planned.identity} was refused: {said}"

    def _insist(self, method: str, payload: dict) -> tuple[int, str]:
        """Asks until there is a reply: at first the machine may still be about to go down once more, or the daemon,
        without its record, not have read the twin yet."""
        deadline = time.monotonic() + self.subject.patience
        while True:
            done = subprocess.run(self._call(method, payload, 60), capture_output=True, text=True)
            later = any(f'"{code}"' in done.stdout for code in ("shuttingDown", "internal"))
            if done.returncode in (0, 3) and not later:
                return done.returncode, done.stdout
            assert time.monotonic() < deadline, f"no answer to {method} {payload}: {done.stdout}{done.stderr}"

    def _ended(self, planned: Plan) -> State | bool:
        """Whether the request's outcome was reported. A wish that was taken back before it was seen has none."""
        reports = self.history.reports(planned.identity)
        unseen = planned.kind == "withdrawn wish" and not reports and self._settled()
        return unseen or any(state.reported["reboot"]["status"] in verdict.FINAL for state in reports)

    def _settled(self) -> bool:
        states, life = self.wire.states, self.history.lives[-1]
        reported = bool(states) and states[-1].at > life.began and self.wire.acknowledged(states[-1])
        return reported and self.subject.is_up()

    def _verdict(self, asked: Asked) -> Verdict:
        boots = verdict.boots(self.history)
        said = self.subject.logind()
        self.history.logind = {number: said[boot.boot_id.replace("-", "")] for number, boot in enumerate(boots)
                               if boot and boot.boot_id.replace("-", "") in said}
        return verdict.judge(self.history, asked)

    def _judge(self, planned: Plan, asked: Asked, trial: Trial) -> Trial:
        trial.verdict = self._verdict(asked)
        wrong = verdict.wrong_reports(self.history)
        trial.verdict.faults += [fault for number, fault in sorted(wrong.items()) if number >= self._judged]
        boots = verdict.boots(self.history)
        trial.causes = [boot.causes[-1] for boot in boots[max(self._judged, 1):] if boot]
        self._judged = len(self.history.lives)
        return trial
