"""The result as a whole, and the source."""

import filecmp
import os
import subprocess
from pathlib import Path

import pytest
import release


def test_everything_is_in_the_signed_sums_and_nothing_else(tmp_path):
    keyrings = {"delivered.gpg": ["--homedir", tmp_path, "--dearmor", release.the("debian/iotdm-archive-keyring.asc")]}
    if "KEY" in os.environ:
        keyrings["ours.gpg"] = ["--export", os.environ["KEY"]]
    for name, command in keyrings.items():
        subprocess.run(["gpg", "--batch", "--quiet", "--output", tmp_path / name, *command], check=True)
        assert (tmp_path / name).exists(), f"gpg has no key {os.environ['KEY']}"
        for signed, *content in [["SHA256SUMS.asc", "SHA256SUMS"], *([file] for file in release.DIST.glob("debian/dists/*/InRelease"))]:
            verified = subprocess.run(["gpgv", "--keyring", tmp_path / name, signed, *content], cwd=release.DIST, capture_output=True, text=True)
            assert verified.returncode == 0, verified.stderr
    summed = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=release.DIST, capture_output=True, text=True)
    assert summed.returncode == 0, summed.stdout + summed.stderr
    named = {line.split("  ", 1)[1] for line in release.the("SHA256SUMS").read_text().splitlines()}
    there = {str(file.relative_to(release.DIST)) for file in release.DIST.rglob("*") if file.is_file()}
    assert there - named == {"SHA256SUMS", "SHA256SUMS.asc"}


def test_each_part_is_there_or_said_to_be_left_out():
    left_out = release.DIST / "LEFT-OUT"
    missing = left_out.read_text() if left_out.exists() else ""
    for suite in os.environ.get("SUITES", "bookworm trixie").split():
        for arch in os.environ.get("ARCHES", "amd64 arm64 armhf").split():
            if f"packages {suite} {arch}: " in missing:
                continue
            for program in release.PROGRAMS:
                deb = release.the(f"debian/pool/{suite}/{program}_*_{arch}.deb")
                assert deb.name.split("_")[1].endswith(f"+deb{release.suite_version(suite)}u1")
            buildinfo = release.the(f"buildinfo/{suite}/iotdm_*_{arch}.buildinfo").read_text()
            assert "Installed-Build-Depends:" in buildinfo and deb.name in buildinfo
            if arch != "armhf" and f"static {arch}: " not in missing:
                for program in ["iotdm-ctl", "iotdm-emulator"]:
                    release.the(f"{program}_{release.version()}_linux-{arch}")
                release.the(f"iotdm-emulator_{release.version()}_{arch}.docker.tar")


def test_the_source_builds_without_a_network_or_a_cargo_home(tmp_path):
    """All of it is compiled; that the programs are made of it, too, is seen by `make dist`, which makes the packages so."""
    source = release.unpack_source(tmp_path)
    command = ["unshare", "--net", "cargo", "check", "--quiet", "--workspace", "--locked"]
    environment = {**os.environ, "CARGO_HOME": str(tmp_path / "home"), "CARGO_TARGET_DIR": str(tmp_path / "target")}
    built = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert list((tmp_path / "target/debug/deps").glob("libiotdm_agentd-*.rmeta"))


def test_another_run_gave_the_same_bytes():
    if "AGAINST" not in os.environ:
        pytest.skip("left out: the comparison with another run (AGAINST=its folder)")
    other = Path(os.environ["AGAINST"]).resolve()

    def files(place: Path) -> set[Path]:
        return {file.relative_to(place) for file in place.rglob("*") if file.is_file()}

    assert files(release.DIST) == files(other)
    differ = [str(file) for file in sorted(files(other)) if not filecmp.cmp(release.DIST / file, other / file, shallow=False)]
    assert not differ
