"""The apt repository of a release, as gateways meet it: what comes from it is installed and upgraded, and what was
altered is refused."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from judges.reports import LOGIND_REBOOTS
from machines import gateways, image, package
from machines.container import REBOOT
from machines.gateways import DEVICE, UNIT
from pyharness.programs import ROOT

OWN = image.own_suite()
SUITES = [OWN, image.NEWER]
STATE = "var/lib/iotdm"


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
    """Makes a repository by the script that a release is made with: of the packages that `make deb` left, for each of
    SUITES, and `also` for this machine's own Debian; or of `pools`, packages by suite."""

    def make(*also: Path, pools: dict[str, list[Path]] | None = None, **variables: str):
        dist = tmp_path_factory.mktemp("dist")
        built = [package.built(name, package.architecture()) for name in package.NAMES]
        for suite, debs in (pools or {suite: built for suite in SUITES} | {OWN: [*built, *also]}).items():
            pool = dist / f"debian/pool/{suite}"
            pool.mkdir(parents=True)
            for deb in debs:
                shutil.copy(deb, pool)
        # Now, since the instant of an old commit could be too long ago for apt.
        environment = {**keys, "KEY": "ours", "DIST": str(dist), "ARCHES": package.architecture(),
                       "SOURCE_DATE_EPOCH": subprocess.check_output(["date", "+%s"], text=True).strip(), **variables}
        subprocess.run([ROOT / "packaging/dist/repository"], env=environment, check=True)
        return dist / "debian"

    return make


@pytest.fixture(scope="module")
def repository(make_repository):
    return make_repository()


def publish(root: Path, repository: Path) -> None:
    shutil.copytree(repository, root / "repository", dirs_exist_ok=True)


def trust(root: Path, repository: Path) -> None:
    """Installs the package of the repository's key, which comes to a machine by another way."""
    deb, = repository.glob("pool/all/iotdm-archive-keyring_*.deb")
    shutil.copy(deb, root / "root")
    image.run_in(root, "dpkg", "--install", f"/root/{deb.name}")


def offer(root: Path, repository: Path, suite: str = OWN) -> None:
    """What docs/install.md has an administrator do; this machine, which is off, gets no other source of packages."""
    publish(root, repository)
    trust(root, repository)
    example = (root / "usr/share/doc/iotdm-archive-keyring/examples/iotdm.sources").read_text()
    edited = re.sub(r"^URIs: .*$", "URIs: file:/repository", example, flags=re.M)
    edited = re.sub(r"^Suites: .*$", f"Suites: {suite}", edited, flags=re.M)
    assert edited.count("\n") == example.count("\n") and edited != example
    for other in ["sources.list", "sources.list.d/debian.sources"]:
        (root / "etc/apt" / other).unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/iotdm.sources").write_text(edited)


