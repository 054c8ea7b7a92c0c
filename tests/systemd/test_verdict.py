"""The campaign's judge itself: that it finds each kind of fault, by its name, and takes nothing for one that is right."""

import json
from dataclasses import replace

import pytest
from judges import verdict
from judges.history import History
from judges.verdict import DOUBLED, EARLY, LOST, UNTRUE, Asked
from judges.wire import METHOD_CALL, METHOD_REPLY, REPORTED_PATCH, TWIN_REPLY, Wire
from machines.power import CUT, REBOOT, Life

BEGUN = {"status": "rebooting", "previousBootId": "b0"}
SCHEDULED = {"status": "scheduled", "previousBootId": "b0"}
DONE = {"status": "completed", "previousBootId": "b0", "bootId": "b1"}
UNCLEAN = {**DONE, "status": "failed", "error": {"code": "uncleanBoot", "message": "m"}}
NOT_DONE = {"bootId": None, "status": "failed"}
RECORD_LOST = {**NOT_DONE, "error": {"code": "recordLost", "message": "m"}}
BLOCKED = {**NOT_DONE, "error": {"code": "blockedByInhibitor", "message": "m"}}
CANCELLED = {"status": "cancelled"}
UNCHANGED: dict = {}


class Story:
    """A machine's lives and what it says in them; a tick of the clock each, from 1."""

    def __init__(self, monkeypatch) -> None:
        self.lives: list[Life] = []
        self.wire = Wire("gw1")
        self.history = History(self.lives, self.wire)
        self.asked = Asked("r", 0.0)
        self.now = 0.0
        self._rid = 0
        # Everybody's.
        monkeypatch.setattr("time.monotonic", self._tick)

    def _tick(self) -> float:
        self.now += 1
        return self.now

    # The machine

    def ends(self, how: str, *, by_others: bool = False, harmed: bool = False) -> "Story":
        self.lives[-1].over(how)
        number = len(self.lives) - 1
        self.history.local |= {number} if by_others else set()
        self.history.harmed |= {number} if harmed else set()
        return self.boots()

    def boots(self) -> "Story":
        self.lives.append(Life(self._tick()))
        if len(self.lives) == 1:
            self.asked = replace(self.asked, since=self.now)
        return self

    def logind_reboots(self) -> "Story":
        self.history.logind[len(self.lives) - 1] = self._tick()
        return self

    # The device

    def reports(self, cause: str, reboot: dict = UNCHANGED, identity: str = "r", heard: bool = True) -> "Story":
        boot = {"bootId": f"b{len(self.lives) - 1}", "cause": cause}
        patch = {"boot": boot, **({"reboot": {"id": identity, **reboot}} if reboot else {})}
        self._rid += 1
        self.says(f"{REPORTED_PATCH}?$rid={self._rid}", patch)
        return self.hears() if heard else self

    def begins(self, cause: str = "unknown") -> "Story":
        return self.reports(cause, {**BEGUN, "previousBootId": f"b{len(self.lives) - 1}"})

    def answers(self, **body) -> "Story":
        return self.says(f"{METHOD_REPLY}200/?$rid=1", {"id": "r", "status": "accepted", "bootId": "b0", **body})

    def says(self, topic: str, payload: dict) -> "Story":
        self.wire.hear(f'DEBUG device -> hub device=gw1 topic="{topic}" payload={json.dumps(payload)}')
        return self

    def hears(self) -> "Story":
        """That the hub has what was last reported."""
        self.wire.hear(f'DEBUG hub -> device device=gw1 topic="{TWIN_REPLY}204/?$rid={self._rid}&$version=2" payload=')
        return self

    # The operator

    def is_called(self, method: str = "rebootDevice") -> "Story":
        self.wire.hear(f'DEBUG hub -> device device=gw1 topic="{METHOD_CALL}{method}/?$rid=1" payload={{"id":"r"}}')
        return self

    def is_cancelled(self) -> "Story":
        """By a call that is answered."""
        self.asked.cancelled = True
        return self.is_called("cancelReboot").says(f"{METHOD_REPLY}200/?$rid=2", {"id": "r", "status": "cancelled"})

    def wishes(self) -> "Story":
        self.asked.wish = True
        return self

    def withdraws(self) -> "Story":
        self.asked.withdrawn = self._tick()
        return self

    def later(self, ticks: int) -> "Story":
        """The request is for so many ticks after the story's beginning."""
        self.asked.due = self.asked.since + ticks
        return self

    # The judge

    def judge(self) -> verdict.Verdict:
        judged = verdict.judge(self.history, self.asked)
        judged.faults += verdict.wrong_reports(self.history).values()
        return judged

    def faults(self) -> set[str]:
        return {fault.name for fault in self.judge().faults}


