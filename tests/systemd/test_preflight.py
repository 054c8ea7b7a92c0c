"""Whether the machine would come back: the shipped checks inside the shipped unit, both ways, and the administrator's own.

What needs a kernel or a disk of the machine's own is in test_qemu.py.
"""

import json
import re
import time

import pytest
from machines import gateways
from machines.container import Container
from machines.gateways import DEVICE, UNIT

SHIPPED = ["boot-image", "dpkg", "fstab", "root-ro"]
OWN = "/etc/iotdm/preflight.d"
# The whole decision is answered within 20 s; the rest is for the operator's tool and the hub on a busy machine.
DECISION = 20 + 5


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


def test_a_machine_that_would_come_back_says_so_and_is_rebooted(gateway, hub):
    status, body = invoke(hub, check=True)
    assert (status, body["preflight"]) == (200, [{"name": name, "passed": True} for name in SHIPPED])
    answer = json.loads(gateway.run("cat", "/run/iotdm-preflight/result.json"))
    assert re.fullmatch("[0-9a-f]{32}", answer["invocationId"])
    said = gateway.run("journalctl", f"_SYSTEMD_INVOCATION_ID={answer['invocationId']}", "--output=cat")
    assert [line for line in said.splitlines() if line.endswith(": fine")] == [f"{name}: fine" for name in SHIPPED]
    done = hub.ctl("reboot", DEVICE, "--interval", "1s")
    assert done.returncode == 0, done.stderr


def test_each_shipped_check_objects_to_what_it_is_for(gateway, hub):
    gateway.run("sh", "-c", "echo 'LABEL=gone /data ext4 defaults 0 2' >>/etc/fstab")
    assert objections(hub) == {"fstab": "/etc/fstab: /data: unreachable on boot required source: LABEL=gone"}
    gateway.run("sed", "-i", "s/defaults/defaults,nofail/", "/etc/fstab")
    assert objections(hub) == {}
    gateway.run("sh", "-c", "echo '/nowhere /bound none bind 0 0' >>/etc/fstab")
    assert objections(hub) == {"fstab": "/etc/fstab: /nowhere, which is to be bound elsewhere, is not there"}
    gateway.run("sed", "-i", "$d", "/etc/fstab")

    package(gateway, "half", "exit 1")
    gateway.run("dpkg", "--unpack", "/root/half.deb")
    assert objections(hub) == {"dpkg": "half-installed: half: run dpkg --configure -a"}
    gateway.run("dpkg", "--purge", "half")
    assert objections(hub) == {}
    # None of it has failed, for which the machine would be degraded.
    assert gateway.run("systemctl", "is-failed", "iotdm-preflight.service", check=False) == "inactive\n"


def test_a_request_waits_until_a_package_is_installed(gateway, hub):
    package(gateway, "slow", "cat /root/go")
    gateway.run("mkfifo", "/root/go")
    gateway.run("systemd-run", "--unit=install", "dpkg", "--install", "/root/slow.deb")
    gateway.wait_journal("Setting up slow")
    assert list(objections(hub)) == ["dpkg"]
    assert objections(hub)["dpkg"].startswith("packages are being installed: ")

    status, body = invoke(hub, id="r-1", onPreflight="wait", waitSeconds=600)
    assert status == 200, body
    assert "the device reboots once it may: the machine may not come back" in body["message"]
    hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "waiting")
    boots = len(gateway.boots)
    gateway.run("sh", "-c", "echo >/root/go")
    # It looks again every minute.
    gateway.wait_boot(boots + 1, timeout=120)
    assert gateway.run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", "slow") == "ii "
    hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "completed")