def apt(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs apt-get in a machine that is off. What cannot be fetched is an error, as for a person who looks."""
    command = ["chroot", root, "apt-get", "-y", "-o", "APT::Update::Error-Mode=any", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextlib.contextmanager
def gateway(base: Path, repository: Path, hub, place: Path, suite: str = OWN, also: tuple[str, ...] = ()):
    """A machine that begins as `base`, with the daemon, and `also`, from the repository; connected."""
    with image.layer(base, place / "machine") as root:
        offer(root, repository, suite)
        with contextlib.contextmanager(gateways.switched_off)(root) as machine:
            machine.power_on()
            machine.run("apt-get", "update")
            machine.run("apt-get", "install", "-y", "iotdm-agentd", *also)
            gateways.relax_for_container(root)
            gateways.configure(root, hub)
            gateways.enable(machine)
            hub.wait_connected(DEVICE)
            yield machine


def installed_version(machine) -> str:
    return machine.run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", "iotdm-agentd")


def wait_completed(hub, request: str) -> dict:
    reported = hub.wait_reported(
        DEVICE, lambda reported: (reported["reboot"]["id"], reported["reboot"]["status"]) == (request, "completed"))
    return reported["reboot"]


@pytest.mark.parametrize("suite", SUITES)
def test_a_gateway_and_its_operator_are_served_from_the_repository(suite, repository, request, hub, tmp_path):
    base = request.getfixturevalue("bare") if suite == OWN else image.newer_debian()
    with gateway(base, repository, hub, tmp_path, suite, also=("iotdm-ctl",)) as machine:
        # The operator's tool of the same repository, on the same machine, which takes it along as it goes down.
        (machine.root / "root/ca.pem").write_bytes(hub.ca_file.read_bytes())
        (machine.root / "root/hub.txt").write_bytes(hub.service_file.read_bytes())
        said = machine.run("iotdm-ctl", "--connection-string-file", "/root/hub.txt", "--ca-file", "/root/ca.pem",
                           "reboot", DEVICE, "--id", "first", "--no-wait")
        assert "accepted" in said, said
        machine.wait_boot(2)
        assert machine.ends == [REBOOT]
        wait_completed(hub, "first")


def test_upgrades_from_the_repository_neither_lose_nor_double_a_reboot(repository, make_repository, deb, hub, tmp_path):
    following = package.next_version(deb, tmp_path)
    last = package.next_version(following, tmp_path, "+last")
    with gateway(image.debian_that_updates_itself(), repository, hub, tmp_path) as machine:
        first = installed_version(machine)

        # While one is scheduled, by Debian's own unattended-upgrades, as docs/upgrade.md has it.
        advice = re.search(r"^ *(Unattended-Upgrade::Origins-Pattern .*)$", (ROOT / "docs/upgrade.md").read_text(), re.M)
        (machine.root / "etc/apt/apt.conf.d/52iotdm").write_text(advice[1] + "\n")
        publish(machine.root, make_repository(following))
        machine.run("apt-get", "update")
        would = machine.run("unattended-upgrade", "--dry-run", "--verbose")
        assert re.search(r"^Packages that will be upgraded: .*\biotdm-agentd\b", would, re.M), would
        assert installed_version(machine) == first
        hub.done("reboot", DEVICE, "--id", "scheduled", "--delay", "20s", "--no-wait",
                 # A machine that is slow today still installs when its time comes.
                 "--on-preflight", "wait", "--on-inhibitor", "wait")
        said = machine.run("unattended-upgrade", "--verbose")
        assert installed_version(machine) == f"{first}+next", said
        machine.wait_boot(2, timeout=120)
        wait_completed(hub, "scheduled")

        # While the machine goes down, as unattended-upgrades does with InstallOnShutdown.
        publish(machine.root, make_repository(following, last))
        machine.run("apt-get", "update")
        (machine.root / "etc/systemd/system/late.service").write_text(LATE)
        machine.run("systemctl", "start", "late")
        hub.done("reboot", DEVICE, "--id", "late", "--no-wait", "--connect-timeout", "60")
        machine.wait_boot(3, timeout=120)
        assert installed_version(machine) == f"{first}+next+last"
        assert machine.run("dpkg", "--audit") == ""
        rebooted = wait_completed(hub, "late")
        assert (rebooted["previousBootId"], rebooted["bootId"]) == tuple(boot.boot_id for boot in machine.boots[1:])

        # Back: not by itself, and then without harm to a record that this version does not know.
        back = ["apt-get", "install", "-y", f"iotdm-agentd={first.removeprefix('ii ')}"]
        machine.run(*back, check=False)
        assert installed_version(machine) == f"{first}+next+last"
        machine.run("systemctl", "stop", UNIT)
        newer = make_newer(machine.root / STATE / "state.json")
        machine.run(*back, "--allow-downgrades")
        assert installed_version(machine) == first
        machine.run("systemctl", "start", UNIT)
        aside = f"/{STATE}/state.damaged-0"
        hub.wait_reported(DEVICE, lambda reported: reported["agent"].get("damagedRecord") == aside)
        assert Path(f"{machine.root}{aside}").read_bytes() == newer
        machine.wait_journal(rf"it has version 3; this agent knows up to 2\); it is now {aside}", f"--unit={UNIT}")
        again = hub.done("reboot", DEVICE, "--id", "late", "--no-wait", "--connect-timeout", "60", "--output", "json")
        assert json.loads(again)["reply"]["payload"]["status"] == "accepted", "as the twin remembers it"
        now = json.loads(hub.done("invoke", DEVICE, "getRebootStatus", "--output", "json"))["payload"]
        assert now["reboot"] == hub.reported(DEVICE)["reboot"] == rebooted
        assert machine.journal("--unit=systemd-logind").count(LOGIND_REBOOTS) == 2
        assert machine.ends == [REBOOT, REBOOT]


@pytest.mark.release
@pytest.mark.timeout(3600)
@pytest.mark.skipif(OWN != "bookworm", reason="left out: it is known of Debian 12 alone what the next one is")
def test_the_upgrade_of_debian_takes_the_gateway_along(make_repository, deb, hub, tmp_path):
    """With a request pending, by the archive of Debian and ours, each of which has its own build for each Debian."""
    older, newer = (package.next_version(deb, tmp_path, suffix) for suffix in ["+deb12u1", "+deb13u1"])
    repository = make_repository(pools={OWN: [older], image.NEWER: [newer]})
    base = image.debian_that_updates_itself()
    with gateway(base, repository, hub, tmp_path) as machine:
        assert installed_version(machine).endswith("+deb12u1")
        hub.done("reboot", DEVICE, "--id", "pending", "--delay", "6h", "--no-wait")
        shutil.copy("/etc/resolv.conf", machine.root / "etc")
        theirs = (base / "etc/apt/sources.list").read_text()
        (machine.root / "etc/apt/sources.list").write_text(theirs.replace(OWN, image.NEWER))
        ours = machine.root / "etc/apt/sources.list.d/iotdm.sources"
        ours.write_text(ours.read_text().replace(OWN, image.NEWER))
        machine.run("apt-get", "update")
        upgrade = ["apt-get", "-y", "-o", "Dpkg::Options::=--force-confold", "full-upgrade"]
        print(machine.run(*upgrade, timeout=3000)[-4000:])
        assert installed_version(machine).endswith("+deb13u1")
        assert machine.run("dpkg", "--audit") == ""
        hub.wait_connected(DEVICE)
        pending = hub.wait_reported(DEVICE, lambda reported: reported["reboot"]["id"] == "pending")["reboot"]
        assert pending["status"] == "scheduled" and machine.ends == []
        hub.done("cancel", DEVICE)
        hub.done("reboot", DEVICE, "--id", "into-the-next", "--no-wait")
        machine.wait_boot(2)
        wait_completed(hub, "into-the-next")
        assert machine.ends == [REBOOT]
        assert f"VERSION_CODENAME={image.NEWER}" in machine.run("cat", "/etc/os-release")


# It is stopped before the daemon is, which therefore still runs then.
LATE = f"""\
[Unit]
After={UNIT}.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
Environment=DEBIAN_FRONTEND=noninteractive
ExecStop=apt-get -y upgrade
TimeoutStopSec=90
"""


def make_newer(file: Path) -> bytes:
    """Makes a record one of the next layout: whole, and with more in it."""
    record = json.loads(file.read_text().splitlines()[0])
    text = json.dumps({**record, "version": record["version"] + 1, "unheardOf": True})
    content = f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n".encode()
    file.write_bytes(content)
    return content


def test_a_package_with_one_byte_changed_is_refused(bare, repository, tmp_path):
    with image.layer(bare, tmp_path / "machine") as root:
        offer(root, repository)
        assert apt(root, "update").returncode == 0
        [deb] = (root / f"repository/pool/{OWN}").glob("iotdm-ctl_*.deb")
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
        release = root / f"repository/dists/{OWN}/InRelease"
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
        trust(root, repository)
        refused = apt(root, "update")
        assert refused.returncode == 100
        assert "NO_PUBKEY" in refused.stdout


def test_the_same_packages_and_key_give_the_same_bytes(make_repository):
    one, other = (make_repository(SOURCE_DATE_EPOCH="1800000000") for _ in range(2))
    compared = subprocess.run(["diff", "--recursive", one, other], capture_output=True, text=True)
    assert compared.returncode == 0, compared.stdout
    assert len(list(one.rglob("*"))) > 20
