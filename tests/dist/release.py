"""What `make dist` has left, as files."""

import os
import re
import struct
import subprocess
import zlib
from pathlib import Path

from pyharness.programs import ROOT

DIST = (ROOT / os.environ.get("DIST", "dist")).resolve()
PROGRAMS = ["iotdm-agentd", "iotdm-ctl", "iotdm-emulator"]
TRIPLES = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu", "armhf": "armv7-unknown-linux-gnueabihf"}
# Each architecture's number in the head of a program, and what runs it elsewhere.
MACHINES = {"amd64": (62, "x86_64"), "arm64": (183, "aarch64"), "armhf": (40, "arm")}


def the(pattern: str) -> Path:
    """The one file of that name."""
    found = list(DIST.glob(pattern))
    assert len(found) == 1, f"expected one {pattern} in {DIST}, found {[file.name for file in found]}"
    return found[0]


def version() -> str:
    return the("iotdm_*.vendored.tar.xz").name.split("_")[1].removesuffix(".vendored.tar.xz")


def packages() -> list[Path]:
    """Those of our programs, of all Debians and architectures."""
    return sorted(DIST.glob("debian/pool/*/iotdm-*_*.deb"), key=str)


def programs_of_packages() -> list[Path]:
    return [deb for deb in packages() if deb.name.split("_")[0] in PROGRAMS]


def architecture(deb: Path) -> str:
    return deb.stem.rpartition("_")[2]


def own_architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def unpack_source(place: Path) -> Path:
    """The source, unpacked below `place`."""
    subprocess.run(["tar", "-x", "--no-same-owner", "-f", the("iotdm_*.vendored.tar.xz"), "-C", place], check=True)
    return place / f"iotdm-{version()}"


def suite_version(suite: str) -> str:
    return {"bookworm": "12", "trixie": "13"}[suite]


class Elf:
    """The little of a program that is looked at: whose machine it is for, whether it asks for a loader, its sections."""

    def __init__(self, content: bytes) -> None:
        assert content[:4] == b"\x7fELF" and content[5] == 1, "no little-endian ELF file"
        wide = content[4] == 2
        head = struct.unpack_from("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", content, 16)
        self.machine = head[1]
        programs, sections, program_size, program_count, section_size, section_count, names = *head[4:6], *head[8:13]
        kinds = [struct.unpack_from("<I", content, programs + n * program_size)[0] for n in range(program_count)]
        self.asks_for_loader = 3 in kinds
        layout = "<IIQQQQ" if wide else "<IIIIII"
        table = [struct.unpack_from(layout, content, sections + n * section_size) for n in range(section_count)]
        at = table[names][4]
        self.sections = {}
        for name, _, _, _, offset, size in table:
            start = at + name
            self.sections[content[start:content.index(b"\0", start)].decode()] = content[offset:offset + size]

    def crates(self) -> bytes:
        """What cargo-auditable has written into it, as JSON."""
        assert ".dep-v0" in self.sections, "the program does not say of which crates it is made"
        return zlib.decompress(self.sections[".dep-v0"])


def members(deb: Path) -> dict[str, bytes]:
    """The programs in a package."""
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True).stdout
    listed = subprocess.run(["tar", "-t"], input=archive, stdout=subprocess.PIPE, check=True).stdout.decode()
    names = re.findall(r"^\./usr/bin/\S+$", listed, re.M)
    return {name.rpartition("/")[2]: subprocess.run(["tar", "-xO", name], input=archive, stdout=subprocess.PIPE, check=True).stdout
            for name in names}
