"""The machines and the hub that the tests ask for."""

import subprocess
from pathlib import Path

import pytest
from machines import gateways, image, package
from pyharness.hub import Hub


# Where tests run beside each other, one machine in QEMU at a time: each uses a
# whole processor, and time clients find their server at one port only. As these
# take longest, they begin first.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("qemu"):
            item.add_marker(pytest.mark.xdist_group("qemu"))
    items.sort(key=lambda item: item.get_closest_marker("qemu") is None)


@pytest.fixture(scope="session")
def deb() -> Path:
    return package.daemon()


@pytest.fixture(scope="session")
def debian() -> Path:
    return image.debian()


@pytest.fixture(scope="session")
def bare(debian, tmp_path_factory):
    """A root without the package, and without the kernel that a container has no use for."""
    with image.base(debian, tmp_path_factory.mktemp("bare") / "machine") as root:
        _remove_kernel(root)
        yield root


@pytest.fixture(scope="session")
def installed(debian, deb, tmp_path_factory):
    """A bare root with the package installed, but neither configured nor enabled."""
    # Beside the bare one: Linux lays no third layer over two, and each machine is one.
    with image.base(debian, tmp_path_factory.mktemp("installed") / "machine") as root:
        _remove_kernel(root)
        _install(root, deb)
        yield root


@pytest.fixture(scope="session")
def installed_newer(deb, tmp_path_factory):
    """The same in a newer Debian."""
    with image.base(image.newer_debian(), tmp_path_factory.mktemp("newer") / "machine") as root:
        _install(root, deb)
        yield root


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


def _remove_kernel(root: Path) -> None:
    subprocess.run(f"rm -r {root}/boot/* {root}/lib/modules/*", shell=True, check=True)


def _install(root: Path, deb: Path) -> None:
    image.install(root, deb)
    gateways.relax_for_container(root)
