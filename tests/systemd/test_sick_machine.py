"""A machine whose disk is full or slow, whose bus goes and comes, or on which a second daemon is started."""

import json
import re
import subprocess
import time
from datetime import UTC, datetime

import pytest
from judges.reports import LOGIND_REBOOTS, assert_rebooted, instant
from machines import gateways, slow_disk
from machines.gateways import DEVICE, UNIT
from pyharness.hub import Hub

STATE = "/var/lib/iotdm"
BUS = ["dbus.socket", "dbus.service"]
# Of one fsync, in milliseconds; each record that the daemon writes takes two.
STALL = 10_000


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


@pytest.mark.parametrize("machine", ["installed"], ids=["this-debian"], indirect=True)
@pytest.mark.parametrize("told", ["failed", "scheduled"])
def test_what_was_told_of_a_reboot_while_the_disk_was_full_stays_true(machine, hub, told):
    """Freed only after the daemon was restarted, or so long before that it could write and tell the failure."""
    (machine.root / "etc/fstab").write_text(f"tmpfs {STATE} tmpfs size=1M,mode=0700 0 0\n")
    gateways.configure(machine.root, hub)
    (machine.root / "etc/iotdm/agentd.toml.d/short.toml").write_text('[reboot]\ndown_timeout = "5s"\nack_timeout = "1s"\n')
    machine.power_on()
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    asked = hub.ctl("reboot", DEVICE, "--id", "full", "--delay", "20s", "--no-wait")
    assert asked.returncode == 0, asked.stderr
    machine.run("sh", "-c", f"dd if=/dev/zero of={STATE}/fill bs=4k 2>/dev/null; test -s {STATE}/fill")
    machine.wait_journal("the record cannot be saved in the state directory: No space left", f"--unit={UNIT}")
    due = instant(hub.reported(DEVICE)["reboot"]["notBefore"])
    machine.wait_journal("reboot full failed: that it begins could not be recorded", f"--unit={UNIT}")
    assert datetime.now(UTC) > due
    # The disk still says that it is scheduled, and so does the twin.
    assert hub.reported(DEVICE)["reboot"]["status"] == "scheduled"
    if told == "scheduled":
        machine.run("systemctl", "stop", UNIT)
        machine.run("rm", f"{STATE}/fill")
        machine.run("systemctl", "start", UNIT)
        before = machine.boots[-1]
        reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] in ("completed", "failed"))
        # On a tmpfs the record does not survive the reboot, but what the twin says is enough.
        assert_rebooted(reported, before, machine.wait_boot(2))
        return
    machine.run("rm", f"{STATE}/fill")
    failed = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "failed")
    assert failed["reboot"]["error"]["code"] == "neverWentDown"
    machine.run("systemctl", "restart", UNIT)
    hub.wait_connected(DEVICE)
    assert hub.reported(DEVICE)["reboot"] == failed["reboot"]
    assert machine.ends == [] and LOGIND_REBOOTS not in machine.journal("--unit=systemd-logind")
    # The next one is carried out.
    assert hub.ctl("reboot", DEVICE, "--id", "next", "--no-wait").returncode == 0
    machine.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "completed")
    assert reported["reboot"]["id"] == "next"


@pytest.mark.parametrize("machine", ["installed"], ids=["this-debian"], indirect=True)
def test_a_second_daemon_says_that_the_first_runs_and_changes_nothing(gateway, hub):
    assert hub.ctl("reboot", DEVICE, "--id", "first", "--delay", "2h", "--no-wait").returncode == 0
    before = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "scheduled")
    listed = ["sh", "-c", f"cd {STATE} && stat --format='%n %i %s %y' -- * && sha256sum *"]
    files = gateway.run(*listed)
    connections = hub.log().count("device connected")
    said = gateway.run("sh", "-c", f"systemd-run --pipe --wait --collect --unit=second --uid=iotdm "
                       "-p LoadCredential=connection-string:/etc/iotdm/connection-string "
                       f"iotdm-agentd --state-dir {STATE} 2>&1; echo status $?")
    assert f"another iotdm-agentd runs already with the state directory {STATE}: stop that one first" in said, said
    assert said.endswith("status 1\n"), said
    assert gateway.run(*listed) == files
    assert hub.log().count("device connected") == connections
    assert hub.reported(DEVICE) == before
    # The first is as it was.
    assert gateway.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert hub.ctl("cancel", DEVICE).returncode == 0
    cancelled = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "cancelled")
    assert cancelled["reboot"]["id"] == "first"


