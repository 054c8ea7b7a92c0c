"""What a power cut may lead to, and what it must not.

Judges from outside: by how each of the machine's lives ended, and by what the
device said on the wire. What the daemon keeps on its disk is not asked.
"""

import json
import math
from dataclasses import dataclass, field

from machines import power
from machines.power import Life

from judges.wire import METHOD_REPLY, Message, State, Wire

FINAL = ("completed", "failed", "cancelled")


@dataclass
class Boot:
    """What was reported in one life of the machine."""

    boot_id: str
    causes: list[str] = field(default_factory=list)
    # The requests that the machine was about to go down for.
    announced: set[str] = field(default_factory=set)
    # The hub left the device waiting, so that it went on without announcing.
    unheard: bool = False

    def may_have_asked(self) -> bool:
        """Whether logind may have been asked to reboot."""
        return bool(self.announced) or self.unheard


@dataclass
class Verdict:
    """What became of one request."""

    answered: bool
    reboots: int
    outcome: str
    duplicates: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def boots(lives: list[Life], wire: Wire) -> list[Boot | None]:
    """What was reported in each life; nothing of a life in which the daemon did not get to report."""
    found: list[Boot | None] = [None] * len(lives)
    for state in filter(lambda state: "boot" in state.reported, wire.states):
        number = life_at(lives, state.at)
        boot, reboot = state.reported["boot"], state.reported.get("reboot")
        if found[number] is None:
            found[number] = Boot(boot["bootId"])
        if boot["bootId"] != found[number].boot_id:
            raise AssertionError(f"two boot ids in life {number}: {found[number].boot_id}, {boot['bootId']}")
        if boot["cause"] not in found[number].causes:
            found[number].causes.append(boot["cause"])
        if reboot and reboot["status"] == "rebooting":
            found[number].announced.add(reboot["id"])
    ends = [life.began for life in lives[1:]] + [math.inf]
    for boot, life, end in zip(found, lives, ends, strict=True):
        if boot is not None:
            boot.unheard = wire.unanswered(life.began, end)
    return found


def life_at(lives: list[Life], at: float) -> int:
    return max(number for number, life in enumerate(lives) if life.began <= at)


def allowed_causes(lives: list[Life], found: list[Boot | None], local: set[int]) -> list[set[str]]:
    """The causes that each life may report; `local` are the lives in which somebody else asked for a reboot.

    logind is asked only after the request was announced to the hub, or the hub
    did not answer in time what was said before. From then on a cut may fall
    before or after the shutdown was recorded, so that two causes are right. A life that did not get to report may not have been
    noticed at all; then the next one is judged by what was before.
    """
    allowed = [{"unknown"}]
    for number in range(1, len(lives)):
        before = found[number - 1]
        asked = before is not None and before.may_have_asked()
        shutdown = ({"requested"} if asked else set()) | ({"local"} if number - 1 in local else set())
        if lives[number - 1].end == power.REBOOT:
            causes = shutdown
        else:
            causes = {"unclean"} | shutdown
        if before is None:
            causes = causes | allowed[number - 1]
        allowed.append(causes)
    return allowed


def wrong_reports(lives: list[Life], found: list[Boot | None], local: set[int], states: list[State]) -> dict[int, str]:
    """The lives of which something was reported that is not what happened."""
    wrong = {}
    for number, (boot, allowed) in enumerate(zip(found, allowed_causes(lives, found, local), strict=True)):
        if boot is not None and not (len(boot.causes) == 1 and boot.causes[0] in allowed):
            before = lives[number - 1].end if number else "nothing"
            wrong[number] = f"life {number}, after {before}, reported {boot.causes}, right: {sorted(allowed)}"
    for state in states:
        if "boot" not in state.reported:
            number = life_at(lives, state.at)
            wrong[number] = f"in life {number} everything reported was taken back"
    ids = [boot.boot_id for boot in found if boot is not None]
    for boot_id in {boot_id for boot_id in ids if ids.count(boot_id) > 1}:
        wrong[ids.index(boot_id)] = f"boot id {boot_id} was reported of several lives"
    return wrong


def answers(identity: str, messages: list[Message]) -> list[dict]:
    """The bodies of the replies of 200 that name this request."""
    said = (message for message in messages if not message.to_device)
    granted = (json.loads(message.payload) for message in said if message.topic.startswith(f"{METHOD_REPLY}200/"))
    return [body for body in granted if body.get("id") == identity]


def judge(identity: str, lives: list[Life], found: list[Boot | None], local: set[int],
          states: list[State], granted: list[dict], first: int) -> Verdict:
    """Judges a request that was first sent in the life `first`."""
    reboots = [number for number in range(first, len(lives))
               if lives[number].end == power.REBOOT and number not in local]
    reports = [state.reported["reboot"] for state in states if state.reported.get("reboot", {}).get("id") == identity]
    finals = [report for report in reports if report["status"] in FINAL]
    final = finals[-1] if finals else None
    verdict = Verdict(bool(granted), len(reboots), describe(final))

    if len(reboots) > 1:
        verdict.duplicates.append(f"{identity} rebooted the machine {len(reboots)} times")
    if finals and any(report != finals[0] for report in reports[reports.index(finals[0]):]):
        verdict.duplicates.append(f"{identity} had several outcomes: {reports[reports.index(finals[0]):]}")
    if granted and final is None:
        verdict.losses.append(f"{identity} was answered 200 and has no outcome")
    if any(answer != granted[0] for answer in granted):
        verdict.wrong.append(f"{identity} had different answers: {granted}")
    if final is not None and not granted:
        verdict.wrong.append(f"{identity} was never granted, and yet ended: {final}")
    if final is not None:
        verdict.wrong += wrong_outcome(identity, final, bool(reboots), found, first)
    return verdict


def wrong_outcome(identity: str, final: dict, rebooted: bool, found: list[Boot | None], first: int) -> list[str]:
    """What does not fit in an outcome."""
    wrong = []
    after = next((boot for boot in found[first:] if boot and boot.boot_id == final.get("bootId")), None)
    asked = any(boot and boot.may_have_asked() for boot in found[first:])
    outcome = describe(final)
    # A container's processes die one after another: logind, without its
    # systemd, has time to say no before the daemon is gone, too.
    if outcome == "failed logindRefused" and asked and not rebooted:
        return []
    if outcome not in ("completed", "failed uncleanBoot"):
        wrong.append(f"{identity} ended in an unexpected way: {final}")
    if rebooted and outcome != "completed":
        wrong.append(f"{identity} rebooted the machine, but: {final}")
    if not rebooted and outcome == "completed" and not asked:
        wrong.append(f"{identity} did not reboot the machine, but: {final}")
    if final["previousBootId"] == final.get("bootId") or (after is None and None not in found[first:]):
        wrong.append(f"{identity} names boots that were not: {final}")
    elif after is not None and (outcome == "failed uncleanBoot") != (after.causes == ["unclean"]):
        wrong.append(f"{identity} ended otherwise than its boot: {final}, {after.causes}")
    return wrong


def describe(final: dict | None) -> str:
    if final is None:
        return "none"
    return " ".join([final["status"], *filter(None, [final.get("error", {}).get("code")])])
