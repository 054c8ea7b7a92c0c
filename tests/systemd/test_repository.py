"""The apt repository of a release, as gateways meet it: packages from it are installed, and what was altered is refused."""

import os
import shutil
import subprocess

import pytest
from machines import gateways, image, package
from machines.container import REBOOT
from machines.gateways import DEVICE
from pyharness.programs import ROOT

SUITE = "stable"
SOURCE = f"""\
Types: deb
URIs: file:/repository
Suites: {SUITE}
Components: main
Signed-By: /usr/share/keyrings/iotdm-archive-keyring.asc
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A keyring with two keys: ours, and a stranger's."""
    home = tmp_path_factory.mktemp("keys")
    home.chmod(0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    for name in ["ours", "strange"]:
        command = ["gpg", "--batch", "--quiet", "--passphrase", "", "--faked-system-time", "1600000000!",
                   "--quick-generate-key", name, "ed25519", "sign", "0"]
        subprocess.run(command, env=environment, check=True)
    yield environment
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True)


@pytest.fixture(scope="module")
def make_repository(keys, tmp_path_factory):
    """Makes a repository of the packages that `make deb` left, by the script that a release is made with."""

    def make(**variables: str):
        dist = tmp_path_factory.mktemp("dist")
        pool = dist / f"debian/pool/{SUITE}"
        pool.mkdir(parents=True)
        for name in package.NAMES:
            shutil.copy(package.built(name, package.architecture()), pool)
        # Now, since the instant of an old commit could be too long ago for apt.
        environment = {**keys, "KEY": "ours", "DIST": str(dist), "ARCHES": package.architecture(),
                       "SOURCE_DATE_EPOCH": subprocess.check_output(["date", "+%s"], text=True).strip(), **variables}
        subprocess.run([ROOT / "packaging/dist/repository"], env=environment, check=True)
        return dist / "debian"

    return make


@pytest.fixture(scope="module")
def repository(make_repository):
    return make_repository()


def offer(root, repository) -> None:
    """What an administrator does who has been given our key and where the repository is."""
    shutil.copytree(repository, root / "repository", dirs_exist_ok=True)
    keyring = root / "usr/share/keyrings/iotdm-archive-keyring.asc"
    shutil.copy(repository / "iotdm-archive-keyring.asc", keyring)
    # Nothing but this one: the machine has no network.
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/iotdm.sources").write_text(SOURCE)


def apt(root, *arguments: str) -> subprocess.CompletedProcess:
    """Runs apt-get in a machine that is off. What cannot be fetched is an error, as for a person who looks."""
    command = ["chroot", root, "apt-get", "-y", "-o", "APT::Update::Error-Mode=any", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("debian", ["own", "newer"])
def test_a_gateway_and_its_operator_are_served_from_the_repository(debian, repository, request, hub, tmp_path):
    base = request.getfixturevalue("bare") if debian == "own" else image.newer_debian()
    with image.layer(base, tmp_path / "machine") as root:
        offer(root, repository)
        gateways.relax_for_container(root)
        for machine in gateways.switched_off(root):
            machine.power_on()
            machine.run("apt-get", "update")
            machine.run("apt-get", "install", "-y", "iotdm-archive-keyring", "iotdm-agentd", "iotdm-ctl")
            gateways.configure(root, hub)
            gateways.enable(machine)
            hub.wait_connected(DEVICE)
            # The tool of the same repository, on the same machine; the shutdown takes it along.
            (root / "root/ca.pem").write_bytes(hub.ca_file.read_bytes())
            (root / "root/hub").write_text(hub.service_string())
            said = machine.run("iotdm-ctl", "--connection-string-file", "/root/hub", "--ca-file", "/root/ca.pem",
                               "reboot", DEVICE, "--no-wait")
            assert "accepted" in said, said
            machine.wait_boot(2)
            assert machine.ends == [REBOOT]
            hub.wait_reported(DEVICE, lambda reported: reported.get("reboot", {}).get("status") == "completed")


def test_a_package_with_one_byte_changed_is_refused(bare, repository, tmp_path):
    with image.layer(bare, tmp_path / "machine") as root:
        offer(root, repository)
        assert apt(root, "update").returncode == 0
        [deb] = (root / f"repository/pool/{SUITE}").glob("iotdm-ctl_*.deb")
        content = bytearray(deb.read_bytes())
        content[2000] ^= 1
        deb.write_bytes(content)
        refused = apt(root, "install", "iotdm-ctl")
        assert refused.returncode == 100
        assert "Hash Sum mismatch" in refused.stdout
        assert not (root / "usr/bin/iotdm-ctl").exists()


def test_lists_with_a_byte_changed_are_refused(bare, repository, tmp_path):
    with image.layer(bare, tmp_path / "machine") as root:
        offer(root, repository)
        release = root / f"repository/dists/{SUITE}/InRelease"
        release.write_text(release.read_text().replace("Origin: iotdm", "Origin: other"))
        refused = apt(root, "update")
        assert refused.returncode == 100
        assert "BADSIG" in refused.stdout


def test_an_expired_repository_is_refused(bare, make_repository, tmp_path):
    expired = make_repository(SOURCE_DATE_EPOCH="1700000000", VALID_DAYS="7")
    with image.layer(bare, tmp_path / "machine") as root:
        offer(root, expired)
        refused = apt(root, "update")
        assert refused.returncode == 100
        assert "is expired" in refused.stdout


def test_another_key_is_refused(bare, repository, make_repository, tmp_path):
    with image.layer(bare, tmp_path / "machine") as root:
        offer(root, make_repository(KEY="strange"))
        shutil.copy(repository / "iotdm-archive-keyring.asc", root / "usr/share/keyrings/")
        refused = apt(root, "update")
        assert refused.returncode == 100
        assert "NO_PUBKEY" in refused.stdout


def test_the_same_packages_and_key_give_the_same_bytes(make_repository):
    one, other = (make_repository(SOURCE_DATE_EPOCH="1800000000") for _ in range(2))
    compared = subprocess.run(["diff", "--recursive", one, other], capture_output=True, text=True)
    assert compared.returncode == 0, compared.stdout
    assert len(list(one.rglob("*"))) > 20
