"""A journal that hangs: nothing that the daemon does may wait for it."""

import json
import re

import pytest
from machines import gateways
from machines.gateways import DEVICE, UNIT


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


def test_a_reboot_is_answered_and_carried_out_while_the_journal_hangs(gateway, hub):
    signal_journal(gateway, "STOP")
    # Each makes the daemon log a warning: more than the journal's socket takes,
    # which is ten datagrams, and than the socket's successor would.
    for number in range(60):
        refused = hub.ctl("invoke", DEVICE, "rebootDevice", "--payload", '{"delaySeconds":-1}', "--output", "json")
        assert refused.returncode == 3, f"call {number}: {refused.stderr}"
        assert json.loads(refused.stdout)["status"] == 400
    assert gateway.show(UNIT, "NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}
    done = hub.ctl("reboot", DEVICE, "--id", "hung-journal", "--no-wait")
    assert done.returncode == 0, done.stderr
    # systemd itself may wait for the journal now and then while it stops things.
    gateway.wait_boot(2, timeout=300)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "completed")
    assert reported["reboot"]["id"] == "hung-journal"


def test_what_was_logged_meanwhile_follows_and_a_flood_is_counted(gateway, hub):
    signal_journal(gateway, "STOP")
    for _ in range(60):
        assert hub.ctl("invoke", DEVICE, "rebootDevice", "--payload", '{"delaySeconds":-1}').returncode == 3
    assert hub.ctl("invoke", DEVICE, "cancelReboot", "--payload", '{"id":5}').returncode == 3
    signal_journal(gateway, "CONT")
    gateway.wait_journal(r"and \d+ more lines like this one, left out", f"--unit={UNIT}", timeout=120)
    refusals = gateway.journal(f"--unit={UNIT}", "MESSAGE_ID=3980ef0e91a54ddc9aecff857d3af308")
    # Each refusal is a line or one that is counted, in as many windows of a minute as the calls have taken.
    left_out = sum(int(count) for count in re.findall(r"and (\d+) more lines", refusals))
    assert left_out >= 15 and 60 <= left_out + len(refusals.splitlines()) <= 63, refusals
    assert gateway.show(UNIT, "NRestarts")["NRestarts"] == "0"


def signal_journal(machine, signal: str) -> None:
    pid = machine.show("systemd-journald", "MainPID")["MainPID"]
    machine.run("sh", "-c", f"kill -{signal} {pid}")
