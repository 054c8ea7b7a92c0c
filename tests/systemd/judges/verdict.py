"""What a power cut may lead to, and what it must not."""

import math
from dataclasses import dataclass, field

from machines import power

from judges.history import History
from judges.wire import State

FINAL = ("completed", "failed", "cancelled")

# What can be wrong.
LOST = "lost"  # the request was promised, and forgotten
DOUBLED = "doubled"  # more than one reboot for it, or the asking for one
EARLY = "too early"  # a reboot before the request's time
UNTRUE = "untrue"  # something was told that is not what happened
FAULTS = (LOST, DOUBLED, EARLY, UNTRUE)

# Two clocks that run side by side, in seconds.
TOLERANCE = 0.05
# How long the device may take to hear that a wish was taken back, in seconds.
HEARING = 1.0


@dataclass(frozen=True)
class Fault:
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass
class Asked:
    """What was asked for, by the operator's own clock, which is that of the lives."""

    identity: str
    since: float
    # Left in the twin, and not called.
    wish: bool = False
    # Not before this instant.
    due: float = 0.0
    # Whether it was asked to cancel it.
    cancelled: bool = False
    # When the hub had taken the wish out of the twin.
    withdrawn: float = math.inf


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
    faults: list[Fault] = field(default_factory=list)


def judge(history: History, asked: Asked) -> Verdict:
    """Judges a request when all that it led to is over; what happened before it was asked for is not looked at."""
    found, first = boots(history), history.life_at(asked.since)
    begun = history.begun(asked.since)
    reboots = {number for number, _, _ in begun if history.lives[number].end == power.REBOOT and number not in history.local}
    reports = history.reports(asked.identity)
    final = next((state for state in reports if state.reported["reboot"]["status"] in FINAL), None)
    verdict = Verdict(bool(history.grants(asked.identity)), len(reboots), describe(final))

    def add(name: str, text: str) -> None:
        verdict.faults.append(Fault(name, f"{asked.identity} {text}"))

    for text in losses(history, asked, final):
        add(LOST, text)
    lives = {number for number, _, _ in begun}
    if len(lives) > 1:
        add(DOUBLED, f"was begun in more lives than one: {sorted(lives)}")
    for other in {identity for _, _, identity in begun} - {"", asked.identity}:
        add(DOUBLED, f"was followed by {other} once more")
    if final and any(at > final.at and body["bootId"] != history.grants(asked.identity)[0][1]["bootId"]
                     for at, body in history.grants(asked.identity)) and not history.harmed:
        add(DOUBLED, "was accepted once more after its outcome")
    if early := [at for _, at, _ in begun if at < asked.due - TOLERANCE]:
        add(EARLY, f"was begun {asked.due - early[0]:.3f} s before its time")
    for text in untruths(history, asked, found, first, final):
        add(UNTRUE, text)
    return verdict


def losses(history: History, asked: Asked, final: State | None) -> list[str]:
    """How a request that was promised was forgotten; that it was asked for again later makes it no better."""
    grants, lost = history.grants(asked.identity), []
    if asked.wish:
        return ["is still wished for and has no outcome"] if final is None and asked.withdrawn == math.inf else []
    if not grants:
        return []
    (promised, first), forgiven = grants[0], history.forgiven(asked.identity, grants[0][0])
    if forgiven:
        return []
    if final is None:
        lost.append("was answered 200 and has no outcome")
    before = [(at, body) for at, body in grants if final is None or at < final.at]
    if not history.harmed and any(body["bootId"] != first["bootId"] for _, body in before):
        lost.append("was answered 200, and accepted as a new one when it was asked for again")
    for call in history.calls("rebootDevice", asked.identity):
        life = history.life_at(call.at)
        said = [state for state in history.wire.states if history.lives[life].began <= state.at < call.at]
        unknown = bool(said) and said[-1].reported.get("reboot", {}).get("id") != asked.identity
        if life > history.life_at(promised) and unknown and (final is None or call.at < final.at):
            lost.append(f"was answered 200, and not known any more in life {life}, until it was asked for again")
    return lost


