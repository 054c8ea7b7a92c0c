"""What is mended on a machine is taken up without anybody restarting the daemon."""

import json
import time

from machines import gateways
from machines.gateways import DEVICE, UNIT

SECRET = "etc/iotdm/connection-string"
SETTINGS = "etc/iotdm/agentd.toml.d/hub.toml"


def main_pid(machine) -> str:
    return machine.show(UNIT, "MainPID")["MainPID"]


def wait_for(machine, **expected: str) -> dict[str, str]:
    """Properties of the unit, which are asked for until they are these; systemctl has no way to wait for them."""
    deadline = time.monotonic() + 60
    while (shown := machine.show(UNIT, "StatusText", *expected)) and any(shown[key] != expected[key] for key in expected):
        assert time.monotonic() < deadline, f"{shown}, expected {expected}"
        time.sleep(0.2)
    return shown


def tried(machine, status: int) -> dict:
    said = machine.run("sh", "-c", "iotdm-agentd --test --json; echo status $?")
    found, end = said.rsplit("status ", 1)
    assert end.strip() == str(status), said
    return json.loads(found)


def step_of(found: dict, name: str) -> dict:
    return next(step for step in found["steps"] if step["step"] == name)


def result_of(found: dict, name: str) -> str:
    return step_of(found, name)["result"]


def start_without(machine, *missing: str) -> None:
    """Boots with the daemon enabled, and does not mind that it fails."""
    for path in missing:
        (machine.root / path).unlink()
    machine.power_on()
    machine.run("systemctl", "enable", "--now", UNIT, check=False)


def test_a_ca_that_is_installed_is_trusted_within_a_minute(machine, hub):
    gateways.configure(machine.root, hub)
    start_without(machine, SETTINGS, "etc/iotdm/ca.pem")
    machine.wait_journal("of a CA that this machine does not trust: .* update-ca-certificates", f"--unit={UNIT}")
    daemon = main_pid(machine)
    (machine.root / "usr/local/share/ca-certificates/hub.crt").write_bytes(hub.ca_file.read_bytes())
    machine.run("update-ca-certificates")
    began = time.monotonic()
    machine.wait_journal("the trusted CAs have changed and are taken up", f"--unit={UNIT}", timeout=75)
    hub.wait_connected(DEVICE, timeout=60)
    print(f"connected {time.monotonic() - began:.1f} s after update-ca-certificates")
    assert main_pid(machine) == daemon


def test_a_ca_file_that_comes_late_is_taken_up(machine, hub):
    gateways.configure(machine.root, hub)
    start_without(machine, "etc/iotdm/ca.pem")
    machine.wait_journal("cannot read ca_file /etc/iotdm/ca.pem: No such file", f"--unit={UNIT}")
    daemon = main_pid(machine)
    # There, but not for the daemon to read; then mended.
    late = machine.root / "etc/iotdm/ca.pem"
    late.touch(mode=0o600)
    late.write_bytes(hub.ca_file.read_bytes())
    machine.wait_journal("cannot read ca_file /etc/iotdm/ca.pem: Permission denied", f"--unit={UNIT}", timeout=75)
    late.chmod(0o644)
    hub.wait_connected(DEVICE, timeout=75)
    assert main_pid(machine) == daemon
    assert machine.show(UNIT, "NRestarts")["NRestarts"] == "0"


