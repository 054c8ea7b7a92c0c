"""A whole machine with its own kernel, and the unit exactly as shipped."""

from datetime import UTC, datetime, timedelta

import pytest
from judges.reports import instant
from machines import gateways, image, vm
from machines.gateways import DEVICE, UNIT
from machines.vm import BOOT

# The kernel takes the date from a clock chip that counts whole seconds, so it may run late by one.
CLOCK_CHIP = timedelta(seconds=1)

# Several boots, each of which may take BOOT seconds.
pytestmark = [pytest.mark.qemu, pytest.mark.timeout(6 * BOOT)]


@pytest.fixture
def virtual(debian, deb, hub, tmp_path):
    with image.layer(debian, tmp_path / "layer") as root:
        image.install(root, deb)
        gateways.configure(root, hub)
        vm.prepare(root, [hub.mqtt_port])
        vm.enable(root, UNIT)
        machine = vm.VirtualMachine(root, tmp_path)
        machine.power_on()
        yield machine
        machine.cut_power()
        # pytest shows this for a test that failed.
        print((tmp_path / "console").read_text(errors="replace"))
    machine.disk.unlink()


def test_a_reboot_and_a_power_cut(virtual, hub):
    hub.wait_connected(DEVICE, timeout=BOOT)
    first = hub.reported(DEVICE)
    assert first["boot"]["cause"] == "unknown"
    assert "rebootTime" not in first

    asked = datetime.now(UTC)
    done = hub.ctl("reboot", DEVICE, "--reason", "kernel update", "--interval", "1s", timeout=BOOT)
    assert done.returncode == 0, done.stderr
    virtual.wait_reset(timeout=1)
    second = hub.reported(DEVICE)
    assert second["reboot"]["status"] == "completed"
    assert second["reboot"]["previousBootId"] == first["boot"]["bootId"]
    assert second["reboot"]["bootId"] == second["boot"]["bootId"]
    assert second["boot"]["cause"] == "requested"
    assert asked - CLOCK_CHIP < instant(second["rebootTime"]) < datetime.now(UTC)

    virtual.cut_power()
    cut = datetime.now(UTC)
    virtual.power_on()
    third = hub.wait_reported(
        DEVICE, lambda reported: reported["boot"]["bootId"] != second["boot"]["bootId"], timeout=BOOT)
    assert third["boot"]["cause"] == "unclean"
    assert cut - CLOCK_CHIP < instant(third["rebootTime"]) < datetime.now(UTC)
    assert third["reboot"] == second["reboot"], "the reboot of before is not taken for this one"

    virtual.cut_power()
    reported = [twin["boot"]["bootId"].replace("-", "") for twin in (first, second, third)]
    assert virtual.boot_ids() == reported
    # Only the first boot ended by a shutdown, in systemd's own words.
    assert virtual.read("/var/lib/iotdm/last-shutdown").strip() == first["boot"]["bootId"]
