"""The package as an administrator meets it: apt, systemctl, and what is left behind."""

import pytest
from machines import gateways
from machines.gateways import DEVICE, UNIT

CREDENTIAL = "etc/iotdm/connection-string"


def test_from_apt_install_to_purge(bare_machine, deb, hub):
    machine = bare_machine
    package = machine.root / "root" / deb.name
    package.write_bytes(deb.read_bytes())
    machine.power_on()

    machine.run("apt-get", "install", "-y", f"/root/{deb.name}")
    fresh = machine.show(UNIT, "ActiveState", "UnitFileState")
    assert fresh == {"ActiveState": "inactive", "UnitFileState": "disabled"}

    gateways.relax_for_container(machine.root)
    gateways.configure(machine.root, hub)
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    running = machine.show(UNIT, "ActiveState", "UnitFileState", "MainPID", "NRestarts")
    assert (running["ActiveState"], running["UnitFileState"], running["NRestarts"]) == ("active", "enabled", "0")
    assert_is_nobody_special(machine, running["MainPID"])
    # Also from within its sandbox.
    told = hub.wait_reported(DEVICE, lambda reported: "deviceInformation" in reported)["deviceInformation"]
    assert told["osName"].startswith("Debian") and told["totalStorage"] > 0 and told["totalMemory"] > 0, told
    installed = machine.run("cat", "/usr/share/iotdm/dtmi/iotdm/gateway-1.expanded.json")
    assert machine.run("iotdm-agentd", "--print-model") == installed

    # An upgrade restarts what runs.
    machine.run("apt-get", "install", "-y", "--reinstall", f"/root/{deb.name}")
    upgraded = machine.show(UNIT, "ActiveState", "MainPID")
    assert upgraded["ActiveState"] == "active"
    assert upgraded["MainPID"] != running["MainPID"]

    machine.run("apt-get", "remove", "-y", "iotdm-agentd")
    assert machine.show(UNIT, "ActiveState")["ActiveState"] != "active"
    assert "iotdm-agentd" not in machine.run("sh", "-c", "cat /proc/[0-9]*/comm")
    assert (machine.root / CREDENTIAL).exists()

    machine.run("apt-get", "purge", "-y", "iotdm-agentd")
    (machine.root / "etc/iotdm/ca.pem").unlink(missing_ok=True)
    for gone in ["var/lib/iotdm", CREDENTIAL, "etc/iotdm/agentd.toml"]:
        assert not (machine.root / gone).exists(), gone
    assert "iotdm" not in machine.run("systemctl", "list-unit-files", "--no-legend", check=False)


def assert_is_nobody_special(machine, pid: str) -> None:
    """An ordinary user without capabilities, who alone may look at its state."""
    uid = machine.run("id", "--user", "iotdm").strip()
    status = dict(line.split(":", 1) for line in machine.run("cat", f"/proc/{pid}/status").splitlines())
    assert uid != "0"
    assert status["Uid"].split() == [uid] * 4
    assert status["NoNewPrivs"].strip() == "1"
    for capabilities in ["CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        assert int(status[capabilities], 16) == 0, capabilities
    assert machine.run("stat", "--format=%U %a", "/var/lib/iotdm") == "iotdm 700\n"
    assert machine.run("stat", "--format=%U %a", "/etc/iotdm/connection-string") == "root 600\n"
    secret = machine.run("cat", "/etc/iotdm/connection-string").split("SharedAccessKey=")[1].strip()
    for place in ["environ", "cmdline"]:
        assert secret not in machine.run("cat", f"/proc/{pid}/{place}")
    journal = machine.journal()
    assert "connected to localhost" in journal, "the daemon's own words are among them"
    assert secret not in journal


@pytest.mark.parametrize("content", [None, ""], ids=["missing", "empty"])
def test_without_a_connection_string_it_says_so_and_stays_down(machine, content):
    if content is not None:
        (machine.root / CREDENTIAL).write_text(content)
    machine.power_on()
    machine.run("systemctl", "enable", "--now", UNIT, check=False)
    machine.wait_journal("Failed with result", f"--unit={UNIT}")
    state = machine.show(UNIT, "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert state == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78", "NRestarts": "0"}
    # Of no unit where the daemon has ended before the journal could look whose it was.
    machine.wait_journal("write the device's one into /etc/iotdm/connection-string by install -m 600")


def test_an_encrypted_connection_string(machine, hub):
    gateways.configure(machine.root, hub)
    machine.power_on()
    machine.run("systemd-creds", "encrypt", "--with-key=host", "--name=connection-string",
                f"/{CREDENTIAL}", f"/{CREDENTIAL}.cred")
    (machine.root / CREDENTIAL).unlink()
    gateways.enable(machine)
    hub.wait_connected(DEVICE)


def test_systemd_has_nothing_to_say_against_the_unit(machine):
    machine.power_on()
    # These machines have no man; test_package.py looks at the pages.
    assert machine.run("systemd-analyze", "verify", "--man=no", f"/lib/systemd/system/{UNIT}.service") == ""


def test_the_journal_explains_what_the_daemon_says(gateway):
    explained = gateway.run("journalctl", "--catalog", f"--unit={UNIT}")
    assert "Subject: Connected to localhost" in explained
    assert "The daemon is connected as the device gw1" in explained
