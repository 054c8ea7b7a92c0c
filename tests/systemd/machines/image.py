"""The Debian system that the machines of these tests are copies of.

debootstrap makes it once, with a kernel; it is kept in the user's cache
directory under a name that changes with its recipe.
"""

import contextlib
import fcntl
import hashlib
import inspect
import os
import re
import shutil
import subprocess
from pathlib import Path

from machines import package

# Where the systems are kept, which take a minute each to make.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iotdm-tests"
# What a gateway has, down to what the package depends on: the machines have no
# network of their own to install from.
GATEWAY = ["ca-certificates", "dbus", "iproute2", "libpam-systemd", "polkitd", "systemd", "systemd-sysv"]
# The Debian whose systemd, 257, is the first that has block inhibitors bind root as well.
NEWER = "trixie"
# For the tests with a whole machine, whose watchdog the kernels for clouds have no driver for.
KERNEL = ["initramfs-tools", "linux-image-amd64", "systemd-timesyncd"]
# What such a machine needs to find its root; its initrd is unpacked by an emulated processor at each boot.
INITRD = ["ext4", "virtio_blk", "virtio_pci"]


def debian() -> Path:
    """The root directory of this machine's own Debian, made now if there is none yet."""
    return _cached("gateway", own_suite(), [*GATEWAY, *KERNEL], package.architecture(), also=[])


def newer_debian() -> Path:
    """The same of the Debian NEWER, without a kernel."""
    return _cached("newer", NEWER, GATEWAY, package.architecture(), also=[])


def debian_that_updates_itself() -> Path:
    """This machine's own Debian, without a kernel, with Debian's unattended-upgrades."""
    return _cached("updates", own_suite(), [*GATEWAY, "unattended-upgrades"], package.architecture(), also=[])


def debian_arm() -> Path:
    """The same as a Raspberry Pi runs it: an arm64 system that can run armhf programs, too. The host has to know how to run both."""
    return _cached("arm", own_suite(), GATEWAY, "arm64", also=["libc6:armhf", "libgcc-s1:armhf"])


def _cached(role: str, suite: str, packages: list[str], arch: str, also: list[str]) -> Path:
    recipe = f"{suite} {packages} {INITRD} {arch} {also} {inspect.getsource(_make)}"
    root = CACHE / f"debian-{role}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{role}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            for old in CACHE.glob(f"debian-{role}-*"):
                shutil.rmtree(old)
            # With the role in its name, what an earlier run left unfinished goes with the old ones.
            unfinished = CACHE / f"debian-{role}-unfinished"
            _make(unfinished, suite, packages, arch, also)
            unfinished.rename(root)
    return root


def copy(source: Path, target: Path) -> Path:
    """A copy to be changed."""
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
    return target


def install(root: Path, deb: Path) -> None:
    """Installs a package into a machine that is off."""
    shutil.copy(deb, root / "root")
    run_in(root, "apt-get", "install", "-y", f"/root/{deb.name}")


def run_in(root: Path, *command: str) -> None:
    """Runs a command in a machine that is off."""
    subprocess.run(["chroot", root, *command], check=True)


@contextlib.contextmanager
def layer(source: Path, place: Path):
    """A root that begins as `source` and keeps its own changes, in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tests", place], check=True)
    try:
        for name in ["upper", "work", "root"]:
            (place / name).mkdir()
        options = f"lowerdir={source},upperdir={place}/upper,workdir={place}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "tests", place / "root"], check=True)
        yield place / "root"
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


@contextlib.contextmanager
def base(source: Path, place: Path):
    """A root that begins as `source`, for the layers of machines to lie upon.

    Where the cache is on an overlay itself, as the disk of a container is, it is
    a copy: Linux lays no third layer over two.
    """
    kind = subprocess.run(["stat", "--file-system", "--format=%T", source], capture_output=True, text=True, check=True)
    if kind.stdout.strip() != "overlayfs":
        with layer(source, place) as root:
            yield root
        return
    place.mkdir()
    root = copy(source, place / "root")
    try:
        yield root
    finally:
        shutil.rmtree(root)


def _make(root: Path, suite: str, packages: list[str], arch: str, also: list[str]) -> None:
    log = root.with_suffix(".log")
    command = ["debootstrap", f"--arch={arch}", "--variant=minbase", f"--include={','.join(packages)}", suite, root, _mirror()]
    with open(log, "w") as output:
        made = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        raise RuntimeError(f"debootstrap failed, see {log}:\n{log.read_text()[-2000:]}")
    log.unlink()
    if "systemd-timesyncd" in packages:
        # A test that wants a time client enables this one, with a server of its own.
        subprocess.run(["systemctl", f"--root={root}", "--quiet", "disable", "systemd-timesyncd"], check=True)
    if set(KERNEL) <= set(packages):
        with open(root / "etc/initramfs-tools/modules", "a") as modules:
            modules.write("\n".join([*INITRD, ""]))
        (root / "etc/initramfs-tools/conf.d/tests").write_text("MODULES=list\n")
        subprocess.run(["chroot", root, "update-initramfs", "-u"], check=True)
    if also:
        # These packages are of another architecture, which debootstrap knows nothing of.
        subprocess.run(["chroot", root, "dpkg", "--add-architecture", also[0].split(":")[1]], check=True)
        for command in [["update"], ["install", "-y", "--no-install-recommends", *also], ["clean"]]:
            subprocess.run(["chroot", root, "apt-get", "-q", *command], check=True)
    (root / "etc/hostname").write_text("gw1\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost gw1\n")
    # A journal that outlives the boot and is on disk with each line, since
    # these machines lose power.
    (root / "var/log/journal").mkdir(parents=True, exist_ok=True)
    journald = root / "etc/systemd/journald.conf.d/tests.conf"
    journald.parent.mkdir(parents=True)
    journald.write_text("[Journal]\nStorage=persistent\nSyncIntervalSec=1s\nRateLimitBurst=0\n")
    for waste in ["var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"]:
        shutil.rmtree(root / waste)
        (root / waste).mkdir()


def own_suite() -> str:
    """This machine's, that the packages are built for."""
    return re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)[1]


def _mirror() -> str:
    """The first archive of this machine's own apt sources that is not one of security updates."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = []
    for source in sources:
        if source.suffix in (".list", ".sources") and source.is_file():
            text = source.read_text()
            found += re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)", text, re.M)
            found += re.findall(r"^URIs:\s*(\S+)", text, re.M)
    for uri in found:
        if "security" not in uri:
            return uri
    raise RuntimeError("no Debian mirror in /etc/apt/sources.list or sources.list.d")


if __name__ == "__main__":
    # Beforehand, so that no test has to wait for it.
    for made in [debian(), newer_debian(), debian_that_updates_itself()]:
        print(made)
