"""A daemon that was taken over stays in its sandbox, and the sandbox costs no machine the service."""

import re

import pytest
from judges.reports import assert_still_up, refusal
from machines import gateways, image, vm
from machines.gateways import DEVICE, NOTE, UNIT
from machines.vm import BOOT

RULE = "usr/share/polkit-1/rules.d/50-iotdm.rules"
BUS = "usr/share/dbus-1/system.d/iotdm.conf"
# What the attacker brings along to talk to the bus with; whoever has the process needs no program for it.
TOOLS = "/bin/sh /bin/ln /bin/mkdir /usr/bin/busctl /usr/bin/id"
# Leaves a service in the only directory that the daemon may write, and asks logind for a service manager of the user's own.
LINGER = """\
#!/bin/sh
set -e
units=$STATE_DIRECTORY/.config/systemd/user
mkdir -p $units/default.target.wants
printf '[Service]\\nExecStart=/bin/sh -c "grep NoNewPrivs /proc/self/status >/var/lib/iotdm/escaped"\\n' >$units/evil.service
ln -sf ../evil.service $units/default.target.wants/evil.service
busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager SetUserLinger ubb $(id -u) true false
"""
NAMESPACES = "/proc/sys/user/max_user_namespaces"
# What systemd says of a start without the user namespace that it was to have.
NO_USERS = "{}.service: Main process exited, code=exited, status=217/USER"
OF_THE_DAEMON = r"^(Type|ExecStart|ExecStopPost|Restart\w*|WatchdogSec|LoadCredential|SetCredential|WantedBy)=.*$"


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


def attack(machine) -> str:
    """What becomes of the attack from a unit with the daemon's sandbox, drop-ins included: systemd's word for it."""
    sandbox = re.sub(OF_THE_DAEMON, "", machine.run("systemctl", "cat", UNIT), flags=re.M)
    unit = f"{sandbox}\n[Service]\nType=oneshot\nExecStart=/bin/sh /etc/attack\nExecPaths={TOOLS}\n"
    (machine.root / "etc/systemd/system/attack.service").write_text(unit)
    (machine.root / "etc/attack").write_text(LINGER)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "attack", check=False)
    shown = machine.show("attack", "Result", "ExecMainStatus", "NoNewPrivileges", "ProtectSystem")
    assert (shown["NoNewPrivileges"], shown["ProtectSystem"]) == ("yes", "strict")
    # It got as far as asking logind.
    assert (machine.root / "var/lib/iotdm/.config/systemd/user/evil.service").exists()
    return shown["Result"]


def own_manager(machine) -> str:
    """Of the service manager of the daemon's own user."""
    uid = machine.run("id", "--user", "iotdm").strip()
    return machine.show(f"user@{uid}.service", "ActiveState")["ActiveState"]


def test_the_linger_attack_starts_nothing(machine):
    """Nor does it with any one of three barriers; once none is left, the same attack is out of the sandbox."""
    escaped = machine.root / "var/lib/iotdm/escaped"
    lingers = machine.root / "var/lib/systemd/linger/iotdm"
    machine.power_on()
    assert machine.run("getent", "passwd", "iotdm").split(":")[5] == "/nonexistent"

    def nothing_has_come_of_it() -> None:
        assert attack(machine) == "exit-code"
        assert not lingers.exists() and not escaped.exists()
        assert own_manager(machine) == "inactive"

    def take_away(barrier: str) -> bytes:
        barrier = machine.root / barrier
        content = barrier.read_bytes()
        barrier.unlink()
        return content

    def look_again() -> None:
        machine.run("systemctl", "reload", "dbus")
        machine.run("systemctl", "restart", "polkit")

    nothing_has_come_of_it()
    rule = take_away(RULE)
    look_again()
    nothing_has_come_of_it()
    (machine.root / RULE).write_bytes(rule)
    take_away(BUS)
    look_again()
    nothing_has_come_of_it()
    take_away(RULE)
    look_again()
    assert attack(machine) == "success"
    uid = machine.run("id", "--user", "iotdm").strip()
    # Returns once the manager has started all that it is to start.
    machine.run("systemctl", "start", f"user@{uid}")
    assert lingers.exists() and not escaped.exists(), "without a home, there is nothing for it to start"

    lingers.unlink()
    machine.run("systemctl", "stop", f"user@{uid}")
    machine.run("usermod", "--home", "/var/lib/iotdm", "iotdm")
    assert attack(machine) == "success"
    machine.run("systemctl", "start", f"user@{uid}")
    machine.run("sh", "-c", "until grep -q NoNewPrivs /var/lib/iotdm/escaped 2>/dev/null; do sleep 0.05; done")
    assert escaped.read_text().split() == ["NoNewPrivs:", "0"]


def test_an_upgrade_takes_the_home_of_an_older_installation(machine, hub, deb):
    """While the daemon runs, and a service manager that an attacker has left."""
    image.run_in(machine.root, "usermod", "--home", "/var/lib/iotdm", "iotdm")
    (machine.root / "root" / deb.name).write_bytes(deb.read_bytes())
    gateways.configure(machine.root, hub)
    machine.power_on()
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    # Run, but not to be started at boot: it runs afterwards as well.
    machine.run("systemctl", "disable", UNIT)
    machine.run("install", "-D", "/dev/null", "/var/lib/systemd/linger/iotdm")
    uid = machine.run("id", "--user", "iotdm").strip()
    machine.run("systemctl", "start", f"user@{uid}")

    machine.run("apt-get", "install", "-y", "--reinstall", f"/root/{deb.name}")
    assert machine.run("getent", "passwd", "iotdm").split(":")[5] == "/nonexistent"
    assert not (machine.root / "var/lib/systemd/linger/iotdm").exists()
    assert own_manager(machine) == "inactive"
    assert machine.show(UNIT, "ActiveState")["ActiveState"] == "active"
    hub.wait_connected(DEVICE)


