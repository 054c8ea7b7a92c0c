"""What is wrong with the state directory when the daemon starts."""

from pathlib import Path

from judges.reports import assert_still_up, refusal
from machines import gateways
from machines.gateways import DEVICE, UNIT

STATE = "/var/lib/iotdm"


def test_a_record_of_another_user_is_set_aside(gateway, hub):
    gateway.run("systemctl", "stop", UNIT)
    gateway.run("chown", "root:root", f"{STATE}/state.json")
    gateway.run("systemctl", "start", UNIT)
    aside = f"{STATE}/state.damaged-0"
    hub.wait_reported(DEVICE, lambda reported: reported["agent"].get("damagedRecord") == aside)
    assert aside in gateway.wait_journal("was damaged", f"--unit={UNIT}")
    assert gateway.run("stat", "--format=%U", aside) == "root\n"
    accepted = hub.ctl("reboot", DEVICE, "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    gateway.wait_boot(2)


def test_a_state_directory_of_another_user_is_taken_over(gateway, hub):
    before = hub.reported(DEVICE)
    gateway.run("systemctl", "stop", UNIT)
    gateway.run("chown", "--recursive", "root:root", STATE)
    gateway.run("systemctl", "start", UNIT)
    hub.wait_connected(DEVICE)
    assert gateway.run("stat", "--format=%U", STATE, f"{STATE}/state.json") == "iotdm\niotdm\n"
    assert hub.reported(DEVICE) == before


def test_a_disk_that_has_become_read_only(machine, hub):
    """Later with a damaged record on that disk, which then cannot be set aside either."""
    (machine.root / "etc/fstab").write_text(f"tmpfs {STATE} tmpfs size=1M,mode=0700 0 0\n")
    gateways.configure(machine.root, hub)
    machine.power_on()
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    remount(machine, "ro")

    assert refusal(hub) == (3, 500, "storageFailed")
    assert_still_up(machine)
    assert "reboot" not in hub.reported(DEVICE)

    # The daemon also starts with such a disk.
    machine.run("systemctl", "stop", UNIT)
    remount(machine, "rw")
    (Path(f"/proc/{machine.boots[-1].leader}/root{STATE}") / "state.json").write_text("{")
    remount(machine, "ro")
    machine.run("systemctl", "start", UNIT)
    hub.wait_reported(DEVICE, lambda reported: reported["agent"].get("damagedRecord") == f"{STATE}/state.json")
    machine.wait_journal("cannot be set aside either", f"--unit={UNIT}")
    assert refusal(hub) == (3, 500, "storageFailed")
    assert_still_up(machine)

    # The unit's own view of a file system stays as it was at the unit's start.
    remount(machine, "rw")
    machine.run("systemctl", "restart", UNIT)
    hub.wait_connected(DEVICE)
    accepted = hub.ctl("reboot", DEVICE, "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    machine.wait_boot(2)


def test_a_state_directory_that_is_removed_while_the_daemon_runs(gateway, hub):
    asked = hub.ctl("invoke", DEVICE, "rebootDevice", "--payload", '{"id": "told", "delaySeconds": 3600}')
    assert asked.returncode == 0, asked.stderr
    hub.done("cancel", DEVICE)
    told = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "cancelled")
    gateway.run("rm", "-rf", STATE)
    assert refusal(hub) == (3, 500, "storageFailed")
    remedy = "is gone and cannot be made again"
    assert "systemctl restart iotdm-agentd" in gateway.wait_journal(remedy, f"--unit={UNIT}")
    assert remedy in gateway.show(UNIT, "StatusText")["StatusText"]
    assert_still_up(gateway)

    # The remedy that was named is one, and takes nothing back that was told.
    gateway.run("systemctl", "restart", UNIT)
    gateway.wait_journal("the device twin remembers told", f"--unit={UNIT}")
    hub.wait_connected(DEVICE)
    assert hub.done("invoke", DEVICE, "rebootDevice", "--payload", '{"check": true}')
    assert hub.reported(DEVICE)["reboot"] == told["reboot"]
    accepted = hub.ctl("reboot", DEVICE, "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    gateway.wait_boot(2)


def remount(machine, how: str) -> None:
    machine.run("mount", "--options", f"remount,{how}", STATE)
