"""A whole machine with its own kernel, and the unit exactly as shipped."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from judges.reports import instant
from machines import gateways, image, vm
from machines.gateways import DEVICE, UNIT
from machines.vm import BOOT

# The kernel takes the date from a clock chip that counts whole seconds, so it may run late by one.
CLOCK_CHIP = timedelta(seconds=1)

# Several boots, of which some may take as long as BOOT seconds.
pytestmark = [pytest.mark.qemu, pytest.mark.timeout(7 * BOOT)]


@pytest.fixture
def virtual(debian, deb, hub, tmp_path):
    with image.layer(debian, tmp_path / "layer") as root:
        image.install(root, deb)
        gateways.configure(root, hub)
        # The emulated processor takes ten times as long to look through an initrd.
        (root / "etc/iotdm/agentd.toml.d/slow.toml").write_text(
            '[preflight]\ntimeout = "60s"\n[reboot]\nallow_preflight_override = true\n')
        vm.prepare(root, [hub.mqtt_port])
        vm.enable(root, UNIT)
        machine = vm.VirtualMachine(root, tmp_path)
        machine.power_on()
        yield machine
        machine.cut_power()
        # pytest shows this for a test that failed.
        print((tmp_path / "console").read_text(errors="replace"))
    machine.disk.unlink()


def test_what_keeps_a_machine_from_coming_back_is_named_beforehand(virtual, hub):
    hub.wait_connected(DEVICE, timeout=BOOT)
    assert judged(hub, check=True) == (200, ["boot-image", "dpkg", "fstab", "root-ro"], "")

    virtual.run("cd /boot; cp initrd.img-* /root; truncate --size=-100000 initrd.img-*")
    status, objecting, reason = judged(hub, check=True)
    assert (status, objecting) == (423, ["boot-image"])
    assert "/initrd.img-" in reason and "is not whole: " in reason
    virtual.run("cp /root/initrd.img-* /boot; cp /boot/vmlinuz-* /root; printf x | dd of=$(ls /boot/vmlinuz-*) bs=1 seek=100000 conv=notrunc")
    status, objecting, reason = judged(hub, check=True)
    assert (status, objecting) == (423, ["boot-image"])
    assert "is not as its package has it" in reason
    virtual.run("cp /root/vmlinuz-* /boot")

    # As the kernel does after an error: also while files are open to be written.
    virtual.run("echo u >/proc/sysrq-trigger; until grep -q ' / ext4 ro' /proc/mounts; do :; done")
    assert judged(hub, check=True)[:2] == (423, ["root-ro"])
    virtual.run("mount -o remount,rw /")

    virtual.run("echo 'UUID=0b5e3a6c-4e1f-4a0c-9d5e-000000000000 /data ext4 defaults 0 2' >>/etc/fstab; sync")
    status, objecting, reason = judged(hub)
    assert (status, objecting) == (423, ["fstab"])
    assert "/data: unreachable on boot required source: UUID=0b5e3a6c-" in reason

    # It was right: passed over, the machine does not come back.
    console = virtual.directory / "console"
    assert invoke(hub, id="over", onPreflight="override")[0] == 200
    virtual.wait_reset(timeout=BOOT)
    deadline = time.monotonic() + BOOT
    while "emergency" not in console.read_text(errors="replace"):
        # A serial console tells nobody that it was written to.
        assert time.monotonic() < deadline, "the machine came back"
        time.sleep(1)
    assert hub.reported(DEVICE)["reboot"]["status"] == "rebooting"


def invoke(hub, **payload) -> tuple[int, dict]:
    done = hub.ctl("-o", "json", "invoke", DEVICE, "rebootDevice", "--response-timeout", "120",
                   "--payload", json.dumps(payload), timeout=BOOT)
    reply = json.loads(done.stdout)
    return reply["status"], reply["payload"]


def judged(hub, **payload) -> tuple[int, list[str], str]:
    """What the checks say: the reply's status, the names that it tells, and the reasons."""
    status, body = invoke(hub, **payload)
    checks = body["preflight"] if status == 200 else body["error"]["preflight"]
    return status, [check["name"] for check in checks], "".join(check.get("reason", "") for check in checks)


def wait_boot(hub, before: dict) -> dict:
    """What is reported once that tells of another boot."""
    return hub.wait_reported(
        DEVICE, lambda reported: reported["boot"]["bootId"] != before["boot"]["bootId"], timeout=BOOT)


def test_a_reboot_a_power_cut_and_two_crashes(virtual, hub):
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
    third = wait_boot(hub, second)
    assert third["boot"]["cause"] == "unclean"
    assert cut - CLOCK_CHIP < instant(third["rebootTime"]) < datetime.now(UTC)
    assert "detail" not in third["boot"], "nobody knows more"
    assert third["reboot"] == second["reboot"], "the reboot of before is not taken for this one"

    # What the kernel said as it panicked is in memory that outlives it.
    virtual.crash("echo c >/proc/sysrq-trigger")
    fourth = wait_boot(hub, third)
    assert (fourth["boot"]["cause"], fourth["boot"]["detail"]) == ("unclean", "kernelPanic")
    assert virtual.run("cat /var/lib/systemd/pstore/*/dmesg.txt").count("sysrq triggered crash") > 0, "the test's premise"

    # A watchdog that was opened and that nobody feeds; the panic is an old story by then.
    virtual.crash("echo unfed >/dev/watchdog")
    fifth = wait_boot(hub, fourth)
    print("boot status:", virtual.run("cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog0/bootstatus"))
    assert (fifth["boot"]["cause"], fifth["boot"]["detail"]) == ("unclean", "watchdog")
    assert (fifth["boot"]["count"], fifth["boot"]["uncleanCount"]) == (5, 3)
    assert fifth["reboot"] == second["reboot"]

    virtual.cut_power()
    reported = [twin["boot"]["bootId"].replace("-", "") for twin in (first, second, third, fourth, fifth)]
    assert virtual.boot_ids() == reported
    # Only the first boot ended by a shutdown, in systemd's own words.
    assert virtual.read("/var/lib/iotdm/last-shutdown").strip() == first["boot"]["bootId"]