def test_a_corrected_secret_or_setting_restarts_the_daemon(machine, hub):
    gateways.configure(machine.root, hub)
    right = (machine.root / SECRET).read_text()
    (machine.root / SECRET).write_text(f'"{right.strip()}"\n')
    start_without(machine)
    failed = wait_for(machine, ActiveState="failed", ExecMainStatus="78")
    said = failed["StatusText"]
    assert said.startswith("/etc/iotdm/connection-string cannot be used (to replace it: install -m 600 /dev/stdin "), said
    assert "quotes stand around the connection string" in said
    assert said in machine.run("systemctl", "status", "--no-pager", "--full", UNIT, check=False)
    logged = machine.journal("--output=json", f"--unit={UNIT}", "--grep=quotes stand around")
    assert '"PRIORITY":"3"' in logged and '"MESSAGE_ID":"' in logged, logged

    # As the message says. Nobody restarts anything.
    (machine.root / "root/right").write_text(right)
    machine.run("sh", "-c", f"install -m 600 /dev/stdin /{SECRET} </root/right")
    hub.wait_connected(DEVICE)
    first = main_pid(machine)
    assert "connected to localhost" in wait_for(machine, ActiveState="active")["StatusText"]

    # A setting that is wrong, of a drop-in that is new; removed again.
    drop_in = machine.root / "etc/iotdm/agentd.toml.d/60-new.toml"
    drop_in.write_text("[hub]\nkeepalive = '4m'\n")
    said = wait_for(machine, ActiveState="failed", ExecMainStatus="78")["StatusText"]
    assert "60-new.toml:2: unknown field `keepalive`" in said
    drop_in.unlink()
    wait_for(machine, ActiveState="active")
    hub.wait_connected(DEVICE)
    assert main_pid(machine) != first

    # One that may not be read is no wrong text: it is tried again.
    drop_in.touch(mode=0o600)
    drop_in.write_text("[log]\nlevel = 'debug'\n")
    said = wait_for(machine, SubState="auto-restart", ExecMainStatus="1")["StatusText"]
    assert "60-new.toml: Permission denied" in said
    drop_in.chmod(0o644)
    wait_for(machine, ActiveState="active")

    # A daemon that is neither enabled nor running is left alone.
    machine.run("systemctl", "disable", "--now", UNIT)
    machine.run("sh", "-c", f"install -m 600 /dev/stdin /{SECRET} </root/right")
    machine.wait_journal("Finished .*Restart of the reboot agent", "--unit=iotdm-agentd-secret.service")
    assert machine.show(UNIT, "ActiveState")["ActiveState"] == "inactive"


def test_root_judges_the_settings_as_the_service_would(machine, hub):
    gateways.configure(machine.root, hub)
    machine.power_on()
    said = machine.run("iotdm-agentd", "--check-config")
    assert "judged as        iotdm, in a unit like iotdm-agentd.service\n" in said, said
    assert "key (hidden) from /etc/iotdm/connection-string\n" in said
    # A test of the way, in the service's sandbox: in a container there is no watchdog to warn of.
    found = tried(machine, 0)
    assert found["judgedAs"] == "iotdm, in a unit like iotdm-agentd.service" and found["daemonRuns"] is False
    for step in ["configuration", "name", "tcp", "tls", "connack", "twin", "logind", "polkit", "state-directory"]:
        assert result_of(found, step) == "ok", found
    # What root could read is not for the service.
    (machine.root / "etc/iotdm/ca.pem").chmod(0o600)
    check = "iotdm-agentd --check-config 2>&1; echo status $?"
    said = machine.run("sh", "-c", check)
    assert "cannot read ca_file /etc/iotdm/ca.pem: Permission denied" in said and said.endswith("status 1\n"), said
    assert result_of(tried(machine, 1), "configuration") == "failed"
    (machine.root / "etc/iotdm/ca.pem").chmod(0o644)
    # What root could not read is, if it is the service's.
    encrypt = "systemd-creds encrypt --with-key=host --name=connection-string /etc/iotdm/connection-string /etc/iotdm/connection-string.cred"
    machine.run("sh", "-c", f"{encrypt} && rm /etc/iotdm/connection-string && systemctl daemon-reload")
    said = machine.run("sh", "-c", check)
    assert "key (hidden) from /etc/iotdm/connection-string.cred\n" in said and said.endswith("status 0\n"), said
    assert result_of(tried(machine, 0), "connack") == "ok"

    # Beside the daemon the test takes no connection from it, and leaves its directory.
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    found = tried(machine, 0)
    assert found["daemonRuns"] is True and "the running daemon" in step_of(found, "connack")["detail"], found
    assert '"connected": true' in machine.run("cat", "/run/iotdm/status.json")
    assert machine.show(UNIT, "NRestarts")["NRestarts"] == "0"
    assert "another client" not in machine.journal(f"--unit={UNIT}") and "closed the connection" not in machine.journal(f"--unit={UNIT}")
