"""What polkit lets the daemon's user do, and what others gain by the package: nothing."""

import pytest
from machines import gateways
from machines.gateways import UNIT

LOGIND = "org.freedesktop.login1"
NEEDED = {f"{LOGIND}.{action}" for action in ["reboot", "reboot-multiple-sessions", "set-wall-message",
                                              "inhibit-delay-shutdown"]}
# By polkit's definition whoever may delay a shutdown may also delay a sleep; no rule can take that away.
IMPLIED = {f"{LOGIND}.inhibit-delay-sleep"}
RULE = "usr/share/polkit-1/rules.d/50-iotdm.rules"
# Of logind's manager, what the bus takes to it from the daemon's user.
METHODS = {"CanReboot", "CancelScheduledShutdown", "Inhibit", "ListInhibitors", "Reboot", "RebootWithFlags", "SetWallMessage"}


@pytest.fixture(params=["installed", "installed_newer"], ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


def allowed(machine, pid: str) -> set[str]:
    """The actions, of all that polkit guards here, that this process may do without anybody's password."""
    each = "for action in $(pkaction); do pkcheck --process $0 --action-id $action >/dev/null 2>&1; echo $action $?; done"
    answers = dict(line.split() for line in machine.run("sh", "-c", each, pid).splitlines())
    assert len(answers) > 50, answers
    # 0: yes; 1: no; 2: not without a password, and nobody to ask.
    assert set(answers.values()) <= {"0", "1", "2"}, answers
    return {action for action, answer in answers.items() if answer == "0"}


def test_the_rule_gives_one_user_what_is_needed_and_nothing_else(gateway):
    daemon = gateway.show(UNIT, "MainPID")["MainPID"]
    gateway.run("systemd-run", "--quiet", "--unit=bystander", "--uid=nobody", "sleep", "infinity")
    bystander = gateway.show("bystander", "MainPID")["MainPID"]
    assert allowed(gateway, daemon) == NEEDED | IMPLIED
    with_rule = allowed(gateway, bystander)

    (gateway.root / RULE).unlink()
    gateway.run("systemctl", "restart", "polkit")
    assert allowed(gateway, bystander) == with_rule, "another user gains nothing"
    # What the rule takes away: without it the daemon's user is anybody.
    assert f"{LOGIND}.set-self-linger" in allowed(gateway, daemon)


def test_the_bus_takes_to_logind_what_the_daemon_needs_and_nothing_else(gateway):
    """Each method of logind's manager is called, without arguments: what gets there has no effect or is refused for that."""
    each = f"""
        for method in $(busctl introspect {LOGIND} /org/freedesktop/login1 {LOGIND}.Manager |
                awk '$2 == "method" {{ print substr($1, 2) }}'); do
            said=$(setpriv --reuid=$0 --regid=$1 --clear-groups dbus-send --system --print-reply \
                --dest={LOGIND} /org/freedesktop/login1 {LOGIND}.Manager.$method 2>&1)
            case $said in *'Rejected send message'*) ;; *) echo $method ;; esac
        done"""
    assert set(gateway.run("sh", "-c", each, "iotdm", "iotdm").split()) == METHODS
    others = gateway.run("sh", "-c", each, "nobody", "nogroup").split()
    assert {"ScheduleShutdown", "SetUserLinger", "PowerOff"} <= set(others), "nobody else is kept from asking"
