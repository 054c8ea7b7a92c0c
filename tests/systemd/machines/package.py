"""The Debian packages as files."""

import re
import shutil
import subprocess
from pathlib import Path

from pyharness.programs import ROOT

NAMES = ["iotdm-agentd", "iotdm-ctl", "iotdm-emulator"]
BUILT = ROOT / "target/deb"


def architecture() -> str:
    """This machine's."""
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def built(name: str, arch: str) -> Path:
    """The package that `make deb` has left."""
    found = list(BUILT.glob(f"{name}_*_{arch}.deb"))
    assert len(found) == 1, f"expected one {name} for {arch} in {BUILT}, found {found}; run 'make deb ARCH={arch}'"
    return found[0]


def daemon() -> Path:
    """The daemon's package for this machine."""
    return built("iotdm-agentd", architecture())


def unpack(deb: Path, target: Path) -> Path:
    """What the package installs, below `target`."""
    subprocess.run(["dpkg-deb", "--extract", deb, target], check=True)
    return target


def debian(name: str) -> Path:
    """A package of this machine's own Debian."""
    found = subprocess.run([ROOT / "tests/debian-package", name], check=True, stdout=subprocess.PIPE, text=True)
    return Path(found.stdout.strip())


def next_version(deb: Path, directory: Path, suffix: str = "+next") -> Path:
    """The package's successor: another revision, whose agentd.toml has other words; the program is the same."""
    content = directory / "content"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, content], check=True)
    control = content / "DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", rf"\1{suffix}", control.read_text(), flags=re.M))
    with open(content / "etc/iotdm/agentd.toml", "a") as settings:
        settings.write(f"\n# What is new in {suffix}.\n")
    successor = directory / f"{suffix.strip('+')}_{deb.name}"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", content, successor], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(content)
    return successor
