"""A gateway that comes up before its hub can be reached."""

from machines import gateways
from machines.gateways import DEVICE, UNIT

# RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE and the same of IPv6, as /proc/net/netlink spells them.
GROUPS = "00000550"


def listens_to_the_network(machine) -> bool:
    """Whether the daemon does: others that share the host's network have sockets of their own in the same list."""
    pid = machine.show(UNIT, "MainPID")["MainPID"]
    opened = machine.run("sh", "-c", f"readlink /proc/{pid}/fd/*").split()
    sockets = [line.split() for line in machine.run("cat", "/proc/net/netlink").splitlines()[1:]]
    return any(socket[3] == GROUPS and f"socket:[{socket[-1]}]" in opened for socket in sockets)


def test_the_hub_appears_later(machine, hub):
    gateways.configure(machine.root, hub)
    hub.stop()
    machine.power_on()
    gateways.enable(machine)  # ends when the unit is up
    machine.wait_journal("refused", f"--unit={UNIT}")
    state = machine.show(UNIT, "ActiveState", "NRestarts", "StatusText")
    assert (state["ActiveState"], state["NRestarts"]) == ("active", "0")
    shown = machine.run("systemctl", "status", "--no-pager", UNIT)
    assert state["StatusText"] and state["StatusText"] in shown
    assert "localhost" in state["StatusText"], state
    # The unit has to allow the daemon such a socket.
    assert listens_to_the_network(machine)

    hub.start()
    hub.wait_connected(DEVICE, timeout=120)
    assert "connected" in machine.show(UNIT, "StatusText")["StatusText"]
    assert not listens_to_the_network(machine)