def test_the_administrators_checks_object_by_name_and_can_be_passed_over_where_that_is_allowed(gateway, hub):
    check(gateway, "a-crashes", "kill -SEGV $$")
    check(gateway, "b-hangs", "cat /root/never")
    check(gateway, "c-spindle", "echo the spindle turns; exit 1")
    check(gateway, "d-evil", r"printf '\033]0;evil\007\n'; exit 1")
    gateway.run("mkfifo", "/root/never")
    gateway.run("ln", "-s", "/dev/null", f"{OWN}/fstab")
    gateway.run("sh", "-c", "echo 'LABEL=gone /data ext4 defaults 0 2' >>/etc/fstab")
    began = time.monotonic()
    assert objections(hub) == {
        "a-crashes": "it was ended by signal 11",
        "b-hangs": "timed out: it did not end within 5 s",
        "c-spindle": "the spindle turns",
        "d-evil": "\N{REPLACEMENT CHARACTER}]0;evil\N{REPLACEMENT CHARACTER}",
    }
    assert time.monotonic() - began < DECISION

    status, body = invoke(hub, onPreflight="override")
    assert (status, body["error"]["code"]) == (403, "forbidden")
    assert "reboot.allow_preflight_override" in body["error"]["message"]
    before = gateway.show(UNIT, "MainPID")["MainPID"]
    gateway.run("sh", "-c", "printf '[reboot]\\nallow_preflight_override = true\\n' >/etc/iotdm/agentd.toml.d/override.toml")
    # What is written there restarts the daemon.
    gateway.run("sh", "-c", f"while p=$(systemctl show --property=MainPID --value {UNIT}); [ $p = {before} -o $p = 0 ]; do sleep 0.2; done")
    hub.wait_connected(DEVICE)
    boots = len(gateway.boots)
    assert invoke(hub, id="over", onPreflight="override")[0] == 200
    gateway.wait_boot(boots + 1)


def test_a_unit_that_nobody_runs_objects_in_time(gateway, hub):
    gateway.run("systemctl", "stop", "iotdm-preflight.path")
    began = time.monotonic()
    assert list(objections(hub)) == ["preflight"]
    assert time.monotonic() - began < DECISION
    gateway.run("systemctl", "start", "iotdm-preflight.path")
    assert objections(hub) == {}


def test_a_daemon_in_wrong_hands_has_nothing_run_but_the_checks(gateway, hub):
    gateway.run("sh", "-c", "echo precious >/root/precious; chmod 600 /root/precious")
    before = gateway.run("cat", "/run/iotdm-preflight/result.json", check=False)
    for put in ["ln -s /root/precious preflight.json", "mkfifo preflight.json", "ln -s /dev/zero preflight.json",
                """printf '{"id":"x","timeoutSeconds":15,"run":"/tmp/evil"}' >preflight.json"""]:
        gateway.run("setpriv", "--reuid=iotdm", "--regid=iotdm", "--clear-groups", "sh", "-c",
                    f"cd /run/iotdm; rm -f preflight.json; {put}")
        gateway.run("systemctl", "start", "iotdm-preflight.service")
        assert gateway.show("iotdm-preflight", "Result")["Result"] == "success"
        assert gateway.run("cat", "/run/iotdm-preflight/result.json", check=False) == before, put
    said = gateway.run("journalctl", "--unit=iotdm-preflight", "--output=cat")
    # Its path unit may have started it as well.
    assert said.count("the preflight checks were not run: ") >= 4
    assert "precious" not in said.replace("/root/precious", "")


def invoke(hub, **payload) -> tuple[int, dict]:
    done = hub.ctl("-o", "json", "invoke", DEVICE, "rebootDevice", "--payload", json.dumps(payload))
    reply = json.loads(done.stdout)
    return reply["status"], reply["payload"]


def objections(hub) -> dict[str, str]:
    """What objects, by name; none if a dry run would be granted."""
    status, body = invoke(hub, check=True)
    if status == 200:
        return {}
    assert (status, body["error"]["code"]) == (423, "preflightFailed"), body
    return {check["name"]: check["reason"] for check in body["error"]["preflight"]}


def check(machine: Container, name: str, script: str) -> None:
    file = machine.root / OWN.lstrip("/") / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def package(machine: Container, name: str, postinst: str) -> None:
    """/root/NAME.deb, which does this when it is configured."""
    control = machine.root / "root" / name / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: none\n")
    (control / "postinst").write_text(f"#!/bin/sh\n{postinst}\n")
    (control / "postinst").chmod(0o755)
    machine.run("dpkg-deb", "--build", f"/root/{name}", f"/root/{name}.deb")
