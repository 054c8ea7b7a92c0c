"""The campaign's judge itself: that it does find what is wrong."""

import json

import pytest
from judges import verdict
from judges.wire import METHOD_REPLY, REPORTED_PATCH, TWIN_REPLY, Wire
from machines.power import CUT, REBOOT, Life

DONE = {"status": "completed", "previousBootId": "b0", "bootId": "b1"}
UNCLEAN = {**DONE, "status": "failed", "error": {"code": "uncleanBoot", "message": "m"}}
BEGUN = {"status": "rebooting", "previousBootId": "b0"}
UNCHANGED: dict = {}


class Story:
    """A machine's lives and what it says in them; a tick of the clock each."""

    def __init__(self, monkeypatch) -> None:
        self.lives: list[Life] = []
        self.wire = Wire("gw1")
        self._now = 0.0
        self._rid = 0
        monkeypatch.setattr("judges.wire.time.monotonic", self._tick)

    def _tick(self) -> float:
        self._now += 1
        return self._now

    def ends(self, how: str) -> "Story":
        self.lives[-1].end = how
        return self.boots()

    def boots(self) -> "Story":
        self.lives.append(Life(self._tick()))
        return self

    def reports(self, cause: str, reboot: dict = UNCHANGED, answered: bool = True) -> "Story":
        boot = {"bootId": f"b{len(self.lives) - 1}", "cause": cause}
        patch = {"boot": boot, **({"reboot": {"id": "r", **reboot}} if reboot else {})}
        self._rid += 1
        self.says(f"{REPORTED_PATCH}?$rid={self._rid}", patch)
        return self.hears() if answered else self

    def answers(self, **body) -> "Story":
        return self.says(f"{METHOD_REPLY}200/?$rid=1", {"id": "r", **body})

    def says(self, topic: str, payload: dict) -> "Story":
        self.wire.hear(f'DEBUG device -> hub device=gw1 topic="{topic}" payload={json.dumps(payload)}')
        return self

    def hears(self) -> "Story":
        """That the hub has what was last reported."""
        self.wire.hear(f'DEBUG hub -> device device=gw1 topic="{TWIN_REPLY}204/?$rid={self._rid}&$version=2" payload=')
        return self

    def judge(self, local: frozenset = frozenset()) -> verdict.Verdict:
        found = verdict.boots(self.lives, self.wire)
        granted = verdict.answers("r", self.wire.messages)
        judged = verdict.judge("r", self.lives, found, set(local), self.wire.states, granted, 0)
        judged.wrong += verdict.wrong_reports(
            self.lives, found, set(local), self.wire.states).values()
        return judged


@pytest.fixture
def story(monkeypatch) -> Story:
    return Story(monkeypatch).boots().reports("unknown")


def test_what_is_right(story):
    story.answers().reports("unknown", BEGUN).ends(REBOOT).reports("requested", DONE)
    story.answers().ends(CUT).reports("unclean")
    judged = story.judge()
    assert (judged.answered, judged.reboots, judged.outcome) == (True, 1, "completed")
    assert not judged.duplicates + judged.losses + judged.wrong


def test_a_cut_before_it_was_announced_is_unclean(story):
    story.answers().ends(CUT)
    assert not story.reports("unclean", UNCLEAN).judge().wrong


@pytest.mark.parametrize("cause, reboot", [("requested", DONE), ("unclean", UNCLEAN)])
def test_a_cut_after_it_was_announced_may_be_either(story, cause, reboot):
    story.answers().reports("unknown", BEGUN).ends(CUT)
    assert not story.reports(cause, reboot).judge().wrong


def test_a_device_that_is_not_answered_goes_on_unannounced(story):
    story.answers().reports("unknown", {**BEGUN, "status": "scheduled"}, answered=False).ends(REBOOT)
    assert not story.reports("requested", DONE).judge().wrong


def test_one_that_is_answered_does_not(story):
    story.answers().reports("unknown", {**BEGUN, "status": "scheduled"}).ends(REBOOT)
    assert story.reports("requested", DONE).judge().wrong


def test_logind_may_refuse_once_it_was_asked(story):
    refused = {"status": "failed", "previousBootId": "b0", "error": {"code": "logindRefused", "message": "m"}}
    story.answers().reports("unknown", BEGUN).ends(CUT).reports("unclean", refused)
    assert not story.judge().wrong
    assert story.ends(REBOOT).judge().wrong


def test_a_boot_that_nobody_heard_of_is_passed_over(story):
    story.answers().reports("unknown", BEGUN).ends(REBOOT).ends(CUT)
    assert not story.reports("requested", {**DONE, "bootId": "b2"}).judge().wrong


def test_a_lost_request(story):
    assert story.answers().ends(CUT).reports("unclean").judge().losses


def test_a_second_reboot(story):
    story.answers().reports("unknown", BEGUN).ends(REBOOT).reports("requested", DONE)
    assert story.ends(REBOOT).reports("requested").judge().duplicates


def test_a_second_outcome(story):
    story.answers().reports("unknown", BEGUN).ends(CUT).reports("unclean", UNCLEAN)
    assert story.reports("unclean", {**UNCLEAN, "completedAt": "later"}).judge().duplicates


@pytest.mark.parametrize("end, cause, reboot", [
    (CUT, "requested", DONE),  # never announced
    (CUT, "local", UNCHANGED),
    (CUT, "unknown", UNCHANGED),
    (CUT, "requested", UNCLEAN),
    (REBOOT, "unclean", UNCLEAN),
    (REBOOT, "requested", {**DONE, "bootId": "b0"}),
    (REBOOT, "requested", {**DONE, "bootId": "b7"}),
])
def test_a_wrong_cause_or_outcome(story, end, cause, reboot):
    if end == REBOOT:
        story.reports("unknown", BEGUN)
    assert story.answers().ends(end).reports(cause, reboot).judge().wrong


def test_a_report_that_is_taken_back(story):
    assert story.says(f"{REPORTED_PATCH}?$rid=0", {"boot": None}).reports("unknown").judge().wrong


def test_another_answer(story):
    story.answers(message="a").answers(message="b").ends(CUT)
    assert story.reports("unclean", UNCLEAN).judge().wrong


def test_a_reboot_by_somebody_else(story):
    story.ends(REBOOT).reports("local")
    judged = story.judge(local=frozenset({0}))
    assert (judged.reboots, judged.outcome, judged.wrong) == (0, "none", [])
    assert story.judge().wrong, "unless nobody did"
