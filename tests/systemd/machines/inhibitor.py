"""A block inhibitor for shutdown that a program in the machine really holds."""

from machines.container import Container

UNIT = "nightly-backup"
WHO = "backup"
WHY = "nightly run"


def hold(machine: Container, mode: str = "block") -> None:
    """Returns once the lock is held."""
    lock = f"--what=shutdown --mode={mode} --who='{WHO}' --why='{WHY}'"
    # Newer versions of systemd-inhibit keep the socket from what they run.
    ready = "NOTIFY_SOCKET=$NOTIFY_SOCKET systemd-notify --ready && exec sleep infinity"
    machine.run(
        "systemd-run", f"--unit={UNIT}", "--service-type=notify", "--property=NotifyAccess=all",
        "sh", "-c", f'exec systemd-inhibit {lock} sh -c "{ready}"')


def release(machine: Container) -> None:
    machine.run("systemctl", "stop", UNIT)
