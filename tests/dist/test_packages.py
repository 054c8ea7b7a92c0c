"""The repository, as each Debian's own apt takes it. That it refuses what was altered is seen in tests/systemd/test_repository.py."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import release

# The systems that `make dist` has made.
SYSTEMS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iotdm-dist"


def suites() -> list[str]:
    return sorted(place.name for place in release.DIST.glob("debian/dists/*"))


@pytest.fixture
def root(suite, tmp_path):
    """A minimal system of that Debian with the key, and the source as it is delivered but for where it is."""
    if not (SYSTEMS / suite).exists():
        pytest.fail(f"there is no system of {suite} in {SYSTEMS}, where make dist of the same user and XDG_CACHE_HOME makes it")
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", SYSTEMS / suite, root], check=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copytree(release.DIST / "debian", root / "repository")
    run(root, "dpkg", "--install", f"/repository/pool/all/{release.the('debian/pool/all/iotdm-archive-keyring_*_all.deb').name}")
    example = root / "usr/share/doc/iotdm-archive-keyring/examples/iotdm.sources"
    assert example.read_text() == release.the("debian/iotdm.sources").read_text()
    source = example.read_text().replace("https://iotdm.example.org/debian", "file:/repository").replace("bookworm", suite)
    assert "file:/repository" in source
    (root / "etc/apt/sources.list.d/iotdm.sources").write_text(source)
    yield root
    shutil.rmtree(root)


def run(root: Path, *command: str) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["chroot", root, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout}"
    return done.stdout


@pytest.mark.parametrize("suite", suites() or ["missing"])
def test_apt_installs_each_package_and_purges_it(suite, root):
    arch = release.own_architecture()
    for other in {release.architecture(deb) for deb in release.programs_of_packages() if deb.parent.name == suite} - {arch}:
        run(root, "dpkg", "--add-architecture", other)
    run(root, "apt-get", "update", "-o", "APT::Update::Error-Mode=any", "-o", "Dir::Etc::SourceParts=-", "-o", "Dir::Etc::SourceList=/etc/apt/sources.list")
    run(root, "apt-get", "update", "-o", "APT::Update::Error-Mode=any", "-o", "Dir::Etc::SourceParts=-",
        "-o", "Dir::Etc::SourceList=/etc/apt/sources.list.d/iotdm.sources", "-o", "APT::Get::List-Cleanup=no")
    said = run(root, "apt-get", "install", "-y", "--no-install-recommends", *release.PROGRAMS)
    assert "WARNING" not in said
    for program in release.PROGRAMS:
        assert run(root, program, "--version").split()[:2] == [program, release.version()]
        assert f"+deb{release.suite_version(suite)}u1" in run(root, "dpkg-query", "-W", "-f", "${Version}", program)
    # Those of other architectures are offered, and whole.
    for deb in release.programs_of_packages():
        if deb.parent.name == suite and release.architecture(deb) != arch:
            run(root, "sh", "-c", f"cd /tmp && apt-get download {deb.name.split('_')[0]}:{release.architecture(deb)}")
            assert (root / "tmp" / deb.name.replace(":", "%3a")).read_bytes() == deb.read_bytes()
    run(root, "apt-get", "purge", "-y", *release.PROGRAMS, "iotdm-archive-keyring")
    left = [str(path.relative_to(root)) for path in root.rglob("*iotdm*")
            if not str(path.relative_to(root)).startswith(("repository", "tmp", "var/lib/apt", "var/log", "etc/apt/sources.list.d/iotdm.sources"))]
    assert not left