def untruths(history: History, asked: Asked, found: list[Boot | None], first: int, final: State | None) -> list[str]:
    """What was told of a request, by a reply or in the twin, that is not what happened."""
    grants, reports = history.grants(asked.identity), history.reports(asked.identity)
    wrong = []
    if any(body != grants[0][1] for _, body in grants) and not history.harmed:
        wrong.append(f"had different answers: {[body for _, body in grants]}")
    cancelled = history.cancelled_at(asked.identity)
    if went := [number for number, at, _ in history.begun(cancelled) if at > cancelled]:
        wrong.append(f"was begun in life {went[0]} after the reply that it is cancelled")
    heard = asked.withdrawn + HEARING
    # A device that was away announces before it has read that the wish is gone.
    if went := [number for number, at, identity in history.begun(asked.withdrawn) if at > heard and not identity]:
        wrong.append(f"was begun in life {went[0]} after the wish was taken back")
    if final is None:
        return wrong
    if changed := [state.reported["reboot"] for state in reports
                   if state.at > final.at and state.reported["reboot"] != final.reported["reboot"]]:
        wrong.append(f"had an outcome, {final.reported['reboot']}, and then another one: {changed}")
    if went := [number for number, at, _ in history.begun(asked.since) if at > final.at]:
        wrong.append(f"was begun in life {went[0]} after its outcome was told: {describe(final)}")
    if not grants and not asked.wish:
        wrong.append(f"was never granted, and yet ended: {describe(final)}")
    if cancelled < math.inf and describe(final) not in ("cancelled", "failed recordLost"):
        wrong.append(f"was cancelled by a reply, and yet ended: {describe(final)}")
    return wrong + wrong_outcome(history, asked, found, first, final)


def wrong_outcome(history: History, asked: Asked, found: list[Boot | None], first: int, final: State) -> list[str]:
    """What does not fit in an outcome."""
    told, outcome, life = final.reported["reboot"], describe(final), history.life_at(final.at)
    rebooted = any(end.end == power.REBOOT for number, end in enumerate(history.lives[:life])
                   if number >= first and number not in history.local)
    tried = [number for number in range(first, life + 1) if found[number] and found[number].may_have_asked()]
    match outcome:
        # A container's processes die one after another: logind, without its
        # systemd, has time to say no before the daemon is gone, too.
        case "failed logindRefused" if tried and not rebooted:
            return []
        # Without the record it counts how it stood in the twin, which a hub that
        # does not answer need not have been told of its beginning.
        case "failed recordLost" if not asked.wish and forgot_while(history, life, ("scheduled", "waiting")):
            return []
        case "cancelled" if (asked.cancelled or asked.withdrawn < math.inf) and not rebooted:
            return []
        case "completed" | "failed uncleanBoot":
            pass
        case _:
            return [f"ended in an unexpected way: {told}"]
    wrong = []
    after = next((number for number, boot in enumerate(found) if boot and boot.boot_id == told.get("bootId")), None)
    before = next((number for number, boot in enumerate(found) if boot and boot.boot_id == told["previousBootId"]), None)
    seen = None not in found[first:]
    if rebooted and outcome != "completed":
        wrong.append(f"rebooted the machine, but: {told}")
    if outcome == "completed" and not [number for number in tried if after is None or number < after]:
        wrong.append(f"did not reboot the machine, but: {told}")
    if told["previousBootId"] == told.get("bootId") or (seen and (after is None or before is None)):
        wrong.append(f"names boots that were not: {told}")
    elif after is not None and (after > life or after <= first or (before is not None and before >= after)):
        wrong.append(f"names boots in whose time it was not: {told}")
    elif after is not None and (outcome == "failed uncleanBoot") != (found[after].causes == ["unclean"]):
        wrong.append(f"ended otherwise than its boot: {told}, {found[after].causes}")
    return wrong


