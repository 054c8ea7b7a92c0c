"""A slice of the campaign: `make campaign` has the rest."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from campaign import BEFORE_THE_ANSWER
from judges.tally import Tally
from judges.verdict import DOUBLED, UNTRUE
from judges.wire import Wire
from machines.gateways import DEVICE
from powercuts import harm, subjects
from powercuts.plan import STAGES, plan
from powercuts.subjects import SUFFERINGS, Suffering
from powercuts.trial import Campaign
from pyharness.hub import Hub

# Twice each stage.
SEED = 2
TRIALS = 2 * len(STAGES)


@pytest.fixture
def campaign(request, installed, tmp_path):
    wire = Wire(DEVICE)
    with (Hub(tmp_path / "hub", verbose=True, listener=wire.hear) as hub,
          subjects.container(installed, hub, tmp_path / "machine", request.param) as subject):
        campaign = Campaign(subject, hub, wire, SEED)
        campaign.settle()
        yield campaign
        # pytest shows this for a test that failed.
        print(subject.machine.journal("--output=short-precise", "--priority=info"))


@pytest.mark.parametrize("campaign", SUFFERINGS.values(), ids=SUFFERINGS, indirect=True)
def test_cuts_at_random_instants(campaign, request):
    tally = Tally(stage.name for stage in STAGES)
    for number in range(TRIALS):
        trial = campaign.trial(number)
        print(f"{number}: {trial}")
        tally.add(trial)
    print(tally)
    assert tally.failures() == 0, str(tally)
    assert tally.trials == TRIALS and tally.cuts() >= TRIALS
    if request.node.callspec.id == "slow":
        assert tally.before_the_answer() >= BEFORE_THE_ANSWER, str(tally)


def ask_again(root: Path, _luck: float) -> bool:
    """Makes of a reboot that was begun one whose time has still to come, and does not tell the judge."""
    record = json.loads((root / harm.RECORD).read_text().splitlines()[0])
    record["reboot"]["status"] = "scheduled"
    record["reboot"].pop("startedAt")
    soon = datetime.now(UTC) + timedelta(seconds=5)
    record["reboot"]["notBefore"] = soon.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record.pop("asked", None)
    record.pop("goingDown", None)
    text = json.dumps(record)
    (root / harm.RECORD).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")
    return False


def forget(root: Path, luck: float) -> bool:
    """Empties the state directory, and does not tell the judge."""
    harm.empty(root, luck)
    return False


@pytest.mark.parametrize("campaign, planted, stage, name", [
    (SUFFERINGS["plain"], ask_again, "announced", DOUBLED), (SUFFERINGS["plain"], forget, "pending", UNTRUE),
], ids=["ask-again", "forget"], indirect=["campaign"])
def test_a_fault_that_is_planted_in_a_real_machine_is_found(campaign, monkeypatch, planted, stage, name):
    """The control of the campaign itself."""
    monkeypatch.setitem(harm.HARMS, "planted", planted)
    campaign.subject.suffer(Suffering("planted", "", "planted"))
    plans = ((number, plan(SEED, campaign.subject, number)) for number in range(1000))
    number = next(number for number, one in plans
                  if (one.stage.name, one.kind, one.again, one.withheld) == (stage, "delayed", None, None))
    trial = campaign.trial(number)
    assert name in {fault.name for fault in trial.verdict.faults}, str(trial)
