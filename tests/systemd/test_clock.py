"""A machine whose clock is wrong until a time server answers, as a Raspberry Pi's is."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from judges.reports import instant
from machines import gateways, image, ntp, vm
from machines.gateways import DEVICE, UNIT
from machines.vm import BOOT
from pyharness.hub import Hub

# Several boots, of which some may take as long as BOOT seconds.
pytestmark = [pytest.mark.qemu, pytest.mark.timeout(4 * BOOT)]


@pytest.fixture
def refused():
    """Whether the hub has refused a device."""
    return threading.Event()


@pytest.fixture
def hub(tmp_path, refused):
    def listen(line: str) -> None:
        if "refused a CONNECT" in line:
            refused.set()

    with Hub(tmp_path / "hub", listener=listen) as hub:
        yield hub
        # pytest shows this for a test that failed.
        print(hub.log())


@pytest.fixture
def time_server():
    server = ntp.TimeServer()
    yield server
    server.close()


@pytest.fixture
def virtual(debian, deb, hub, tmp_path):
    with image.layer(debian, tmp_path / "layer") as root:
        image.install(root, deb)
        gateways.configure(root, hub)
        vm.prepare(root, [hub.mqtt_port])
        vm.enable(root, UNIT, "systemd-timesyncd")
        # So that a clock that is a day behind costs no connection; one that is years behind does.
        (root / "etc/iotdm/agentd.toml.d/ttl.toml").write_text('[hub]\nsas_ttl = "72h"\n')
        settings = root / "etc/systemd/timesyncd.conf.d/tests.conf"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"[Time]\nNTP={vm.HOST}\nFallbackNTP=\nConnectionRetrySec=1\n")
        machine = vm.VirtualMachine(root, tmp_path)
        yield machine
        machine.cut_power()
        # pytest shows this for a test that failed.
        print((tmp_path / "console").read_text(errors="replace"))
    machine.disk.unlink()


def test_a_clock_that_is_years_behind(virtual, hub, refused, time_server):
    began = datetime.now(UTC)
    virtual.power_on(clock="2021-02-03T04:05:06")
    # The device's token is one of years ago, which no hub takes.
    assert refused.wait(BOOT), "the hub heard nothing"
    assert "boot" not in hub.reported(DEVICE)

    time_server.answers.set()
    hub.wait_connected(DEVICE, timeout=BOOT)
    first = hub.wait_reported(DEVICE, lambda reported: _synchronized(reported), timeout=BOOT)
    assert began < instant(first["boot"]["bootTime"]) < datetime.now(UTC)
    assert first["boot"]["cause"] == "unknown"

    # Without a server, the next boot has only an idea of the time.
    time_server.answers.clear()
    asked = datetime.now(UTC)
    done = hub.ctl("reboot", DEVICE, "--interval", "1s", timeout=BOOT)
    assert done.returncode == 0, done.stderr
    second = hub.reported(DEVICE)
    assert second["reboot"]["status"] == "completed"
    assert second["boot"]["clock"] == "unsynchronized"
    assert "downSeconds" not in second["reboot"]

    # With a server, the report is put right.
    time_server.answers.set()
    third = hub.wait_reported(DEVICE, lambda reported: _synchronized(reported), timeout=BOOT)
    assert third["boot"]["bootId"] == second["boot"]["bootId"]
    assert third["rebootTime"] == third["boot"]["bootTime"]
    assert asked < instant(third["rebootTime"]) < datetime.now(UTC)
    reboot = third["reboot"]
    assert reboot["status"] == "completed"
    # All by the machine's own clock: between two clocks, less than seconds say nothing.
    times = [first["boot"]["bootTime"], reboot["requestedAt"], reboot["startedAt"], third["rebootTime"], reboot["completedAt"]]
    assert sorted(times) == times
    assert 0 < reboot["downSeconds"] < 240


def test_a_wish_that_expires_when_the_clock_is_set(virtual, hub, time_server):
    """Scheduled by a clock that is a day behind; when that is set, the wish's time is long over, and the next one is taken up."""
    behind = timedelta(days=1)
    virtual.power_on(clock=f"{datetime.now(UTC) - behind:%Y-%m-%dT%H:%M:%S}")
    hub.wait_connected(DEVICE, timeout=BOOT)

    def wish(identity: str, not_before: datetime, deadline: datetime) -> None:
        times = {"notBefore": f"{not_before:%Y-%m-%dT%H:%M:%SZ}", "deadline": f"{deadline:%Y-%m-%dT%H:%M:%SZ}"}
        hub.done("twin", "update", DEVICE, "--desired", json.dumps({"reboot": {"id": identity, **times}}))

    def is_now(identity: str, status: str):
        return lambda reported: [reported.get("reboot", {}).get(key) for key in ("id", "status")] == [identity, status]

    here = datetime.now(UTC) - behind
    wish("early", here + timedelta(hours=2), here + timedelta(hours=3))
    scheduled = hub.wait_reported(DEVICE, is_now("early", "scheduled"), timeout=BOOT)
    assert scheduled["boot"]["clock"] == "unsynchronized"

    time_server.answers.set()
    failed = hub.wait_reported(DEVICE, is_now("early", "failed"), timeout=BOOT)
    assert failed["reboot"]["error"]["code"] == "expired"
    assert _synchronized(failed)

    # It is ready for the next one, by either way.
    now = datetime.now(UTC)
    wish("next", now + timedelta(hours=2), now + timedelta(hours=3))
    hub.wait_reported(DEVICE, is_now("next", "scheduled"), timeout=BOOT)
    hub.done("cancel", DEVICE)
    hub.wait_reported(DEVICE, is_now("next", "cancelled"), timeout=BOOT)
    hub.done("invoke", DEVICE, "rebootDevice", "--payload", '{"id": "called", "delaySeconds": 3600}')
    hub.wait_reported(DEVICE, is_now("called", "scheduled"), timeout=BOOT)
    assert len(virtual.lives) == 1


def _synchronized(reported: dict) -> bool:
    return reported.get("boot", {}).get("clock") == "synchronized"
