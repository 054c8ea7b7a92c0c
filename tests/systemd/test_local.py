"""What the daemon tells its own machine: its status, whether the hub was reached, what would end a hang, its numbers."""

import json
import re
import subprocess
import time

import pytest
from machines import package
from machines.gateways import DEVICE, UNIT

STATUS = "/run/iotdm/status.json"
CONNECTED = "iotdm-agentd-connected.service"
EXAMPLE = "/usr/share/doc/iotdm-agentd/examples/reboot.target.d/iotdm.conf"
TARGET = "etc/systemd/system/reboot.target.d"
COLLECTED = "/var/lib/prometheus/node-exporter"


def status(machine) -> dict:
    """As anybody on the machine reads it."""
    return json.loads(machine.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", STATUS))


def state(machine, unit: str) -> tuple[str, str]:
    shown = machine.show(unit, "ActiveState", "Result")
    return shown["ActiveState"], shown.get("Result", "")


def drop_in(machine, unit: str, text: str) -> None:
    file = machine.root / f"etc/systemd/system/{unit}.d/test.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    machine.run("systemctl", "daemon-reload")


def test_a_boot_is_complete_once_the_hub_has_acknowledged(gateway, hub, deb):
    machine = gateway
    # Packaged, and enabled by nobody.
    assert machine.run("systemctl", "is-enabled", CONNECTED, check=False).strip() == "disabled"
    assert state(machine, CONNECTED)[0] == "inactive"
    machine.run("systemctl", "enable", CONNECTED)
    assert status(machine)["connected"] is True
    assert machine.run("stat", "--format=%a %U", "/run/iotdm", STATUS).split() == ["755", "iotdm", "644", "iotdm"]

    # As an image does it that judges its boots.
    machine.run("systemctl", "start", "boot-complete.target")
    assert state(machine, "boot-complete.target")[0] == "active"
    machine.wait_journal(f"has acknowledged {DEVICE} at ", f"--unit={CONNECTED}")

    # An upgrade does not ask again, and so is not held up where the hub is away; the
    # status goes with the daemon and comes back with it.
    hub.stop()
    (machine.root / "root" / deb.name).write_bytes(deb.read_bytes())
    # run() gives up long before the unit would.
    machine.run("apt-get", "install", "-y", "--reinstall", f"/root/{deb.name}")
    assert state(machine, CONNECTED)[0] == "active"
    machine.run("systemctl", "stop", UNIT)
    assert machine.run("ls", "/run/iotdm", check=False) == ""
    machine.run("systemctl", "start", UNIT)
    while "outage" not in (told := status(machine)):
        time.sleep(0.1)
    assert told["connected"] is False and "lastAcknowledgement" not in told

    # A boot that is cut off: the target fails in its time, and nothing else does.
    machine.run("systemctl", "stop", "boot-complete.target", CONNECTED)
    drop_in(machine, CONNECTED, "[Service]\nTimeoutStartSec=5s\n")
    machine.run("systemctl", "start", "boot-complete.target", check=False)
    assert state(machine, CONNECTED) == ("failed", "timeout")
    assert state(machine, "boot-complete.target")[0] == "inactive"
    machine.wait_journal("waiting: not connected: ", f"--unit={CONNECTED}")
    assert state(machine, UNIT)[0] == "active"
    failed = machine.run("systemctl", "list-units", "--failed", "--no-legend", "--plain").split()
    assert failed[0] == CONNECTED and "loaded units" not in failed and failed.count("failed") == 2, failed

    # And it waits, asleep, until the hub is there.
    drop_in(machine, CONNECTED, "")
    machine.run("systemctl", "start", "--no-block", "boot-complete.target")
    machine.wait_journal("waiting: ", f"--unit={CONNECTED}")
    pid = machine.show(CONNECTED, "MainPID")["MainPID"]
    assert machine.run("cat", f"/proc/{pid}/wchan").strip("0\n") in ("", "inotify_read", "wait_woken"), "it sleeps"
    hub.start()
    hub.wait_connected(DEVICE)
    machine.run("sh", "-c", f"until systemctl is-active --quiet {CONNECTED}; do sleep 0.1; done")
    assert state(machine, "boot-complete.target")[0] == "active"

    machine.run("apt-get", "purge", "-y", "iotdm-agentd")
    assert machine.run("sh", "-c", "ls -d /run/iotdm /etc/systemd/system/*/iotdm* 2>/dev/null", check=False) == ""
    assert state(machine, CONNECTED)[0] == "inactive"


def test_what_would_end_a_hang_is_what_systemd_says(gateway, hub):
    machine = gateway

    def if_it_hangs() -> dict:
        return json.loads(hub.done("invoke", DEVICE, "getRebootStatus", "--output", "json"))["payload"]["ifItHangs"]

    def limited(text: str) -> object:
        (machine.root / TARGET).mkdir(parents=True, exist_ok=True)
        (machine.root / TARGET / "test.conf").write_text(text)
        machine.run("systemctl", "daemon-reload")
        return if_it_hangs()["forcedAfterSeconds"]

    # Debian's own: 30 minutes. A container has no watchdog.
    assert if_it_hangs() == {"watchdog": None, "forcedAfterSeconds": 1800}
    checked = machine.run("iotdm-agentd", "--check-config")
    assert "if it hangs      no watchdog, forced reboot after 30m\n" in checked
    assert "warning          no hardware watchdog would end a reboot that hangs" in checked
    example = machine.run("cat", EXAMPLE)
    assert limited(example) == 600
    assert limited("[Unit]\nJobTimeoutSec=90s\n") == 90
    assert limited("[Unit]\nJobTimeoutSec=infinity\n") is None
    assert "warning          a unit that does not stop can hold up" in machine.run("iotdm-agentd", "--check-config")
    assert limited("[Unit]\nJobTimeoutAction=none\n") is None
    assert limited("") == 1800
    reply = hub.done("invoke", DEVICE, "rebootDevice", "--payload", '{"check":true}', "--output", "json")
    assert json.loads(reply)["payload"]["ifItHangs"]["forcedAfterSeconds"] == 1800
    assert json.loads(reply)["payload"]["message"] == "the device would reboot at once"


@pytest.fixture(scope="module")
def promtool(tmp_path_factory):
    deb = package.debian("prometheus")
    return package.unpack(deb, tmp_path_factory.mktemp("prometheus")) / "usr/bin/promtool"


def test_the_numbers_are_served_by_node_exporter(gateway, hub, promtool):
    machine = gateway
    file = machine.root / "run/iotdm/iotdm.prom"
    assert not in_machine(machine, "/run/iotdm/iotdm.prom"), "unless it is asked for"
    (machine.root / "etc/iotdm/agentd.toml.d/metrics.toml").write_text("metrics.textfile = true\n")
    hub.wait_connected(DEVICE)
    machine.run("sh", "-c", f"until grep -qs '^iotdm_connected 1' /run/iotdm/{file.name}; do sleep 0.1; done")
    assert machine.run("stat", "--format=%a", f"/run/iotdm/{file.name}").strip() == "644"

    # Debian's, as its administrator would have it.
    deb = package.debian("prometheus-node-exporter")
    (machine.root / "root" / deb.name).write_bytes(deb.read_bytes())
    machine.run("mkdir", "-p", "/etc/default")
    (machine.root / "etc/default/prometheus-node-exporter").write_text(
        'ARGS="--web.listen-address=127.0.0.1:0 --collector.disable-defaults --collector.textfile"\n')
    machine.run("apt-get", "install", "-y", "--no-install-recommends", "--option=Dpkg::Options::=--force-confold",
                f"/root/{deb.name}")
    machine.run("ln", "-s", f"/run/iotdm/{file.name}", f"{COLLECTED}/")
    listening = machine.wait_journal(r"Listening on", "--unit=prometheus-node-exporter")
    port = listening.rsplit(":", 1)[1].strip('"\n ')

    def scrape() -> str:
        return subprocess.run(["python3", "-c", FETCH, port], capture_output=True, text=True, check=True).stdout

    # Of one and the same file, which changes now and then.
    numbers = served = ""
    while numbers != machine.run("cat", f"/run/iotdm/{file.name}"):
        numbers = machine.run("cat", f"/run/iotdm/{file.name}")
        served = scrape()
    assert "node_textfile_scrape_error 0" in served
    assert len(samples(numbers)) > 20 and samples(numbers) <= samples(served)
    hub.ctl("invoke", DEVICE, "rebootDevice", "--payload", '{"delaySeconds":-1}')
    machine.run("sh", "-c", f"until grep -q 'code=\"invalidPayload\"}} 1' /run/iotdm/{file.name}; do sleep 0.5; done")
    assert 'iotdm_refusals_total{code="invalidPayload"} 1' in scrape()

    found = subprocess.run([promtool, "check", "metrics"], input=numbers, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    # Its own word that it would find something.
    bad = subprocess.run([promtool, "check", "metrics"], input="# TYPE x_total gauge\nx_total 1\n", capture_output=True, text=True)
    assert bad.returncode != 0

    # Without the daemon there are no numbers, which the collector tells.
    machine.run("systemctl", "stop", UNIT)
    gone = scrape()
    assert "node_textfile_scrape_error 1" in gone and "iotdm_" not in gone


FETCH = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=20).read().decode())
"""


def samples(text: str) -> set:
    """What is ours, whatever the order of the labels and the form of the number."""
    found = re.findall(r"^(iotdm_\w+)(?:\{(.*)\})? (\S+)$", text, re.M)
    return {(name, frozenset(labels.split(",")), float(value)) for name, labels, value in found}


def in_machine(machine, path: str) -> bool:
    return machine.run("sh", "-c", f"test -e {path} && echo there || true").strip() == "there"
