"""A machine whose clock is wrong until a time server answers, as a Raspberry Pi's is."""

import threading
from datetime import datetime, timezone

import gateway as gateways
import image
import ntp
import pytest
import vm
from gateway import DEVICE, UNIT
from hub import Hub
from vm import BOOT


pytestmark = pytest.mark.qemu


@pytest.fixture
def refused():
    """Whether the hub has refused a device."""
    return threading.Event()


@pytest.fixture
def hub(tmp_path, refused):
    hub = Hub(tmp_path / "hub", listener=lambda line: "refused a CONNECT" in line and refused.set())
    hub.start()
    yield hub
    hub.stop()


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
        vm.prepare(root, [hub.ports["mqtt"]])
        vm.enable(root, UNIT, "systemd-timesyncd")
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
    began = datetime.now(timezone.utc)
    virtual.power_on(clock="2021-02-03T04:05:06")
    # A token of years ago, which no hub takes.
    assert refused.wait(BOOT), "the hub heard nothing"
    assert "boot" not in hub.reported(DEVICE)

    time_server.answers.set()
    hub.wait_connected(DEVICE, timeout=BOOT)
    first = hub.wait_reported(DEVICE, lambda reported: _synchronized(reported), timeout=BOOT)
    assert began < _instant(first["boot"]["bootTime"]) < datetime.now(timezone.utc)
    assert first["boot"]["cause"] == "unknown"

    # Without a server, the next boot has only an idea of the time.
    time_server.answers.clear()
    asked = datetime.now(timezone.utc)
    done = hub.ctl("reboot", DEVICE, "--interval", "1s", timeout=BOOT)
    assert done.returncode == 0, done.stderr
    second = hub.reported(DEVICE)
    assert second["reboot"]["status"] == "completed"
    assert second["boot"]["clock"] == "unsynchronized"
    assert "downSeconds" not in second["reboot"]

    # Then the report is put right.
    time_server.answers.set()
    third = hub.wait_reported(DEVICE, lambda reported: _synchronized(reported), timeout=BOOT)
    assert third["boot"]["bootId"] == second["boot"]["bootId"]
    assert third["rebootTime"] == third["boot"]["bootTime"]
    assert asked < _instant(third["rebootTime"]) < datetime.now(timezone.utc)
    reboot = third["reboot"]
    assert reboot["status"] == "completed"
    # By the machine's own clock; what lies less than seconds apart says nothing across two.
    times = [first["boot"]["bootTime"], reboot["requestedAt"], reboot["startedAt"], third["rebootTime"], reboot["completedAt"]]
    assert sorted(times) == times
    assert 0 < reboot["downSeconds"] < 240


def _synchronized(reported: dict) -> bool:
    return reported.get("boot", {}).get("clock") == "synchronized"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