def test_nothing_but_the_daemon_itself_can_be_run(gateway):
    """Seen from within the daemon's own mounts, where not even root is excepted."""
    daemon = gateway.show(UNIT, "MainPID")["MainPID"]
    inside = ["nsenter", f"--target={daemon}", "--mount", "--"]
    own = [f"{place}/true" for place in ["/dev/shm", "/tmp", "/var/tmp", "/var/lib/iotdm"]]
    for program in own:
        gateway.run("cp", "/bin/true", f"/proc/{daemon}/root{program}")
    for program in ["/bin/sh", "/bin/true", "/usr/bin/busctl", *own]:
        command = f"{' '.join(inside)} {program} 2>&1 </dev/null; echo $?"
        said = gateway.run("sh", "-c", command)
        assert "Permission denied" in said and said.split()[-1] == "126", (program, said)
    assert gateway.run(*inside, "/usr/bin/iotdm-agentd", "--version").startswith(UNIT)


@pytest.mark.parametrize(("setting", "private"), [
    ("", "yes"), ("user.max_user_namespaces = 100", "yes"), ("user.max_user_namespaces = 0", "no"),
    ("-user/max_user_namespaces=0", "no"),
])
def test_user_namespaces_are_used_where_they_will_be_given_out(machine, setting, private):
    """By what systemd-sysctl is going to set, which at boot comes after the generators."""
    (machine.root / "etc/sysctl.d").mkdir(exist_ok=True)
    (machine.root / "etc/sysctl.d/60-hardening.conf").write_text(f"# Hardened.\n{setting}\n")
    machine.power_on()
    for unit in [UNIT, NOTE]:
        assert machine.show(unit, "PrivateUsers")["PrivateUsers"] == private


def test_a_read_only_root_has_a_state_directory(machine, hub):
    """Where the daemon has never run: it does, and says what it cannot do."""
    gateways.configure(machine.root, hub)
    machine.power_on()
    # A file system of its own, as the root cannot be made read-only in a container.
    read_only = """
        cp -a /var/lib/iotdm /run/kept
        mount -t tmpfs tests /var/lib
        mv /run/kept /var/lib/iotdm
        mount -o remount,ro /var/lib"""
    machine.run("sh", "-ec", read_only)
    gateways.enable(machine)
    hub.wait_connected(DEVICE)
    assert refusal(hub) == (3, 500, "storageFailed")
    assert_still_up(machine)


@pytest.mark.qemu
@pytest.mark.timeout(3 * BOOT)
def test_without_user_namespaces_the_units_do_their_work(debian, deb, hub, tmp_path):
    """Switched off after the generators have run, by something that they could not foresee: during the boot, where the
    note of an orderly shutdown comes first, then before the daemon starts, and before the note is written."""
    with image.layer(debian, tmp_path / "layer") as root:
        image.install(root, deb)
        gateways.configure(root, hub)
        vm.prepare(root, [hub.mqtt_port])
        (root / "etc/systemd/system/harden.service").write_text(
            f"[Unit]\nBefore={NOTE}.service {UNIT}.service\n[Service]\nType=oneshot\n"
            f"ExecStart=/bin/sh -c 'echo 0 >{NAMESPACES}'\n[Install]\nWantedBy=multi-user.target\n")
        (root / f"etc/systemd/system/{UNIT}.service.d").mkdir()
        (root / f"etc/systemd/system/{UNIT}.service.d/order.conf").write_text(f"[Unit]\nAfter={NOTE}.service\n")
        vm.enable(root, UNIT, "harden.service")
        virtual = vm.VirtualMachine(root, tmp_path)
        try:
            virtual.power_on()
            hub.wait_connected(DEVICE, timeout=BOOT)
            virtual.run(f"until systemctl --quiet is-active {NOTE}; do sleep 0.2; done")
            assert NO_USERS.format(NOTE) in virtual.run("journalctl --boot --grep=217/USER"), "the test's premise"
            assert private_users(virtual, UNIT, NOTE) == ["no", "no"]

            virtual.run(f"echo 100 >{NAMESPACES}; systemctl daemon-reload; systemctl stop {UNIT}")
            assert private_users(virtual, UNIT) == ["yes"]
            virtual.run(f"echo 0 >{NAMESPACES}; systemctl start {UNIT}")
            hub.wait_connected(DEVICE, timeout=BOOT)
            assert NO_USERS.format(UNIT) in virtual.run("journalctl --boot --grep=217/USER"), "the test's premise"
            assert private_users(virtual, UNIT) == ["no"]

            virtual.run(f"echo 100 >{NAMESPACES}; systemctl daemon-reload; echo 0 >{NAMESPACES}; systemctl stop {NOTE}")
            assert private_users(virtual, NOTE) == ["yes"]
            noted, boot = virtual.run("cat /var/lib/iotdm/last-shutdown /proc/sys/kernel/random/boot_id").split("\n")[:2]
            assert noted == boot
        finally:
            virtual.cut_power()
            print((tmp_path / "console").read_text(errors="replace"))
            virtual.disk.unlink()


def private_users(virtual: vm.VirtualMachine, *units: str) -> list[str]:
    """Whether these units are given user namespaces, as the machine has them now."""
    return virtual.run(f"systemctl show --property=PrivateUsers --value {' '.join(units)}").split()
