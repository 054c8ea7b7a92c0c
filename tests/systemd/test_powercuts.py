"""A slice of the campaign: `make campaign` has the rest."""

import pytest
from campaign import BEFORE_THE_ANSWER
from judges.tally import Tally
from judges.wire import Wire
from machines.gateways import DEVICE
from powercuts import subjects
from powercuts.plan import STAGES
from powercuts.subjects import SUFFERINGS
from powercuts.trial import Campaign
from pyharness.hub import Hub

# Twice each stage.
SEED = 2
TRIALS = 2 * len(STAGES)


@pytest.fixture(params=SUFFERINGS.values(), ids=SUFFERINGS)
def campaign(request, installed, tmp_path):
    wire = Wire(DEVICE)
    with (Hub(tmp_path / "hub", verbose=True, listener=wire.hear) as hub,
          subjects.container(installed, hub, tmp_path / "machine", "iotdm-powercuts", request.param) as subject):
        campaign = Campaign(subject, hub, wire, SEED)
        campaign.settle()
        yield campaign
        # pytest shows this for a test that failed.
        print(subject.machine.journal("--output=short-precise", "--priority=info"))


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
