"""A slice of the campaign: `tests/systemd/campaign` has the rest."""

import powercuts
import pytest
from gateway import DEVICE
from hub import Hub
from tally import Tally
from wire import Wire

# With this seed from the answer to the next boot's report, a stage each.
SEED = 2
TRIALS = 6


@pytest.fixture
def campaign(installed, tmp_path):
    wire = Wire(DEVICE)
    hub = Hub(tmp_path / "hub", listener=wire.hear)
    hub.start()
    try:
        with powercuts.container(installed, hub, tmp_path / "machine", "iotdm-powercuts") as subject:
            campaign = powercuts.Campaign(subject, hub, wire, SEED)
            campaign.settle()
            yield campaign
            # pytest shows this for a test that failed.
            print(subject.machine.journal("--output=short-precise", "--priority=info"))
    finally:
        hub.stop()


def test_cuts_at_random_instants(campaign):
    tally = Tally()
    for number in range(TRIALS):
        trial = campaign.trial(number)
        print(f"{number}: {trial}")
        tally.add(trial)
    print(tally)
    assert tally.failures() == 0, str(tally)
    assert tally.cuts() >= TRIALS
