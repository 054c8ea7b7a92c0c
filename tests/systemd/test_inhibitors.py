"""A block inhibitor that a program in the machine really holds."""

import json
from datetime import datetime, timezone

import inhibitor
from gateway import DEVICE


def test_refused_by_name_and_rebooted_on_release(gateway, hub):
    inhibitor.hold(gateway)
    refused = hub.ctl("reboot", DEVICE, "--output", "json")
    assert refused.returncode == 3
    reply = json.loads(refused.stdout)["reply"]
    assert (reply["status"], reply["payload"]["error"]["code"]) == (423, "blockedByInhibitor")
    [holder] = reply["payload"]["error"]["inhibitors"]
    assert (holder["who"], holder["why"], holder["uid"]) == (inhibitor.WHO, inhibitor.WHY, 0)

    accepted = hub.ctl("reboot", DEVICE, "--on-inhibitor", "wait", "--id", "patient", "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "waiting")
    assert gateway.ends == []

    released = datetime.now(timezone.utc)
    inhibitor.release(gateway)
    gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "completed")
    assert reported["reboot"]["id"] == "patient"
    assert reported["boot"]["cause"] == "requested"
    started = datetime.fromisoformat(reported["reboot"]["startedAt"].replace("Z", "+00:00"))
    assert (started - released).total_seconds() < 1


def test_waiting_ends_when_the_time_is_up(gateway, hub):
    inhibitor.hold(gateway)
    failed = hub.ctl("reboot", DEVICE, "--on-inhibitor", "wait", "--wait-seconds", "1", "--interval", "1s",
                     "--output", "json")
    assert failed.returncode == 7, failed.stderr
    assert json.loads(failed.stdout)["reboot"]["error"]["code"] == "blockedByInhibitor"
    assert gateway.ends == []


def test_a_scheduled_reboot_comes_at_its_time(gateway, hub):
    done = hub.ctl("reboot", DEVICE, "--delay", "3s", "--reason", "kernel update", "--interval", "1s", "--output", "json")
    assert done.returncode == 0, done.stderr
    reboot = json.loads(done.stdout)["reboot"]
    assert reboot["startedAt"] >= reboot["notBefore"] > reboot["requestedAt"]
    assert len(gateway.boots) == 2
