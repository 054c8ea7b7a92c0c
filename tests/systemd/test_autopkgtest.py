"""debian/tests/reboot, run in the way of autopkgtest: with marks that outlive a reboot."""

import shutil
from pathlib import Path

import pytest
from machines import gateways, image, package
from machines.container import REBOOT

SCRIPT = Path(__file__).parents[2] / "debian/tests/reboot"


@pytest.fixture
def testbed(bare, tmp_path):
    """A machine with all packages installed, switched off."""
    with image.layer(bare, tmp_path / "testbed") as root:
        for name in package.NAMES:
            image.install(root, package.built(name, package.architecture()))
        gateways.relax_for_container(root)
        shutil.copy(SCRIPT, root / "root/reboot")
        yield from gateways.switched_off(root)


def test_the_package_reboots_the_testbed(testbed):
    testbed.power_on()
    # autopkgtest puts this program there; a mark is what it hands to the next run.
    prepare = testbed.root / "usr/local/bin/prepare"
    prepare.write_text("#!/bin/sh\necho \"$1\" >/root/mark\n")
    prepare.chmod(0o755)
    testbed.run("ln", "-s", "/usr/local/bin/prepare", "/tmp/autopkgtest-reboot-prepare")
    # Not waited for: the machine ends the script when it goes down.
    testbed.run("systemd-run", "--quiet", "--unit=first-run", "/root/reboot")
    testbed.wait_boot(2, timeout=120)
    assert testbed.ends == [REBOOT]
    mark = (testbed.root / "root/mark").read_text().strip()
    assert mark == "rebooted"
    assert "gw1: completed" in testbed.run("sh", "-c", f"AUTOPKGTEST_REBOOT_MARK={mark} /root/reboot 2>&1")