def test_a_reboot_is_answered_while_the_bus_is_away_and_carried_out_once_it_is_back(gateway, hub):
    daemon = gateway.show(UNIT, "MainPID")
    gateway.run("systemctl", "stop", *BUS)
    asked = hub.ctl("reboot", DEVICE, "--id", "away", "--no-wait", "--output", "json")
    assert asked.returncode == 3, asked.stderr
    reply = json.loads(asked.stdout)["reply"]
    assert (reply["status"], reply["payload"]["error"]["code"]) == (503, "logindUnavailable"), reply
    gateway.run("systemctl", "start", *BUS)
    # systemd 257's logind does not come back to a bus that was away; the daemon does.
    gateway.run("systemctl", "restart", "systemd-logind")
    deadline = time.monotonic() + 60
    # For a moment later, in which the daemon can still be looked at.
    back = ["reboot", DEVICE, "--id", "back", "--delay", "5s", "--no-wait", "--output", "json"]
    while (again := hub.ctl(*back)).returncode != 0:
        assert again.returncode == 3 and time.monotonic() < deadline, again.stdout + again.stderr
    assert gateway.show(UNIT, "MainPID") == daemon
    gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "completed")
    assert (reported["reboot"]["id"], reported["boot"]["cause"]) == ("back", "requested")


@pytest.mark.parametrize("machine", ["installed"], ids=["this-debian"], indirect=True)
def test_a_scheduled_reboot_outlives_the_bus(gateway, hub):
    """The bus goes after the reboot was accepted and is back before its time."""
    assert hub.ctl("reboot", DEVICE, "--id", "patient", "--delay", "20s", "--no-wait").returncode == 0
    gateway.run("systemctl", "stop", *BUS)
    gateway.run("systemctl", "start", *BUS)
    gateway.run("systemctl", "restart", "systemd-logind")
    gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "completed")
    assert (reported["reboot"]["id"], reported["boot"]["cause"]) == ("patient", "requested")


@pytest.mark.parametrize("machine", ["installed"], ids=["this-debian"], indirect=True)
def test_a_reboot_is_answered_and_carried_out_while_the_disk_stalls(machine, tmp_path):
    with Hub(tmp_path / "hub", verbose=True) as hub:
        slow_disk.install(machine.root, fsync=STALL)
        gateways.configure(machine.root, hub)
        before = machine.power_on()
        gateways.enable(machine)
        hub.wait_connected(DEVICE, timeout=120)
        hub.wait_reported(DEVICE, lambda reported: reported.get("boot", {}).get("bootId") == before.boot_id, timeout=120)
        connections = hub.log().count("device connected")
        asking = subprocess.Popen(hub.ctl_command("reboot", DEVICE, "--id", "stalled", "--no-wait", "--output", "json"),
                                  stdout=subprocess.PIPE, text=True)
        hub.wait_for(r'topic="\$iothub/methods/POST/rebootDevice/.*stalled')
        began = time.monotonic()
        # Others wait until the record is written, and are answered as well.
        status = hub.ctl("invoke", DEVICE, "getRebootStatus", "--response-timeout", "120", "--output", "json", timeout=150)
        assert status.returncode == 0, status.stderr
        said, _ = asking.communicate(timeout=120)
        assert asking.returncode == 0, said
        assert json.loads(said)["reply"]["status"] == 200
        assert time.monotonic() - began > 2 * STALL / 1000 - 1, "the answer came before the record was on the disk"
        after = machine.wait_boot(2, timeout=300)
        # Nothing of it cost the connection, before the machine went down.
        log = hub.log().split("stalled", 1)[1]
        assert len(re.findall("device connected", log)) <= 1 and hub.log().count("device connected") <= connections + 1
        reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "completed",
                                     timeout=300)
        assert_rebooted(reported, before, after)
        assert reported["boot"]["cause"] == "requested"
