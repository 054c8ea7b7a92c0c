"""Boots that nobody asked the daemon for, and one that the daemon cannot see."""

from judges.reports import assert_booted_at
from machines import gateways
from machines.container import REBOOT
from machines.gateways import DEVICE, NOTE, UNIT


def test_a_reboot_by_somebody_else_is_local(gateway, hub):
    gateway.run("systemctl", "reboot", check=False)
    assert_reported(gateway, hub, "local")
    assert gateway.ends == [REBOOT]


def test_a_power_cut_is_unclean(gateway, hub):
    gateway.cut_power()
    gateway.power_on()
    assert_reported(gateway, hub, "unclean")


def test_a_reboot_that_the_daemon_did_not_live_to_see_is_local(gateway, hub):
    # A second time, since by then there is a note of a shutdown.
    for count in [2, 3]:
        gateway.run("sh", "-c", f"systemctl kill --signal=KILL {UNIT} && systemctl reboot", check=False)
        assert_reported(gateway, hub, "local", count)
    assert gateway.ends == [REBOOT, REBOOT]


def test_a_power_cut_after_the_note_was_restarted_is_unclean(gateway, hub):
    gateway.run("systemctl", "restart", NOTE)
    gateway.cut_power()
    gateway.power_on()
    assert_reported(gateway, hub, "unclean")


def test_a_power_cut_while_logind_is_asked_is_unclean(gateway, hub):
    # Until the daemon gives up waiting for the acknowledgement there is time to stop logind.
    hub.fault("set", DEVICE, "withhold-twin-reply")
    accepted = hub.ctl("reboot", DEVICE, "--no-wait", "--id", "cut")
    assert accepted.returncode == 0, accepted.stderr
    gateway.run("systemctl", "kill", "--signal=STOP", "systemd-logind")
    asked = "until grep --quiet --no-messages asking /var/lib/iotdm/state.json; do sleep 0.05; done"
    gateway.run("timeout", "60", "sh", "-c", asked)
    gateway.cut_power()
    gateway.power_on()
    boot = gateway.wait_boot(2)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["bootId"] == boot.boot_id)
    assert reported["boot"]["cause"] == "unclean"
    assert (reported["reboot"]["id"], reported["reboot"]["error"]["code"]) == ("cut", "uncleanBoot")


def test_a_restart_of_the_daemon_is_no_boot(gateway, hub):
    before = hub.reported(DEVICE)
    gateway.kill(gateway.show(UNIT, "MainPID")["MainPID"])
    hub.wait_connected(DEVICE)
    assert hub.reported(DEVICE) == before
    assert before["boot"]["cause"] == "unknown"
    assert "rebootTime" not in before


def test_a_container_whose_boot_id_never_changes_is_told_so_and_rebooted_once(machine, hub):
    """As a unit sees it that has a view of /proc of its own in a container: the host's."""
    for unit in [UNIT, NOTE]:
        (machine.root / f"etc/systemd/system/{unit}.service.d/container.conf").unlink()
    gateways.configure(machine.root, hub)
    (machine.root / "etc/iotdm/agentd.toml.d/short.toml").write_text('[reboot]\ndown_timeout = "10s"\n')
    machine.power_on()
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    for count, identity in enumerate(["first", "second"], start=1):
        asked = hub.ctl("reboot", DEVICE, "--id", identity, "--interval", "1s", "--connect-timeout", "60")
        assert asked.returncode == 7, asked.stdout + asked.stderr
        assert "its boot id does not change by a reboot, as in some containers" in asked.stdout + asked.stderr
        reboot = hub.reported(DEVICE)["reboot"]
        assert (reboot["id"], reboot["status"], reboot["error"]["code"]) == (identity, "failed", "neverWentDown")
        # It did go down, and for this request not once more.
        assert machine.ends == [REBOOT] * count


def assert_reported(gateway, hub, cause: str, count: int = 2) -> None:
    boot = gateway.wait_boot(count)
    reported = hub.wait_reported(DEVICE, lambda reported: reported["boot"]["bootId"] == boot.boot_id)
    assert reported["boot"]["cause"] == cause
    assert "reboot" not in reported
    assert_booted_at(reported["rebootTime"], boot)
