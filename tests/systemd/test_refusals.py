"""What the machine itself refuses: no 200, and no reboot."""

import json
from pathlib import Path

import gateway as gateways
from gateway import DEVICE, UNIT


def refusal(hub) -> tuple[int, int, str]:
    """The operator's exit code, the device's status and its error code."""
    done = hub.ctl("reboot", DEVICE, "--output", "json")
    reply = json.loads(done.stdout)["reply"]
    return done.returncode, reply["status"], reply["payload"]["error"]["code"]


def assert_still_up(gateway) -> None:
    """The daemon answers on and the machine is in its first boot."""
    assert gateway.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert (len(gateway.boots), gateway.ends) == (1, [])
    assert "The system will reboot now" not in gateway.journal("--unit=systemd-logind")


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

    # The daemon is no worse for it.
    (Path(f"/proc/{machine.boots[-1].leader}/root/var/lib/iotdm/filler")).unlink()
    accepted = hub.ctl("reboot", DEVICE, "--no-wait")
    assert accepted.returncode == 0, accepted.stderr
    machine.wait_boot(2)
