"""A small slice of the campaign: see phases.py for what each does."""

import phases
import pytest
from place import DEVICE, MQTT, NAME, RELAY, SETTINGS, Place
from pyharness.line import HUB, HUB6


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


def test_the_way_is_tried_in_networks_that_are_broken(campaign):
    place = campaign.place
    # Beside a daemon, which has no runtime directory here and so does not say how it is.
    status, steps = place.try_way()
    assert status == 0 and steps["tls"]["result"] == "ok", steps
    assert steps["connack"]["result"] == "skipped" and "whose connection" in steps["connack"]["detail"], steps
    assert not place.said("closed the connection")
    place.stop()

    def broken_at(step: str, words: str) -> None:
        status, steps = place.try_way()
        assert status == 1 and steps[step]["result"] == "failed", steps
        assert words in f"{steps[step]['detail']}: {steps[step]['remedy']}", steps
        assert steps["connack"]["result"] == "skipped", steps

    status, steps = place.try_way()
    assert status == 0 and steps["twin"]["result"] == "ok", steps
    # One family swallows everything: the daemon gets through, and a person is told.
    place.resolve(HUB6, HUB)
    place.line.dead6 = True
    status, steps = place.try_way()
    assert status == 0 and steps["tcp"]["result"] == "warning" and steps["twin"]["result"] == "ok", steps
    assert "mend the route for IPv6" in steps["tcp"]["remedy"], steps
    connects = {one["family"]: one["connects"] for one in steps["tcp"]["connections"]}
    assert connects == {"IPv4": True, "IPv6": False} and "does not answer within 10 s" in steps["tcp"]["detail"], steps
    place.line.dead6 = False
    place.resolve(HUB)
    # A firewall that swallows all of it, a cable that is out, a name that nobody knows.
    place.line.dead = True
    broken_at("tcp", "does not answer within 10 s: check the port in the connection string, and have the firewall")
    place.line.dead = False
    place.line.plug("down")
    broken_at("tcp", "unreachable")
    place.line.plug("up")
    place.resolve()
    broken_at("name", "check the name, and this machine's network and name servers")
    place.resolve(HUB)
    # A line that is bad without being dead is a way all the same.
    place.line.loss, place.line.delay = 0.05, 0.3
    status, steps = place.try_way()
    assert status == 0 and steps["twin"]["result"] == "ok", steps
    place.line.loss = place.line.delay = 0.0
    # What takes TCP says nothing, or resets it once the server has spoken.
    place.relay("mute")
    broken_at("tls", "does not answer: check that this is the hub's TLS port")
    place.relay("drop")
    broken_at("tls", "closed the connection: check that this is the hub's TLS port")
    place.relay("pass")

    def refused_at(step: str, words: str) -> None:
        status, steps = place.try_way()
        assert status == 1 and steps["tls"]["result"] == "ok" and steps[step]["result"] == "failed", steps
        assert words in f"{steps[step]['detail']}: {steps[step]['remedy']}", steps

    # A hub that takes nobody now, or not this device, or no longer knows it.
    for code, words in ((3, "(CONNACK 3, server unavailable): wait"), (5, "(CONNACK 5, not authorized): check its key in ")):
        place.fault("set", DEVICE, "refuse-connect", "--code", str(code), "--count", "1")
        refused_at("connack", words)
    place.fault("set", DEVICE, "withhold-twin-reply", "--count", "1")
    refused_at("twin", "does not answer about the twin: try again")
    place.set_up(f'hub.proxy = "http://{NAME}:{RELAY}"', port=MQTT)
    place.relay("mute")
    broken_at("proxy", "does not answer: check hub.proxy")
    place.relay("pass")
    scope = place.enrol()
    place.set_up(place.provisioned(scope), string=False)
    status, steps = place.try_way()
    assert status == 0 and steps["provisioning"]["result"] == "ok" and steps["twin"]["result"] == "ok", steps
    place.set_up(place.provisioned("0ne00000000"), string=False)
    broken_at("provisioning", "check provisioning.id_scope")
    place.start(SETTINGS)
    place.wait_connected()
