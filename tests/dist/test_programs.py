"""The programs, and what is said of what they are made of."""

import functools
import json
import os
import shutil
import subprocess

import pytest
import release
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SCHEMA = JsonStrictValidator(SchemaVersion.V1_5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return release.unpack_source(tmp_path_factory.mktemp("source"))


@functools.cache
def built_in(source, arch: str, programs: tuple[str, ...]) -> dict[str, set[tuple[str, str]]]:
    """The crates of each of these programs, as cargo shows them to a person who asks for the command that builds them."""
    command = ["cargo", "tree", "--offline", "--locked", "--target", release.TRIPLES[arch], "--edges", "normal,build", "--prefix", "depth",
               "--no-dedupe", "--format", " {p}", *(f"--package={program}" for program in programs)]
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    said = subprocess.run(command, cwd=source, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found, crates = {}, set()
    for line in filter(str.strip, said.splitlines()):
        depth, name, number = line.split()[:3]
        if depth == "0":
            crates = found.setdefault(name, set())
        crates.add((name, number.removeprefix("v")))
    return found


def bills() -> list[str]:
    return sorted(file.name for file in release.DIST.glob("sbom/*.json"))


def crates_of(bill: dict) -> set[tuple[str, str]]:
    return {(one["name"], one["version"]) for one in [bill["metadata"]["component"], *bill["components"]]}


@pytest.mark.parametrize("name", bills() or ["missing"])
def test_a_bill_lists_what_cargo_tree_lists(name, source):
    program, _, arch = name.removesuffix(".cdx.json").split("_")
    # As debian/rules builds them.
    together = ("iotdm-agentd",) if program == "iotdm-agentd" else ("iotdm-ctl", "iotdm-emulator")
    text = release.the(f"sbom/{name}").read_text()
    wrong = SCHEMA.validate_str(text)
    assert wrong is None, wrong
    bill = json.loads(text)
    assert bill["metadata"]["component"]["name"] == program
    assert crates_of(bill) == built_in(source, arch, together)[program]
    # Each is reached from the program, and each that is depended on is listed.
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    reached, ahead = set(), [bill["metadata"]["component"]["bom-ref"]]
    while ahead:
        ref = ahead.pop()
        if ref not in reached:
            reached.add(ref)
            ahead += needs[ref]
    assert reached == set(needs) == {one["bom-ref"] for one in [bill["metadata"]["component"], *bill["components"]]}
    unsigned = [one["name"] for one in bill["components"] if "hashes" not in one and not one["name"].startswith("iotdm-")]
    unlicensed = [one["name"] for one in bill["components"] if "licenses" not in one]
    assert not unsigned and not unlicensed
    assert "file:" not in text and "/tmp" not in text


def test_there_is_a_bill_of_each_program_and_architecture():
    built = {(deb.name.split("_")[0], release.architecture(deb)) for deb in release.programs_of_packages()}
    assert {tuple(name.removesuffix(".cdx.json").split("_")[::2]) for name in bills()} >= built


def test_each_program_says_of_which_crates_it_is_made():
    """Independent of `cargo tree`: what cargo-auditable wrote into the program as it was built."""
    looked_at = [(program, release.architecture(deb), content)
                 for deb in release.programs_of_packages() for program, content in release.members(deb).items()]
    for file in sorted(release.DIST.glob("iotdm-*_linux-*")):
        looked_at.append((file.name.split("_")[0], file.name.rpartition("-")[2], file.read_bytes()))
    for program, arch, content in looked_at:
        elf = release.Elf(content)
        assert elf.machine == release.MACHINES[arch][0]
        said = {(one["name"], one["version"]) for one in json.loads(elf.crates())["packages"]}
        bill = crates_of(json.loads(release.the(f"sbom/{program}_*_{arch}.cdx.json").read_text()))
        assert said >= bill, f"{program} {arch}: {sorted(bill - said)} is in the bill alone"
        # cargo's metadata, which it is taken from, has besides what other programs and tests of the repository turn on.
        assert len(said - bill) < 24, sorted(said - bill)
    assert looked_at


def static_programs() -> list[str]:
    return sorted(file.name for file in release.DIST.glob("iotdm-*_linux-*"))


@pytest.mark.parametrize("name", static_programs() or ["missing"])
def test_a_static_program_runs_where_there_is_nothing_else(name, tmp_path):
    program, number, target = name.split("_")
    arch = target.removeprefix("linux-")
    file = release.the(name)
    assert not release.Elf(file.read_bytes()).asks_for_loader
    shutil.copy(file, tmp_path / "program")
    command = ["/program"]
    if arch != release.own_architecture():
        emulation = shutil.which(f"qemu-{release.MACHINES[arch][1]}-static")
        if not emulation:
            pytest.skip(f"left out: {name} is not run, as there is no qemu-user-static")
        shutil.copy(emulation, tmp_path / "emulation")
        command = ["/emulation", "/program"]
    said = subprocess.run(["chroot", tmp_path, *command, "--version"], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.split()[:2] == [program, number], said.stdout + said.stderr
    if program == "iotdm-ctl":
        # A name is looked up without the system's libraries, and the refusal tells of the connection.
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/hosts").write_text("127.0.0.1 hub.example\n")
        (tmp_path / "hub").write_text("HostName=hub.example:9;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0\n")
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", tmp_path / "ca.pem")
        refused = subprocess.run(["chroot", tmp_path, *command, "--connection-string-file", "/hub", "--ca-file", "/ca.pem", "twin", "show", "gw1"],
                                 capture_output=True, text=True)
        assert refused.returncode != 0 and "refused" in refused.stderr, refused.stderr