@pytest.fixture
def story(monkeypatch) -> Story:
    return Story(monkeypatch).boots().reports("unknown")


# Right

def test_what_is_right(story):
    story.is_called().answers().begins().logind_reboots().ends(REBOOT).reports("requested", DONE)
    story.is_called().answers().ends(CUT).reports("unclean")
    judged = story.judge()
    assert (judged.answered, judged.reboots, judged.outcome) == (True, 1, "completed")
    assert not judged.faults


def test_a_cut_before_it_was_announced_is_unclean(story):
    assert not story.answers().ends(CUT).reports("unclean", UNCLEAN).faults()


@pytest.mark.parametrize("cause, reboot", [("requested", DONE), ("unclean", UNCLEAN)])
def test_a_cut_after_it_was_announced_may_be_either(story, cause, reboot):
    assert not story.answers().begins().logind_reboots().ends(CUT).reports(cause, reboot).faults()


def test_a_device_that_is_not_answered_goes_on_unannounced(story):
    story.answers().reports("unknown", SCHEDULED, heard=False).ends(REBOOT)
    assert not story.reports("requested", DONE).faults()


def test_logind_may_refuse_once_it_was_asked(story):
    refused = {**NOT_DONE, "previousBootId": "b0", "error": {"code": "logindRefused", "message": "m"}}
    story.answers().begins().ends(CUT).reports("unclean", refused)
    assert not story.faults()
    assert story.ends(REBOOT).faults() >= {UNTRUE}


def test_a_boot_that_nobody_heard_of_is_passed_over(story):
    story.answers().begins().ends(REBOOT).ends(CUT)
    assert not story.reports("requested", {**DONE, "bootId": "b2"}).faults()


def test_a_reboot_by_somebody_else(story):
    story.ends(REBOOT, by_others=True).reports("local")
    judged = story.judge()
    assert (judged.reboots, judged.outcome, judged.faults) == (0, "none", [])
    story.history.local.clear()
    assert story.faults() == {UNTRUE}, "unless nobody did"


def test_what_a_reboot_waits_for_is_no_second_one(story):
    story.answers().begins().reports("unknown", {**BEGUN, "waitingFor": ["a.service"], "waitingForCount": 1})
    assert not story.ends(REBOOT).reports("requested", DONE).faults()


# Lost

def test_a_request_without_an_outcome_is_lost(story):
    story.answers().ends(CUT).reports("unclean")
    assert story.faults() == {LOST}


def test_one_that_was_not_answered_may_be(story):
    assert not story.is_called().ends(CUT).reports("unclean").faults()


@pytest.mark.parametrize("same_answer", [False, True])
def test_to_ask_again_makes_it_no_less_lost(story, same_answer):
    story.is_called().answers().ends(CUT).reports("unclean")
    story.is_called().answers(bootId="b0" if same_answer else "b1").begins("unclean").ends(REBOOT)
    story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"})
    assert LOST in story.faults()


def test_to_ask_again_for_one_that_is_known_changes_nothing(story):
    story.is_called().answers().reports("unknown", SCHEDULED).ends(CUT).reports("unclean", {**SCHEDULED})
    story.is_called().answers().begins("unclean").ends(REBOOT)
    assert not story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"}).faults()


def test_to_ask_again_for_one_that_was_not_answered_is_a_first_time(story):
    story.is_called().ends(CUT).reports("unclean").is_called().answers(bootId="b1").begins("unclean").ends(REBOOT)
    assert not story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"}).faults()


def test_a_wish_that_stands_and_has_no_outcome_is_lost(story):
    assert story.wishes().ends(CUT).reports("unclean").faults() == {LOST}
    assert not story.withdraws().faults()


def test_without_its_record_a_device_knows_what_the_twin_does(story):
    story.is_called().answers().ends(CUT, harmed=True).reports("unknown")
    story.is_called().answers(bootId="b1").begins().ends(REBOOT)
    assert not story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"}).faults()


