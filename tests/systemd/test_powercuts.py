"""A slice of the campaign: `tests/systemd/campaign` has the rest."""

import pytest
from judges.tally import Tally
from judges.wire import Wire
from machines.gateways import DEVICE
from powercuts import subjects
from powercuts.plan import STAGES
from powercuts.trial import Campaign
from pyharness.hub import Hub

# With this seed the trials go from the reply to the next boot's report, a stage each.
SEED = 2
TRIALS = 6


@pytest.fixture
def campaign(installed, tmp_path):
    wire = Wire(DEVICE)
    with (Hub(tmp_path / "hub", verbose=True, listener=wire.hear) as hub,
          subjects.container(installed, hub, tmp_path / "machine", "iotdm-powercuts") as subject):
        campaign = Campaign(subject, hub, wire, SEED)
        campaign.settle()
        yield campaign
        # pytest shows this for a test that failed.
        print(subject.machine.journal("--output=short-precise", "--priority=info"))


def test_cuts_at_random_instants(campaign):
    tally = Tally(stage.name for stage in STAGES)
    for number in range(TRIALS):
        trial = campaign.trial(number)
        print(f"{number}: {trial}")
        tally.add(trial)
    print(tally)
    assert tally.failures() == 0, str(tally)
    assert tally.trials == TRIALS and tally.cuts() >= TRIALS
