"""What polkit lets the daemon's user do, and what others gain by the package: nothing."""

from machines.gateways import UNIT

NEEDED = {f"org.freedesktop.login1.{action}" for action in ["reboot", "reboot-multiple-sessions", "set-wall-message"]}
RULE = "usr/share/polkit-1/rules.d/50-iotdm.rules"


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
    with_rule = allowed(gateway, daemon), allowed(gateway, bystander)

    (gateway.root / RULE).unlink()
    gateway.run("systemctl", "restart", "polkit")
    without_rule = allowed(gateway, daemon), allowed(gateway, bystander)

    assert with_rule[0] - without_rule[0] == NEEDED
    assert with_rule[1] == without_rule[1], "another user gains nothing"
    assert without_rule[0] == without_rule[1], "without the rule the daemon's user is anybody"
