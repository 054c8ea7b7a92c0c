"""What the machine itself refuses: no 200, and no reboot."""

from pathlib import Path

from judges.reports import assert_still_up, refusal
from machines import gateways
from machines.gateways import DEVICE


def test_polkit(gateway, hub):
    (gateway.root / "usr/share/polkit-1/rules.d/50-iotdm.rules").unlink()
    gateway.run("systemctl", "restart", "polkit")
    assert refusal(hub) == (3, 503, "notAuthorized")
    assert_still_up(gateway)


def test_no_logind_on_the_bus(gateway, hub):
    gateway.run("systemctl", "mask", "--now", "systemd-logind.service", "dbus-org.freedesktop.login1.service")
    assert refusal(hub) == (3, 503, "logindUnavailable")
    assert_still_up(gateway)


def test_a_full_state_directory(machine, hub):
    mount = "tmpfs /var/lib/iotdm tmpfs size=64k,mode=0700 0 0\n"
    (machine.root / "etc/fstab").write_text(mount)
    gateways.configure(machine.root, hub)
    machine.power_on()
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    machine.run("sh", "-c", "! cat /dev/zero >/var/lib/iotdm/filler 2>/dev/null")

    assert refusal(hub) == (3, 500, "storageFailed")
    assert_still_up(machine)
    assert "reboot" not in hub.reported(DEVICE)

    # The daemon is no worse for having refused.
    (Path(f"/proc/{machine.boots[-1].leader}/root/var/lib/iotdm/filler")).unlink()
    accepted = hub.ctl("reboot", DEVICE, "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    machine.wait_boot(2)
