"""A block inhibitor that a program in the machine really holds, in a systemd where it does not bind root and in one where it does."""

import json
from datetime import UTC, datetime

import pytest
from judges.reports import instant
from machines import gateways, inhibitor
from machines.gateways import DEVICE, UNIT


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


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

    inhibitor.release(gateway)
    released = datetime.now(UTC)
    gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "completed")
    assert reported["reboot"]["id"] == "patient"
    assert reported["boot"]["cause"] == "requested"
    started = instant(reported["reboot"]["startedAt"])
    # By the event: the daemon looks at nothing by itself before the hour of `wait_seconds` is over.
    assert (started - released).total_seconds() < 10


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


def test_the_administrator_can_let_inhibitors_be_passed_over(gateway, hub):
    """By the setting and the rule that iotdm-agentd(8) shows."""
    inhibitor.hold(gateway)
    forbidden = hub.ctl("reboot", DEVICE, "--on-inhibitor", "override", "--output", "json")
    assert json.loads(forbidden.stdout)["reply"]["payload"]["error"]["code"] == "forbidden"

    (gateway.root / "etc/iotdm/agentd.toml.d/override.toml").write_text("[reboot]\nallow_inhibitor_override = true\n")
    gateway.run("systemctl", "restart", UNIT)
    failed = hub.ctl("reboot", DEVICE, "--on-inhibitor", "override", "--interval", "1s", "--connect-timeout", "60",
                     "--output", "json")
    assert failed.returncode == 7, failed.stderr
    assert json.loads(failed.stdout)["reboot"]["error"]["code"] == "logindRefused"
    assert gateway.ends == []

    (gateway.root / "etc/polkit-1/rules.d/49-iotdm-override.rules").write_text("""\
polkit.addRule(function (action, subject) {
    if (subject.user == "iotdm" && action.id == "org.freedesktop.login1.reboot-ignore-inhibit") {
        return polkit.Result.YES;
    }
});
""")
    gateway.run("systemctl", "restart", "polkit")
    done = hub.ctl("reboot", DEVICE, "--on-inhibitor", "override", "--interval", "1s")
    assert done.returncode == 0, done.stderr
    assert len(gateway.boots) == 2


@pytest.mark.parametrize("machine", ["installed_newer"], ids=["newer-debian"], indirect=True)
def test_a_weak_one_binds_the_daemon(gateway, hub):
    """From systemd 257 on there is an inhibitor that does not bind root; to others it is as strong as any."""
    inhibitor.hold(gateway, "block-weak")
    refused = hub.ctl("reboot", DEVICE, "--output", "json")
    assert json.loads(refused.stdout)["reply"]["status"] == 423
    accepted = hub.ctl("reboot", DEVICE, "--on-inhibitor", "wait", "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "waiting")
    inhibitor.release(gateway)
    gateway.wait_boot(2)