def test_and_no_less(story):
    story.is_called().answers().reports("unknown", SCHEDULED).ends(CUT, harmed=True)
    story.reports("unknown", {"status": "scheduled"}, identity="other")
    assert story.faults() >= {LOST}


def test_a_scheduled_request_whose_record_is_lost_fails(story):
    story.answers().reports("unknown", SCHEDULED).ends(CUT, harmed=True)
    assert not story.reports("unknown", RECORD_LOST).faults()


def test_also_where_a_silent_hub_was_not_told_that_it_began(story):
    story.answers().reports("unknown", SCHEDULED, heard=False).logind_reboots().ends(CUT, harmed=True)
    assert not story.reports("unknown", RECORD_LOST).faults()


def test_but_not_where_the_twin_says_that_it_began(story):
    story.answers().reports("unknown", SCHEDULED).begins().ends(CUT, harmed=True)
    assert UNTRUE in story.reports("requested", RECORD_LOST).faults()


def test_nor_where_the_record_was_not_destroyed(story):
    story.answers().reports("unknown", SCHEDULED).ends(CUT)
    assert story.reports("unclean", RECORD_LOST).faults() == {UNTRUE}


def test_what_the_twin_says_to_be_going_on_is_completed_without_a_record(story):
    story.answers().begins().ends(CUT, harmed=True)
    assert not story.reports("requested", DONE).faults()


@pytest.mark.parametrize("cause, by_others, right", [
    ("unknown", False, True), ("unknown", True, True), ("local", True, True),
    ("local", False, False), ("unclean", True, False), ("requested", True, False),
])
def test_without_its_record_a_shutdown_is_somebody_elses_or_not_known(story, cause, by_others, right):
    story.ends(CUT, by_others=by_others, harmed=True)
    assert story.reports(cause).faults() == (set() if right else {UNTRUE})


# Doubled

def test_a_second_reboot(story):
    story.answers().begins().ends(REBOOT).reports("requested", DONE).ends(REBOOT).reports("requested")
    assert DOUBLED in story.faults()


@pytest.mark.parametrize("announced", [True, False])
def test_asking_again_after_a_cut_during_the_shutdown(story, announced):
    story.answers().begins().logind_reboots().ends(CUT)
    if announced:
        story.begins("unclean")
    story.ends(REBOOT).reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"})
    assert DOUBLED in story.faults()


def test_asking_again_that_another_cut_stops(story):
    story.answers().begins().logind_reboots().ends(CUT).begins("unclean").logind_reboots().ends(CUT)
    story.reports("unclean", {**UNCLEAN, "previousBootId": "b1", "bootId": "b2"})
    assert DOUBLED in story.faults()


def test_asking_again_unannounced_that_another_cut_stops(story):
    story.answers().begins().logind_reboots().ends(CUT).reports("requested").logind_reboots().ends(CUT)
    story.reports("requested", {**DONE, "previousBootId": "b0", "bootId": "b2"})
    assert DOUBLED in story.faults()


def test_going_on_after_a_cut_with_one_that_was_not_begun(story):
    story.later(4).answers().reports("unknown", SCHEDULED).ends(CUT).reports("unclean", SCHEDULED)
    story.begins("unclean").logind_reboots().ends(REBOOT)
    assert not story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"}).faults()


def test_an_earlier_wish_that_is_carried_out_once_more(story):
    story.answers().begins().ends(REBOOT).reports("requested", DONE).ends(CUT, harmed=True)
    assert DOUBLED in story.reports("unknown", {**BEGUN, "previousBootId": "b2"}, identity="w").faults()


def test_one_id_accepted_twice(story):
    story.is_called().answers().begins().ends(REBOOT).reports("requested", DONE).is_called().answers(bootId="b1")
    assert DOUBLED in story.faults()


# Too early

def test_a_reboot_before_its_time(story):
    story.answers().reports("unknown", SCHEDULED).begins().ends(REBOOT).reports("requested", DONE)
    assert not story.faults()
    assert story.later(20).faults() == {EARLY}


def test_a_reboot_before_its_time_that_was_not_announced(story):
    story.answers().reports("unknown", SCHEDULED, heard=False).logind_reboots().ends(CUT)
    story.reports("requested", DONE)
    assert not story.faults()
    assert story.later(20).faults() == {EARLY}


def test_a_wish_before_its_time(story):
    story.wishes().reports("unknown", SCHEDULED).begins().ends(REBOOT).reports("requested", DONE)
    assert not story.faults()
    assert story.later(20).faults() == {EARLY}