def forgot_while(history: History, life: int, status: tuple[str, ...]) -> bool:
    """Whether the device's memory was destroyed before this life, when the request stood so in the twin."""
    harmed = [number for number in history.harmed if number < life]
    return bool(harmed) and history.reboot_before(history.lives[max(harmed) + 1].began).get("status") in status


def boots(history: History) -> list[Boot | None]:
    """What was reported in each life; nothing of a life in which the daemon did not get to report."""
    found: list[Boot | None] = [None] * len(history.lives)
    for state in filter(lambda state: "boot" in state.reported, history.wire.states):
        number = history.life_at(state.at)
        boot = state.reported["boot"]
        if found[number] is None:
            found[number] = Boot(boot["bootId"])
        if boot["bootId"] != found[number].boot_id:
            raise AssertionError(f"two boot ids in life {number}: {found[number].boot_id}, {boot['bootId']}")
        if boot["cause"] not in found[number].causes:
            found[number].causes.append(boot["cause"])
    for number, _, identity in history.begun(0):
        if found[number] is not None and identity:
            found[number].announced.add(identity)
    ends = [life.began for life in history.lives[1:]] + [math.inf]
    for boot, life, end in zip(found, history.lives, ends, strict=True):
        if boot is not None:
            boot.unheard = history.wire.unanswered(life.began, end)
    return found


def allowed_causes(history: History, found: list[Boot | None]) -> list[set[str]]:
    """The causes that each life may report.

    logind is asked only after the request was announced to the hub, or the hub
    did not answer in time what was said before. From then on a cut may fall
    before or after the shutdown was recorded, so that two causes are right. A
    life that did not get to report may not have been noticed at all; then the
    next one is judged by what was before.

    Without its record the daemon knows of an earlier boot only what the twin
    says: of a request that stands there as being carried out, and otherwise
    nothing. The note of an administrator's shutdown may have survived.
    """
    lives, allowed = history.lives, [{"unknown"}]
    by_others = False
    for number in range(1, len(lives)):
        before = found[number - 1]
        asked = before is not None and before.may_have_asked()
        shutdown = ({"requested"} if asked else set()) | ({"local"} if number - 1 in history.local else set())
        by_others = number - 1 in history.local or (by_others and before is None)
        if number - 1 in history.harmed:
            stood = history.reboot_before(lives[number].began).get("status")
            causes = {"requested"} if stood == "rebooting" else {"unknown"} | ({"local"} if by_others else set())
        elif lives[number - 1].end == power.REBOOT:
            causes = shutdown
        else:
            causes = {"unclean"} | shutdown
        if before is None:
            causes = causes | allowed[number - 1]
        allowed.append(causes)
    return allowed


def wrong_reports(history: History) -> dict[int, Fault]:
    """The lives of which something was reported that is not what happened."""
    found, wrong = boots(history), {}

    def add(number: int, text: str) -> None:
        wrong[number] = Fault(UNTRUE, text)

    for number, (boot, allowed) in enumerate(zip(found, allowed_causes(history, found), strict=True)):
        if boot is not None and not (len(boot.causes) == 1 and boot.causes[0] in allowed):
            before = history.lives[number - 1].end if number else "nothing"
            add(number, f"life {number}, after {before}, reported {boot.causes}, right: {sorted(allowed)}")
    for state in history.wire.states:
        if "boot" not in state.reported:
            number = history.life_at(state.at)
            add(number, f"in life {number} everything reported was taken back")
    ids = [boot.boot_id for boot in found if boot is not None]
    for boot_id in {boot_id for boot_id in ids if ids.count(boot_id) > 1}:
        add(ids.index(boot_id), f"boot id {boot_id} was reported of several lives")
    return wrong


def describe(final: State | None) -> str:
    if final is None:
        return "none"
    told = final.reported["reboot"]
    return " ".join([told["status"], *filter(None, [told.get("error", {}).get("code")])])
