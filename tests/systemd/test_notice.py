"""A reboot for later, as the people on the machine are told of it; and that what tells them can never reboot it."""

import contextlib
import re
import subprocess
import time
from datetime import UTC, datetime

import pytest
from judges.reports import instant
from machines import gateways, inhibitor
from machines.container import Container
from machines.gateways import DEVICE, UNIT

LOGIND = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"]
NOTHING = (0, 2**64 - 1)
SCHEDULE = "run/systemd/shutdown/scheduled"
MOTD = "/run/motd.d/50-iotdm"
REASON = "kernel update"
# How long after its time a reboot that must not come is waited for.
PATIENCE = 5


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


# The newer one's login(1) does not start in a container that is entered from outside.
@pytest.mark.parametrize("machine", ["installed"], ids=["this-debian"], indirect=True)
def test_people_are_told_and_it_is_taken_back(gateway, hub):
    with terminal(gateway) as told:
        schedule(hub, "2h")
        wait(lambda: REASON in told(), told)
        assert re.search(r"Broadcast message from root@gw1", told())
        assert re.search(rf"iotdm-agentd reboots this machine at .*: {REASON} \(request ", told())
        wait(lambda: REASON in locks(gateway), lambda: locks(gateway))
        with terminal(gateway) as later:
            wait(lambda: REASON in later(), later)
        # Not by way of logind, which would carry it out after a restart.
        assert scheduled(gateway) in NOTHING
        for name in [SCHEDULE, "run/nologin"]:
            assert gateway.run("sh", "-c", f"test ! -e /{name} && echo gone") == "gone\n"
        # Nothing is told again by a daemon that starts anew.
        before = told().count(REASON)
        gateway.run("systemctl", "restart", UNIT)
        hub.wait_connected(DEVICE)
        wait(lambda: REASON in motd(gateway), lambda: motd(gateway))
        assert told().count(REASON) == before

        assert hub.ctl("cancel", DEVICE).returncode == 0
        wait(lambda: "has been called off" in told(), told)
        assert motd(gateway) == ""
        wait(lambda: REASON not in locks(gateway), lambda: locks(gateway))
    assert gateway.show("iotdm-notice", "Result", "NRestarts") == {"Result": "success", "NRestarts": "0"}


@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_it_ends_with_the_daemon(gateway, hub, end):
    schedule(hub, "2h")
    wait(lambda: REASON in motd(gateway), lambda: motd(gateway))
    match end:
        case "stop":
            gateway.run("systemctl", "stop", UNIT)
        case "kill":
            gateway.run("systemctl", "kill", "--signal=KILL", UNIT)
            gateway.run("systemctl", "stop", UNIT)
        case "remove":
            gateway.run("apt-get", "remove", "-y", UNIT)
    wait(lambda: motd(gateway) == "", lambda: motd(gateway))
    assert REASON not in locks(gateway)


@pytest.mark.parametrize("state", ["running", "stopped", "removed"])
@pytest.mark.parametrize("restarted", ["systemd-logind", "dbus"])
def test_no_restart_of_anything_makes_a_reboot_of_a_notice(gateway, hub, restarted, state):
    inhibitor.hold(gateway)
    # A logind of systemd 257 does not come back to a bus that was restarted, and then
    # each who asks for it waits 25 s.
    away = restarted == "dbus" and systemd(gateway) >= 257
    # The removal of a package takes its time, too.
    at = schedule(hub, "90s" if away or state == "removed" else "45s")
    wait(lambda: REASON in motd(gateway), lambda: motd(gateway))
    gateway.run("systemctl", "restart", restarted)
    if state == "stopped":
        gateway.run("systemctl", "stop", UNIT)
    if state == "removed":
        gateway.run("apt-get", "remove", "-y", UNIT)
    assert datetime.now(UTC) < at, "too slow to see anything"
    if state == "running":
        left = at.timestamp() - time.time()
        reported = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["status"] == "failed", timeout=left + 60)
        assert reported["reboot"]["error"]["code"] == ("logindRefused" if away else "blockedByInhibitor")
    # That nothing happens is no event to wait for.
    while (left := at.timestamp() + PATIENCE - time.time()) > 0:
        time.sleep(left)
    assert gateway.ends == []
    assert gateway.run("sh", "-c", f"test ! -e /{SCHEDULE} && echo gone") == "gone\n"


@pytest.mark.parametrize("by", ["start", "upgrade"])
@pytest.mark.parametrize("logind", ["running", "restarted"])
def test_a_notice_of_an_earlier_version_is_taken_back(gateway, deb, by, logind):
    """As earlier versions put it into logind's schedule, where a restart of logind has made a real one of it."""
    package = gateway.root / "root" / deb.name
    package.write_bytes(deb.read_bytes())
    gateway.run("systemctl", "disable", "--now", UNIT)
    soon = round((time.time() + 120) * 1_000_000)
    gateway.run("busctl", "call", *LOGIND, "SetWallMessage", "sb", f"scheduled by iotdm-agentd: {REASON}", "true")
    gateway.run("busctl", "call", *LOGIND, "ScheduleShutdown", "st", "dry-reboot", str(soon))
    if logind == "restarted":
        # systemd 257 writes the words otherwise than it reads them.
        gateway.run("systemctl", "restart", "systemd-logind")
    wait(lambda: scheduled(gateway) not in NOTHING, lambda: scheduled(gateway))
    nologin = ["sh", "-c", "test -e /run/nologin && echo closed || echo open"]
    wait(lambda: gateway.run(*nologin) == "closed\n", lambda: gateway.run("ls", "/run"))
    if by == "start":
        gateway.run("systemctl", "start", UNIT)
    else:
        gateway.run("apt-get", "install", "-y", "--reinstall", f"/root/{deb.name}")
    wait(lambda: scheduled(gateway) in NOTHING, lambda: scheduled(gateway))
    wait(lambda: gateway.run(*nologin) == "open\n", lambda: gateway.run("ls", "/run"))
    assert gateway.run("sh", "-c", f"test ! -e /{SCHEDULE} && echo gone") == "gone\n"


