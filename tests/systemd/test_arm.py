"""The packages for arm64 and armhf on a Debian for arm64, as a Raspberry Pi runs it.

There is no such processor here: qemu-user-static translates each program, and
the host's kernel serves its calls.
"""

import pytest
from machines import gateways, image, package
from machines.container import REBOOT
from machines.gateways import DEVICE, UNIT

# Each instruction is translated, and a Debian system made first: an hour.
pytestmark = [pytest.mark.arm, pytest.mark.timeout(3600)]

# The translator runs inside of the unit, and needs more than the daemon does. It
# also refuses the kinds of fork by which systemd sets up credentials and users.
TRANSLATED = """\
[Service]
LoadCredential=
SetCredential=
PrivateUsers=no
MemoryMax=infinity
TasksMax=infinity
WatchdogSec=infinity
"""


@pytest.fixture
def arm(tmp_path):
    """A machine with the arm64 package installed, switched off."""
    with image.layer(image.debian_arm(), tmp_path / "machine") as root:
        image.install(root, package.built(UNIT, "arm64"))
        gateways.relax_for_container(root)
        (root / f"etc/systemd/system/{UNIT}.service.d/translated.conf").write_text(TRANSLATED)
        yield from gateways.switched_off(root)


def test_arm64_is_rebooted(arm, hub):
    gateways.configure(arm.root, hub)
    drop_in = arm.root / "etc/iotdm/agentd.toml.d/translated.toml"
    drop_in.write_text('hub.connection_string_file = "/etc/iotdm/connection-string"\n')
    arm.power_on()
    assert arm.run("uname", "--machine").strip() == "aarch64"
    arm.run("chown", "iotdm", "/etc/iotdm/connection-string")
    gateways.enable(arm)
    hub.wait_connected(DEVICE, timeout=120)

    done = hub.ctl("reboot", DEVICE, "--reason", "kernel update", "--interval", "1s", timeout=300)
    assert done.returncode == 0, done.stderr
    arm.wait_boot(2)
    assert arm.ends == [REBOOT]
    reported = hub.reported(DEVICE)
    assert reported["reboot"]["status"] == "completed"
    assert reported["boot"]["bootId"] == arm.boots[1].boot_id


def test_armhf_connects(arm, hub):
    place = arm.root / "opt/armhf"
    package.unpack(package.built(UNIT, "armhf"), place)
    program = f"/opt/armhf/usr/bin/{UNIT}"
    arm.power_on()
    assert arm.run(program, "--version").startswith(UNIT)

    (place / "ca.pem").write_bytes(hub.ca_file.read_bytes())
    (place / "secret").write_text(hub.create(DEVICE))
    (place / "agentd.toml").write_text(
        '[hub]\nconnection_string_file = "/opt/armhf/secret"\nca_file = "/opt/armhf/ca.pem"\n'
        '[reboot]\nbackend = "simulate"\nsimulate_duration = "1s"\n')
    settings = ["--config", "/opt/armhf/agentd.toml", "--state-dir", "/opt/armhf/state"]
    assert DEVICE in arm.run(program, *settings, "--check-config")
    arm.run("systemd-run", "--quiet", program, *settings)
    hub.wait_connected(DEVICE, timeout=120)
    done = hub.ctl("reboot", DEVICE, "--interval", "1s", timeout=300)
    assert done.returncode == 0, done.stderr
    assert hub.reported(DEVICE)["reboot"]["status"] == "completed"
