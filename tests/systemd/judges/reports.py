"""What a gateway has to report of its boots, and what a machine that refused has to be like."""

import json
from datetime import datetime, timedelta

from machines.container import Boot
from machines.gateways import DEVICE, UNIT
from pyharness.hub import Hub

# What logind logs of every reboot that it was asked for.
LOGIND_REBOOTS = "System is rebooting"
# How long after its power a machine in a container may say that it booted.
BOOT_TOLERANCE = timedelta(seconds=10)


def instant(text: str) -> datetime:
    """A time as it is reported, RFC 3339 in UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def assert_rebooted(reported: dict, before: Boot, after: Boot) -> None:
    """The twin tells of exactly this reboot: between these two boots, begun when the second one began."""
    assert before.boot_id != after.boot_id
    assert reported["reboot"]["status"] == "completed", reported
    assert reported["reboot"]["previousBootId"] == before.boot_id
    assert reported["reboot"]["bootId"] == after.boot_id
    assert reported["boot"]["bootId"] == after.boot_id
    assert_booted_at(reported["rebootTime"], after)


def assert_booted_at(reboot_time: str, boot: Boot) -> None:
    assert boot.began - Boot.BEGAN_TOLERANCE <= instant(reboot_time) <= boot.began + BOOT_TOLERANCE


def refusal(hub: Hub) -> tuple[int, int, str]:
    """Asks for a reboot that is refused; iotdm-ctl's exit code, the device's status and its error code."""
    done = hub.ctl("reboot", DEVICE, "--output", "json")
    reply = json.loads(done.stdout)["reply"]
    return done.returncode, reply["status"], reply["payload"]["error"]["code"]


def assert_still_up(gateway) -> None:
    """The daemon answers on, the machine is in its first boot, and logind was not asked to end it."""
    assert gateway.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert (len(gateway.boots), gateway.ends) == (1, [])
    assert LOGIND_REBOOTS not in gateway.journal("--unit=systemd-logind")
