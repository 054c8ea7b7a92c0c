"""A reboot for later, as the people on the machine see it."""

import re
import time

from judges.reports import instant
from machines.container import Container
from machines.gateways import DEVICE

LOGIND = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"]
NOTHING = (0, 2**64 - 1)


def test_it_is_announced_and_called_off(gateway, hub):
    assert scheduled(gateway) in NOTHING
    done = hub.ctl("reboot", DEVICE, "--delay", "2h", "--reason", "kernel update", "--no-wait")
    assert done.returncode == 0, done.stderr
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "scheduled")
    at = instant(reported["reboot"]["notBefore"])
    wait_scheduled(gateway, lambda usec: usec == round(at.timestamp() * 1000) * 1000)
    assert "kernel update" in gateway.run("cat", "/run/systemd/shutdown/scheduled")
    assert hub.ctl("cancel", DEVICE).returncode == 0
    wait_scheduled(gateway, lambda usec: usec in NOTHING)


def test_an_administrators_own_shutdown_stands(gateway, hub):
    gateway.run("shutdown", "-r", "+600")
    own = scheduled(gateway)
    assert own not in NOTHING
    done = hub.ctl("reboot", DEVICE, "--delay", "2h", "--no-wait")
    assert done.returncode == 0, done.stderr
    assert hub.ctl("cancel", DEVICE).returncode == 0
    assert scheduled(gateway) == own


def scheduled(machine: Container) -> int:
    """When logind itself is to shut down by its own schedule, in µs since 1970."""
    said = machine.run("busctl", "get-property", *LOGIND, "ScheduledShutdown")
    return int(re.match(r'\(st\) "[a-z-]*" (\d+)', said)[1])


def wait_scheduled(machine: Container, condition, timeout: float = 60) -> None:
    """logind tells nobody when its schedule changes, so this asks again and again."""
    deadline = time.monotonic() + timeout
    while not condition(usec := scheduled(machine)):
        assert time.monotonic() < deadline, f"not in {timeout} s: {usec}"
        time.sleep(0.2)