# Untrue

@pytest.mark.parametrize("end, cause, reboot", [
    (CUT, "requested", DONE),  # never announced
    (CUT, "local", UNCHANGED),
    (CUT, "unknown", UNCHANGED),
    (CUT, "requested", UNCLEAN),
    (CUT, "unclean", DONE),
    (REBOOT, "unclean", UNCLEAN),
    (REBOOT, "local", DONE),
    (REBOOT, "unknown", DONE),
    (REBOOT, "requested", {**DONE, "bootId": "b0"}),
    (REBOOT, "requested", {**DONE, "bootId": "b7"}),
    (REBOOT, "requested", {**DONE, "previousBootId": "b7"}),
    (REBOOT, "requested", BLOCKED),
])
def test_a_wrong_cause_or_outcome(story, end, cause, reboot):
    if end == REBOOT:
        story.begins()
    assert UNTRUE in story.answers().ends(end).reports(cause, reboot).faults()


@pytest.mark.parametrize("boots", [{"previousBootId": "b0", "bootId": "b0"}, {"previousBootId": "b0", "bootId": "b1"},
                                   {"previousBootId": "b7", "bootId": "b0"}])
def test_completed_without_a_boot(story, boots):
    assert UNTRUE in story.answers().begins().reports("unknown", {**DONE, **boots}).faults()


def test_completed_by_a_boot_before_it(story):
    story.ends(CUT).reports("unclean")
    story.asked = replace(story.asked, since=story.now)
    story.answers(bootId="b1").begins("unclean")
    assert UNTRUE in story.reports("unclean", {**DONE, "previousBootId": "b0", "bootId": "b1"}).faults()


def test_failed_and_then_carried_out(story):
    story.answers().reports("unknown", SCHEDULED).reports("unknown", BLOCKED).logind_reboots().ends(REBOOT)
    assert UNTRUE in story.reports("requested").faults()


def test_failed_and_then_completed(story):
    story.answers().begins().ends(CUT).reports("unclean", UNCLEAN)
    assert story.reports("unclean", {**UNCLEAN, "completedAt": "later"}).faults() == {UNTRUE}


def test_a_report_that_is_taken_back(story):
    assert UNTRUE in story.says(f"{REPORTED_PATCH}?$rid=0", {"boot": None}).reports("unknown").faults()


def test_unannounced_where_the_hub_did_answer(story):
    story.answers().reports("unknown", SCHEDULED).ends(REBOOT)
    assert UNTRUE in story.reports("requested", DONE).faults()


def test_another_answer(story):
    story.answers(message="a").answers(message="b").ends(CUT)
    assert story.reports("unclean", UNCLEAN).faults() == {UNTRUE}


def test_an_outcome_that_nobody_promised(story):
    assert UNTRUE in story.begins().ends(REBOOT).reports("requested", DONE).faults()
    assert not story.wishes().faults(), "unless it was wished for"


# Cancelled

def test_a_request_that_was_cancelled(story):
    story.later(30).answers().reports("unknown", SCHEDULED).is_cancelled().reports("unknown", CANCELLED)
    assert not story.ends(CUT).reports("unclean").faults()


def test_cancelled_by_a_reply_and_then_carried_out(story):
    story.answers().reports("unknown", SCHEDULED).is_cancelled().ends(CUT).begins("unclean").ends(REBOOT)
    assert UNTRUE in story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"}).faults()


def test_cancelled_by_a_reply_and_then_failed(story):
    story.answers().reports("unknown", SCHEDULED).is_cancelled().ends(CUT)
    assert UNTRUE in story.reports("unclean", UNCLEAN).faults()


def test_cancelled_by_nobody(story):
    assert story.answers().reports("unknown", SCHEDULED).reports("unknown", CANCELLED).faults() == {UNTRUE}


def test_a_wish_that_was_taken_back(story):
    story.wishes().reports("unknown", SCHEDULED).withdraws()
    assert not story.reports("unknown", CANCELLED).faults()


def test_a_wish_that_was_taken_back_and_then_carried_out(story):
    story.wishes().reports("unknown", SCHEDULED).withdraws().ends(CUT).begins("unclean").ends(REBOOT)
    assert UNTRUE in story.reports("requested", {**DONE, "previousBootId": "b1", "bootId": "b2"}).faults()
