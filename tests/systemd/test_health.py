"""What the twin tells of the machine's health and boots, with a real systemd."""

import json
import re
from pathlib import Path

from machines.gateways import DEVICE, UNIT

FAILS_AT_BOOT = """\
[Unit]
Description=An application that does not start

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/test -e /etc/mended

[Install]
WantedBy=multi-user.target
"""

EVERY_SECOND = {
    "tick.service": "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "tick.timer": "[Timer]\nOnActiveSec=1s\nOnUnitActiveSec=1s\nAccuracySec=1ms\n",
}


def write_units(machine, units: dict[str, str]) -> None:
    for name, text in units.items():
        (machine.root / "etc/systemd/system" / name).write_text(text)
    machine.run("systemctl", "daemon-reload")


def wait_health(hub, state: str, **expected) -> dict:
    def holds(reported: dict) -> bool:
        health = reported.get("health", {})
        return health.get("state") == state and all(health.get(key) == value for key, value in expected.items())

    return hub.wait_reported(DEVICE, holds)


def journal_of(said: str) -> str:
    """The journal that a run of iotdm-ctl has named on stderr."""
    return Path(re.search(r"^journal (.+)$", said, re.MULTILINE)[1]).read_text()


def woken_so_far(machine) -> int:
    """How often the daemon was given the processor."""
    return int(machine.run("sh", "-c", f"cat /proc/$(systemctl show --value -p MainPID {UNIT})/schedstat").split()[2])


def test_a_service_that_fails_at_boot_is_named_until_it_is_mended(gateway, hub):
    healthy = wait_health(hub, "running")["health"]
    assert healthy["failedCount"] == 0 and "failedUnits" not in healthy
    write_units(gateway, {"gateway-app.service": FAILS_AT_BOOT})
    gateway.run("systemctl", "enable", "gateway-app.service")
    hub.create("other")
    done = hub.ctl("reboot", DEVICE, "other", "--id", "r-1", "--canary", "1", "--interval", "1s")
    print(done.stdout, done.stderr)
    assert done.returncode == 7
    assert f"{DEVICE}: the device came back unhealthy: gateway-app.service\n" in done.stderr
    assert "2 devices: 1 unhealthy, 1 not started\n" in done.stdout and "gateway-app.service" in done.stdout
    assert '"sent":{"device":"other"' not in journal_of(done.stderr), "nobody else is touched"
    assert "degraded (gateway-app.service)" in hub.done("status", DEVICE)
    unhealthy = hub.done("query", "--ready-made", "unhealthy")
    assert DEVICE in unhealthy and "gateway-app.service" in unhealthy and "other" not in unhealthy
    reported = wait_health(hub, "degraded", failedUnits=["gateway-app.service"])
    boot = gateway.wait_boot(2)
    assert reported["health"]["bootId"] == reported["reboot"]["bootId"] == boot.boot_id
    assert reported["reboot"]["status"] == "completed" and "failedBefore" not in reported["reboot"]
    assert 0 < reported["health"]["hubReachedAfterSeconds"] < 120
    assert (reported["boot"]["count"], reported["boot"]["uncleanCount"]) == (2, 0)

    # Mended by hand: nobody restarts the daemon, and nothing is asked by the clock.
    (gateway.root / "etc/mended").touch()
    gateway.run("systemctl", "restart", "gateway-app.service")
    running = wait_health(hub, "running", failedCount=0)
    assert running["health"]["bootId"] == boot.boot_id

    # A failure that is known before a reboot is told with the request, also where
    # the twin was told of another change within the last minute.
    write_units(gateway, {"late.service": "[Service]\nExecStart=/bin/false\n"})
    gateway.run("systemctl", "start", "late.service")
    gateway.wait_journal("the machine is degraded: late.service", f"--unit={UNIT}")
    hub.done("invoke", DEVICE, "rebootDevice", "--payload", '{"id":"r-2","delaySeconds":3600}')
    reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["id"] == "r-2")
    assert reported["reboot"]["failedBefore"] == ["late.service"]

    # And a power cut is counted.
    gateway.cut_power()
    gateway.power_on()
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["count"] == 3)
    assert (reported["boot"]["cause"], reported["boot"]["uncleanCount"]) == ("unclean", 1)
    assert "detail" not in reported["boot"]
    print(hub.done("history", DEVICE))
    boots = json.loads(hub.done("history", DEVICE, "--output", "json"))
    assert [boot["cause"] for boot in boots] == ["unclean", "requested", "unknown"]
    assert boots[1]["requestId"] == "r-1" and boots[0]["bootId"] == reported["boot"]["bootId"]
    assert hub.done("query", "--ready-made", "crashing") == "no rows\n", "one power cut is no crash"


def test_a_timer_that_elapses_all_the_time_costs_nothing(gateway, hub):
    wait_health(hub, "running")
    write_units(gateway, EVERY_SECOND)
    gateway.run("systemctl", "start", "tick.timer")
    gateway.wait_journal("Finished tick.service", timeout=30)
    version, woken = hub.reported(DEVICE)["$version"], woken_so_far(gateway)
    gateway.run("sleep", "20")
    ticks = gateway.journal("--unit=tick.service").count("Finished")
    assert ticks >= 5, ticks
    woken = woken_so_far(gateway) - woken
    print(f"{ticks} runs of the timer; the daemon was scheduled {woken} times in 20 s")
    assert hub.reported(DEVICE)["$version"] == version
    # Its watchdog and its connection apart.
    assert woken <= 10, woken
