"""The main job: an operator reboots a gateway and sees it come back."""

import contextlib
import json

from judges.reports import LOGIND_REBOOTS, assert_rebooted
from machines.container import REBOOT
from machines.gateways import DEVICE, UNIT


def test_three_times_in_a_row(gateway, hub):
    for number in range(1, 4):
        before = gateway.boots[-1]
        done = hub.ctl("reboot", DEVICE, "--reason", "kernel update", "--interval", "1s", "--output", "json",
                       "--connect-timeout", "30")
        assert done.returncode == 0, done.stderr
        after = gateway.wait_boot(number + 1)
        assert gateway.ends == [REBOOT] * number

        reported = hub.reported(DEVICE)
        assert_rebooted(reported, before, after)
        assert reported["reboot"]["reason"] == "kernel update"
        assert reported["reboot"]["requestedBy"] == "method"
        assert reported["boot"]["cause"] == "requested"
        assert json.loads(done.stdout)["rebootTime"] == reported["rebootTime"]
    # The control of assert_still_up: where a machine is rebooted, logind does say these words.
    assert gateway.journal("--unit=systemd-logind").count(LOGIND_REBOOTS) == 3


def test_killed_right_after_the_reply(gateway, hub):
    before = gateway.boots[-1]
    pid = gateway.show(UNIT, "MainPID")["MainPID"]
    # Without the acknowledgement of its reply the daemon holds back for
    # ack_timeout, so the kill falls between the reply and the reboot.
    hub.fault("set", DEVICE, "withhold-puback")
    replied = hub.ctl("reboot", DEVICE, "--no-wait", "--id", "killed", "--reason", "kernel update")
    gateway.kill(pid)
    assert replied.returncode == 0, replied.stderr
    assert gateway.ends == [], "the machine went down before the kill"

    after = gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "completed")
    assert_rebooted(reported, before, after)
    assert reported["reboot"]["id"] == "killed"
    again = hub.ctl("reboot", DEVICE, "--id", "killed", "--interval", "1s")
    assert again.returncode == 0, again.stderr
    assert gateway.ends == [REBOOT], "the same id rebooted the machine twice"


def test_killed_as_soon_as_the_operator_has_the_reply(gateway, hub):
    """The kill races with the reboot; whoever wins, the outcome is one completed reboot."""
    before = gateway.boots[-1]
    pid = gateway.show(UNIT, "MainPID")["MainPID"]
    replied = hub.ctl("reboot", DEVICE, "--no-wait", "--reason", "kernel update")
    with contextlib.suppress(AssertionError):  # already gone down with its machine
        gateway.kill(pid)
    assert replied.returncode == 0, replied.stderr

    after = gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "completed")
    assert_rebooted(reported, before, after)
    assert gateway.ends == [REBOOT]