def test_an_administrators_own_shutdown_stands(gateway, hub):
    gateway.run("shutdown", "-r", "+600")
    own = scheduled(gateway)
    assert own not in NOTHING
    schedule(hub, "2h")
    gateway.run("systemctl", "restart", UNIT)
    hub.wait_connected(DEVICE)
    assert hub.ctl("cancel", DEVICE).returncode == 0
    assert scheduled(gateway) == own


# The newer one's login(1) does not start in a container that is entered from outside.
@pytest.mark.parametrize("machine", ["installed"], ids=["this-debian"], indirect=True)
def test_a_daemon_in_wrong_hands_has_nothing_shown_but_clean_words(gateway, hub):
    """It may write what it likes into its runtime directory; root shows an id, a time and one line, or nothing."""
    gateway.run("sh", "-c", "echo precious >/root/precious; chmod 600 /root/precious")
    with terminal(gateway) as told:
        for put in ["ln -s /root/precious notice.json", "mkfifo notice.json", "ln -s /dev/zero notice.json",
                    r"""printf '{"id":"x","at":"2030-01-01T00:00:00Z","reason":"\\u001b]0;evil\\u0007"}' >notice.json"""]:
            as_daemon(gateway, f"rm -f notice.json; {put}")
            began = gateway.run("journalctl", "--show-cursor", "--lines=0", "--quiet").strip().removeprefix("-- cursor: ")
            gateway.run("systemctl", "start", "iotdm-notice.service")
            said = gateway.run("journalctl", "--unit=iotdm-notice", f"--after-cursor={began}", "--output=cat")
            assert "is not shown" in said, put
            assert motd(gateway) == "", put
        as_daemon(gateway, """rm -f notice.json; printf '{"id":"x","at":"2030-01-01T00:00:00Z","reason":"evil"}' >notice.json""")
        wait(lambda: "evil" in told(), told)
        assert "precious" not in told() and "\x1b]0;" not in told()
    assert gateway.show("iotdm-notice", "Result")["Result"] == "success"
    # Nor could root's side ask anybody for a shutdown.
    properties = gateway.show("iotdm-notice", "CapabilityBoundingSet", "InaccessiblePaths")
    assert properties["CapabilityBoundingSet"] == "cap_dac_override"
    assert "/run/dbus" in properties["InaccessiblePaths"]


def as_daemon(machine: Container, script: str) -> None:
    machine.run("setpriv", "--reuid=iotdm", "--regid=iotdm", "--clear-groups", "sh", "-c", f"cd /run/iotdm; {script}")


def systemd(machine: Container) -> int:
    """Its version."""
    return int(machine.run("systemctl", "--version").split()[1])


def schedule(hub, delay: str) -> datetime:
    """Asks for a reboot later; when it is for."""
    done = hub.ctl("reboot", DEVICE, "--delay", delay, "--reason", REASON, "--no-wait")
    assert done.returncode == 0, done.stderr
    reported = hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "scheduled")
    return instant(reported["reboot"]["notBefore"])


@contextlib.contextmanager
def terminal(machine: Container):
    """Somebody who has logged in; what their terminal shows."""
    enter = ["nsenter", "--target", str(machine.boots[-1].leader), "--all", "--wd=/"]
    environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb", "LC_ALL=C.UTF-8"]
    screen = machine.root.parent / f"screen-{time.monotonic_ns()}"
    with open(screen, "wb") as output:
        person = subprocess.Popen(
            [*enter, *environment, "script", "--quiet", "--flush", "--command", "login -f root", "/dev/null"],
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        try:

            def shown() -> str:
                return " ".join(screen.read_text(errors="replace").split())

            def answers() -> bool:
                # Again and again: login throws away what was typed before it.
                person.stdin.write(b"echo 'I am' in\n")
                person.stdin.flush()
                return "I am in" in shown()

            wait(answers, shown)
            yield shown
        finally:
            person.kill()
            person.wait()


def motd(machine: Container) -> str:
    return machine.run("sh", "-c", f"cat {MOTD} 2>/dev/null || true")


def locks(machine: Container) -> str:
    return machine.run("systemd-inhibit", "--list", "--no-pager", "--no-legend")


def scheduled(machine: Container) -> int:
    """For when logind itself has a shutdown in its schedule, in µs since 1970."""
    said = machine.run("busctl", "get-property", *LOGIND, "ScheduledShutdown")
    return int(re.match(r'\(st\) "[a-z-]*" (\d+)', said)[1])


def wait(condition, shown, timeout: float = 60) -> None:
    """Of a terminal, a file and logind's schedule nobody tells when they change, so this asks again and again."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout} s: {shown()}"
        time.sleep(0.2)
