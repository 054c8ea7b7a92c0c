"""What becomes of a gateway's reboots, settings and files when the package comes, changes and goes."""

import json
import re

from machines import gateways, package
from machines.gateways import DEVICE, NOTE, UNIT
from pyharness.programs import ROOT

# Where an administrator reads which files to make.
PAGES = [*ROOT.glob("packaging/manual/*.txt"), *ROOT.glob("docs/*.md"), ROOT / "config/agentd.toml"]

# Files that any installation of any package leaves or replaces.
OF_THE_SYSTEM = ["/var/cache/", "/var/lib/apt/", "/var/lib/dpkg/", "/var/log/", "/var/tmp/", "/root/"]


def apt(machine, *arguments: str) -> None:
    machine.run("apt-get", "-y", *arguments)


def give(machine, deb) -> str:
    """Where the package is in the machine."""
    (machine.root / "root" / deb.name).write_bytes(deb.read_bytes())
    return f"/root/{deb.name}"


def files(machine) -> set[str]:
    """All that is on the machine's disk, with its owner and mode, except for what changes with every package."""
    listed = machine.run("find", "/", "-xdev", "-printf", "%p %u %#m\n").splitlines()
    return {line for line in listed if not line.startswith(tuple(OF_THE_SYSTEM))}


def test_nothing_is_left_after_a_purge(bare_machine, deb, hub):
    machine = bare_machine
    path = give(machine, deb)
    machine.power_on()
    before = files(machine)

    others = [give(machine, package.built(name, package.architecture())) for name in ["iotdm-ctl", "iotdm-emulator"]]
    apt(machine, "install", path, *others)
    gateways.relax_for_container(machine.root)
    gateways.configure(machine.root, hub)
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    state = machine.run("ls", "/var/lib/iotdm").split()
    assert state, "the daemon keeps its record there"

    # Removed, not purged: settings, secret and record stay for whoever installs the package again.
    apt(machine, "remove", "iotdm-agentd")
    assert set(state) <= set(machine.run("ls", "/var/lib/iotdm").split())
    apt(machine, "install", path)
    hub.wait_connected(DEVICE)
    assert machine.show(UNIT, "UnitFileState")["UnitFileState"] == "enabled"

    # Purged: what the package or the daemon made is gone, and its whole directory of settings with every secret
    # that the manual has the administrator put there; not what else the administrator wrote.
    (machine.root / "etc/iotdm/agentd.toml.d/proxy.toml").write_text('hub.proxy = "http://me:secret@proxy.example:3128"\n')
    documented = {path for page in PAGES for path in re.findall(r"/etc/iotdm/([\w./-]*\w)", page.read_text())}
    assert {"connection-string.cred", "device.key", "symmetric-key", "preflight.d/backup"} <= documented
    for name in documented:
        path = machine.root / "etc/iotdm" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("secret")
    handed_over = machine.root / f"etc/systemd/system/{UNIT}.service.d/symmetric-key.conf"
    handed_over.write_text("[Service]\nLoadCredential=symmetric-key:/etc/iotdm/symmetric-key\n")
    apt(machine, "purge", "iotdm-agentd", "iotdm-ctl", "iotdm-emulator")
    own = {*(f"/etc/systemd/system/{unit}.service.d{file}" for unit in [UNIT, NOTE] for file in ["", "/container.conf"])}
    after = files(machine)
    assert {line.split()[0] for line in after - before} == own
    assert before - after == set()


def test_upgrade_and_downgrade_while_a_reboot_is_scheduled(gateway, hub, deb, tmp_path):
    settings = gateway.root / "etc/iotdm/agentd.toml"
    settings.write_text(settings.read_text() + "\n# The administrator was here.\n")
    ours = settings.read_text()
    # What is written there restarts the daemon.
    gateway.wait_journal("Finished iotdm-agentd-secret.service")
    hub.wait_connected(DEVICE)

    def ask() -> dict:
        asked = hub.ctl("reboot", DEVICE, "--id", "kernel-42", "--delay", "1h", "--no-wait", "--connect-timeout", "60",
                        "--output", "json")
        assert asked.returncode == 0, asked.stderr
        return json.loads(asked.stdout)["reply"]

    def install(path: str, *options: str) -> None:
        pid = gateway.show(UNIT, "MainPID")
        apt(gateway, "install", *options, "-o", "Dpkg::Options::=--force-confold", path)
        assert gateway.show(UNIT, "MainPID") != pid, "what runs is restarted"
        assert gateway.show(UNIT, "ActiveState")["ActiveState"] == "active"

    answer = ask()
    assert answer["payload"]["status"] == "scheduled"
    version = "dpkg-query --show --showformat='${Version}' iotdm-agentd"
    old = gateway.run("sh", "-c", version)

    install(give(gateway, package.next_version(deb, tmp_path)))
    assert gateway.run("sh", "-c", version) == f"{old}+next"
    assert ask() == answer, "the same id gets the same answer"
    assert settings.read_text() == ours

    # apt does not go back unless told to; then nothing is lost, either.
    back = give(gateway, deb)
    gateway.run("apt-get", "-y", "install", back, check=False)
    assert gateway.run("sh", "-c", version) == f"{old}+next"
    install(back, "--allow-downgrades")
    assert gateway.run("sh", "-c", version) == old
    assert ask() == answer
    assert settings.read_text() == ours

    reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "scheduled")
    assert reported["reboot"]["id"] == "kernel-42"
    assert len(gateway.boots) == 1
