"""Whether the machine needs a reboot: what packages say is in the twin, and heeded."""

import json

from machines.gateways import DEVICE

# As the postinst of dbus and the hooks of kernels do.
ASK = "touch /run/reboot-required && echo %s >>/run/reboot-required.pkgs"


def only_if_required(hub, request: str) -> dict:
    return json.loads(hub.done("reboot", DEVICE, "--id", request, "--if-required", "--interval", "1s", "--output", "json"))


def test_a_reboot_only_if_packages_ask_for_one(gateway, hub):
    assert "rebootRequired" not in hub.reported(DEVICE)
    assert only_if_required(hub, "too-early")["outcome"] == "notNeeded"
    gateway.run("sh", "-c", ASK % "dbus")
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
