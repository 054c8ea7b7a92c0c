"""A gateway: a machine with the package installed, configured and enabled."""

from pathlib import Path

from pyharness.hub import Hub

from machines import image
from machines.container import Container

DEVICE = "gw1"
UNIT = "iotdm-agentd"
# The unit that notes that the machine was shut down.
NOTE = "iotdm-agentd-shutdown"

# With its own view of /proc a unit in a container sees the host's boot id,
# which never changes. The test with a whole machine runs the unit as shipped.
CONTAINER_DROP_IN = """\
[Service]
ProtectProc=default
ProtectKernelTunables=no
ProtectControlGroups=no
"""


def configure(root: Path, hub: Hub) -> None:
    """What an administrator does, and the drop-in for containers apart."""
    (root / "etc/iotdm/ca.pem").write_bytes(hub.ca_file.read_bytes())
    (root / "etc/iotdm/agentd.toml.d/hub.toml").write_text('[hub]\nca_file = "/etc/iotdm/ca.pem"\n')
    secret = root / "etc/iotdm/connection-string"
    secret.touch(mode=0o600)
    secret.write_text(hub.create(DEVICE))


def relax_for_container(root: Path) -> None:
    for unit in [UNIT, NOTE]:
        drop_in = root / f"etc/systemd/system/{unit}.service.d/container.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(CONTAINER_DROP_IN)


def enable(machine: Container) -> None:
    machine.run("systemctl", "enable", "--now", UNIT)


def of_root(root: Path, place: Path):
    """A machine whose root begins as this one, switched off; `place` is a directory of its own."""
    with image.layer(root, place / "machine") as changed:
        yield from switched_off(changed)


def switched_off(root: Path):
    """A machine of this root, which is gone once the test that uses it is over."""
    machine = Container(root)
    try:
        yield machine
    finally:
        machine.dispose()
        # pytest shows this for a test that failed.
        print(machine.console())
        print(machine.journal("--output=short-precise", "--priority=info"))
