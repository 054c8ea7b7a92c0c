"""A gateway that comes up before its hub can be reached."""

import gateway as gateways
from gateway import DEVICE, UNIT


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

    hub.start()
    hub.wait_connected(DEVICE, timeout=120)
    assert "connected" in machine.show(UNIT, "StatusText")["StatusText"]
