"""The machines and the hub that the tests ask for."""

import shutil
import subprocess
from pathlib import Path

import pytest
from machines import gateways, image, package
from pyharness.hub import Hub


@pytest.fixture(scope="session")
def deb() -> Path:
    return package.daemon()


@pytest.fixture(scope="session")
def debian() -> Path:
    return image.debian()


@pytest.fixture(scope="session")
def bare(debian, tmp_path_factory):
    """A root without the package, and without the kernel that a container has no use for."""
    root = image.copy(debian, tmp_path_factory.mktemp("bare") / "root")
    subprocess.run(f"rm -r {root}/boot/* {root}/lib/modules/*", shell=True, check=True)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def installed(bare, deb, tmp_path_factory):
    """A root with the package installed, but neither configured nor enabled."""
    yield from _installed(bare, deb, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def installed_newer(deb, tmp_path_factory):
    """The same in a newer Debian."""
    yield from _installed(image.newer_debian(), deb, tmp_path_factory.mktemp("newer"))


@pytest.fixture
def hub(tmp_path):
    with Hub(tmp_path / "hub") as hub:
        yield hub
        # pytest shows this for a test that failed.
        print(hub.log())


@pytest.fixture
def machine(installed, tmp_path):
    """A machine with the package installed, switched off."""
    yield from gateways.of_root(installed, tmp_path)


@pytest.fixture
def bare_machine(bare, tmp_path):
    """A machine without the package, switched off."""
    yield from gateways.of_root(bare, tmp_path)


@pytest.fixture
def gateway(machine, hub):
    """A machine that is up, with the daemon enabled and connected to the hub."""
    gateways.configure(machine.root, hub)
    machine.power_on()
    gateways.enable(machine)
    hub.wait_connected(gateways.DEVICE)
    return machine


def _installed(base: Path, deb: Path, place: Path):
    root = image.copy(base, place / "root")
    image.install(root, deb)
    gateways.relax_for_container(root)
    yield root
    shutil.rmtree(root)
