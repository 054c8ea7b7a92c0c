"""A machine that takes its time to go down: something on it stops slowly."""

import json
import subprocess
import time

from machines import gateways
from machines.container import Boot
from machines.gateways import DEVICE

SLOW = "slow-to-stop.service"


def carry_out(machine, hub, seconds: int, after: str = "iotdm-agentd.service") -> str:
    """Reboots a machine that is off and configured, on which a unit that is ordered `after` something takes so many
    seconds to stop; what was seen. A fault is an AssertionError."""
    (machine.root / "etc/systemd/system" / SLOW).write_text(
        f"[Unit]\nAfter={after}\n"
        f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sleep {seconds}\n"
        "TimeoutStopSec=infinity\n")
    before = machine.power_on()
    gateways.enable(machine)
    machine.run("systemctl", "start", SLOW)
    hub.wait_connected(DEVICE)
    began = time.monotonic()
    asking = subprocess.Popen(hub.ctl_command("reboot", DEVICE, "--id", "slow", "--output", "json"),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("waitingFor"))
    assert (told["reboot"]["id"], told["reboot"]["status"]) == ("slow", "rebooting"), told
    assert told["reboot"]["waitingFor"] == [SLOW], told
    # Meanwhile others are told so, and the same request gets its answer.
    other = hub.ctl("invoke", DEVICE, "rebootDevice", "--payload", '{"id":"other"}', "--output", "json")
    refused = json.loads(other.stdout)
    assert (refused["status"], refused["payload"]["error"]["code"]) == (409, "shuttingDown"), refused
    same = hub.ctl("invoke", DEVICE, "rebootDevice", "--payload", '{"id":"slow"}', "--output", "json")
    assert json.loads(same.stdout)["status"] == 200, same.stdout

    after_it = machine.wait_boot(2, timeout=seconds + 300)
    took = time.monotonic() - began
    assert took > seconds, f"down after {took:.0f} s"
    said, errors = asking.communicate(timeout=300)
    assert asking.returncode == 0, f"iotdm-ctl: exit {asking.returncode}: {said}{errors}"
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["bootId"] == after_it.boot_id)
    reboot = reported["reboot"]
    assert (reboot["id"], reboot["status"], reported["boot"]["cause"]) == ("slow", "completed", "requested"), reported
    assert (reboot["previousBootId"], reboot["bootId"]) == (before.boot_id, after_it.boot_id), reported
    assert "waitingFor" not in reboot, reported
    assert reboot["downSeconds"] > seconds - Boot.BEGAN_TOLERANCE.total_seconds(), reported
    return (f"completed, cause requested, iotdm-ctl exit 0; waitingFor was {told['reboot']['waitingFor']}; "
            f"down {reboot['downSeconds']:.0f} s")
