"""A shutdown that takes longer than `down_timeout` is no failure; `campaign --slow-shutdown` tries it with the default."""

import pytest
import slow_shutdown
from machines import gateways

# A unit that stops slowly before the daemon does, or before nearly everything.
ORDERS = {"installed": "iotdm-agentd.service", "installed_newer": "multi-user.target"}


@pytest.fixture(params=ORDERS, ids=["this-debian", "newer-debian"])
def machine(request, tmp_path):
    yield from gateways.of_root(request.getfixturevalue(request.param), tmp_path)


def test_it_takes_longer_than_the_machine_may(machine, hub, request):
    gateways.configure(machine.root, hub)
    (machine.root / "etc/iotdm/agentd.toml.d/short.toml").write_text('[reboot]\ndown_timeout = "30s"\n')
    print(slow_shutdown.carry_out(machine, hub, 45, ORDERS[request.node.callspec.params["machine"]]))
