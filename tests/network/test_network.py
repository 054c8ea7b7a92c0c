"""A small slice of the campaign: see phases.py for what each does."""

import phases
import pytest
from place import Place


@pytest.fixture
def campaign(tmp_path):
    place = Place(tmp_path, seed=1)
    try:
        place.start('hub.keep_alive = "3s"')
        place.wait_connected()
        yield phases.Campaign(place, seed=1)
        place.stop()
    finally:
        place.close()


def test_connections_that_are_cut_at_random_bytes(campaign):
    campaign.phase("cut", phases.cut_at_random_bytes, 4)
    assert campaign.failures() == 0, campaign
    assert campaign.rows["cut"]["attempts"] > 4, campaign


def test_a_line_that_loses_packets(campaign):
    campaign.phase("loss", phases.lossy, 2, 0.3)
    assert campaign.failures() == 0, campaign


def test_a_peer_that_vanished_is_missed(campaign):
    campaign.phase("vanished", phases.vanished)
    assert campaign.failures() == 0, campaign


def test_a_hub_that_refuses_is_not_hammered(campaign):
    campaign.phase("refused", phases.refused, 5, 15)
    # The daemon waits up to 20, 40, 80 s, evenly spread: six attempts in 15 s would be a chance of one in thousands.
    assert campaign.rows["refused"]["attempts"] < 6, campaign


def test_reconnects_leave_nothing_behind(campaign):
    campaign.phase("reconnects", phases.reconnects, 15)
    files, _ = campaign.before
    assert campaign.after[0] <= files, campaign
    assert campaign.failures() == 0, campaign


def test_no_call_is_lost_when_tokens_are_renewed(campaign):
    campaign.phase("renewals", phases.renewals, 4)
    assert campaign.failures() == 0, campaign


def test_a_family_that_is_dead_hides_no_other(campaign):
    campaign.phase("family", phases.one_family_dead)
    assert campaign.failures() == 0, campaign
