"""A block inhibitor for shutdown that a program in the machine really holds."""

from container import Container

UNIT = "nightly-backup"
WHO = "backup"
WHY = "nightly run"


def hold(machine: Container) -> None:
    """Returns once the lock is held."""
    machine.run(
        "systemd-run", f"--unit={UNIT}", "--service-type=notify", "--property=NotifyAccess=all",
        "systemd-inhibit", "--what=shutdown", "--mode=block", f"--who={WHO}", f"--why={WHY}",
        "sh", "-c", "systemd-notify --ready && exec sleep infinity")


def release(machine: Container) -> None:
    machine.run("systemctl", "stop", UNIT)
