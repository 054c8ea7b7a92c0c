"""Whether the machine needs a reboot: what packages say is in the twin, and heeded; and the machine asks itself."""

import json
import re
from datetime import UTC, datetime, timedelta

from judges.reports import instant
from machines import inhibitor
from machines.gateways import DEVICE, UNIT

# As the hooks of kernels do.
ASK = "touch /run/reboot-required && echo %s >>/run/reboot-required.pkgs"
# What dpkg does when it upgrades dbus: the package's own script asks for the reboot.
UPGRADE_DBUS = ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg-reconfigure", "dbus"]


def only_if_required(hub, request: str) -> dict:
    return json.loads(hub.done("reboot", DEVICE, "--id", request, "--if-required", "--interval", "1s", "--output", "json"))


def ask_itself(gateway, opens: datetime, closes: datetime) -> None:
    """Has the machine do so in this window of each day; the machine's time zone is UTC."""
    settings = gateway.root / "etc/iotdm/agentd.toml.d/need.toml"
    window = f"{opens:%H:%M}-{closes:%H:%M}"
    settings.write_text(f'[reboot]\nwindows = "{window}"\nwhen_required = "window"\n')
    gateway.run("systemctl", "restart", UNIT)


def test_a_reboot_where_packages_ask_for_one(gateway, hub):
    assert "rebootRequired" not in hub.reported(DEVICE)
    assert only_if_required(hub, "too-early")["outcome"] == "notNeeded"
    gateway.run(*UPGRADE_DBUS)
    reported = hub.wait_reported(DEVICE, lambda reported: "rebootRequired" in reported)
    required = reported["rebootRequired"]
    assert (required["required"], required["reasons"], required["reasonCount"]) == (True, ["dbus"], 1), required
    gateway.run("sh", "-c", ASK % "linux-image-6.1.0-49-amd64")
    hub.wait_reported(DEVICE, lambda reported: reported["rebootRequired"]["reasonCount"] == 2)
    assert DEVICE in hub.done("query", "--ready-made", "needs-reboot")

    assert only_if_required(hub, "needed")["outcome"] == "completed"
    boot = gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["bootId"] == boot.boot_id)
    assert (reported["reboot"]["id"], reported["reboot"]["status"]) == ("needed", "completed")
    # The flag went with /run, and no kernel tells.
    assert "rebootRequired" not in reported
    assert only_if_required(hub, "too-late")["outcome"] == "notNeeded"
    assert hub.reported(DEVICE)["reboot"]["id"] == "needed"


def test_a_machine_that_asks_itself(gateway, hub):
    # In a window that is closed now, and waits.
    now = datetime.now(UTC)
    opens = (now + timedelta(hours=12)).replace(minute=0, second=0, microsecond=0)
    ask_itself(gateway, opens, opens + timedelta(hours=2))
    gateway.run(*UPGRADE_DBUS)
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("requestedBy") == "device")
    own = reported["reboot"]
    assert re.fullmatch("required:[0-9a-f]{32}", own["id"]) and own["status"] == "scheduled", own
    assert own["id"] == f"required:{reported['rebootRequired']['askedFor']}"
    assert timedelta() <= instant(own["notBefore"]) - opens < timedelta(minutes=30), own

    # In one that is open it waits for whoever inhibits a shutdown.
    inhibitor.hold(gateway)
    ask_itself(gateway, now - timedelta(hours=1), now + timedelta(hours=3))
    hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "waiting")
    hub.wait_connected(DEVICE)
    status = json.loads(hub.done("invoke", DEVICE, "getRebootStatus", "--output", "json"))["payload"]
    assert (status["reboot"]["status"], status["inhibitors"][0]["who"]) == ("waiting", inhibitor.WHO), status
    assert len(gateway.boots) == 1
    inhibitor.release(gateway)
    boot = gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["bootId"] == boot.boot_id)
    assert (reported["reboot"]["id"], reported["reboot"]["status"]) == (own["id"], "completed")
    assert reported["boot"]["cause"] == "requested"

    # A flag that is there again is told, and causes no second reboot: it would begin at once.
    gateway.run("sh", "-c", ASK % "dbus")
    reported = hub.wait_reported(DEVICE, lambda reported: "rebootRequired" in reported)
    assert (reported["reboot"]["id"], reported["reboot"]["status"]) == (own["id"], "completed")
    # Nor where the record is gone.
    gateway.run("systemctl", "stop", UNIT)
    gateway.run("find", "/var/lib/iotdm/", "-type", "f", "-delete")
    gateway.run("systemctl", "start", UNIT)
    gateway.wait_journal("the device twin remembers", f"--unit={UNIT}")
    hub.wait_connected(DEVICE)
    status = json.loads(hub.done("invoke", DEVICE, "getRebootStatus", "--output", "json"))["payload"]
    assert (status["reboot"]["id"], status["reboot"]["status"]) == (own["id"], "completed"), status
    assert status["rebootRequired"]["required"] is True
    assert len(gateway.boots) == 2

    # Other reasons are another matter.
    gateway.run("sh", "-c", ASK % "libc6")
    boot = gateway.wait_boot(3)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["bootId"] == boot.boot_id)
    assert reported["reboot"]["id"].startswith("required:") and reported["reboot"]["id"] != own["id"]
