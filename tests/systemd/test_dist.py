"""What `make dist` says of wrong use, and that nothing half-made looks like a release. What it makes is tested by `make dist-check`."""

import os
import signal
import subprocess

import pytest
from pyharness.process import Process
from pyharness.programs import ROOT

RUN = ROOT / "packaging/dist/run"


def environment(place, **variables: str) -> dict[str, str]:
    # Neither a real result nor the systems of one are touched.
    return {**os.environ, "DIST": str(place / "dist"), "XDG_CACHE_HOME": str(place / "cache"), "GNUPGHOME": str(place), **variables}


def run(place, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    place.chmod(0o700)
    return subprocess.run([RUN, *arguments], env=environment(place, **variables), capture_output=True, text=True)


@pytest.mark.parametrize(("arguments", "variables", "code", "named"), [
    (["packeges"], {}, 2, "there is no part packeges"),
    ([], {"SUITES": "buster"}, 2, "SUITES has buster"),
    ([], {"ARCHES": "amd64 i386"}, 2, "ARCHES has i386"),
    ([], {"SUITES": " "}, 2, "have to name one"),
    ([], {"VALID_DAYS": "ninety"}, 2, "VALID_DAYS=ninety"),
    (["sbom"], {}, 1, "make all of it first"),
    ([], {"KEY": "nobody"}, 1, "KEY=nobody: gpg has no secret key"),
])
def test_wrong_use_is_told_and_leaves_nothing(arguments, variables, code, named, tmp_path):
    told = run(tmp_path, *arguments, **variables)
    assert told.returncode == code, told.stderr
    assert named in told.stderr
    assert not (tmp_path / "dist").exists() and not (tmp_path / "dist.unfinished").exists()


def test_a_key_that_is_younger_than_the_commit_is_told(tmp_path):
    tmp_path.chmod(0o700)
    made = ["gpg", "--batch", "--quiet", "--passphrase", "", "--faked-system-time", "1700000000!", "--quick-generate-key", "ours", "ed25519", "sign", "0"]
    subprocess.run(made, env=environment(tmp_path), check=True)
    subprocess.run(["gpgconf", "--kill", "all"], env=environment(tmp_path), check=True)
    told = run(tmp_path, KEY="ours", SOURCE_DATE_EPOCH="1600000000")
    assert told.returncode == 1 and "KEY=ours cannot sign at the commit's instant, 2020-09-13" in told.stderr, told.stderr


def test_the_help_names_each_part(tmp_path):
    told = run(tmp_path, "--help")
    assert told.returncode == 0 and told.stderr == ""
    for part in ["source", "packages", "repository", "sbom", "static", "image"]:
        assert (ROOT / "packaging/dist" / part).exists() and f"\n  {part} " in told.stdout


def test_an_interruption_leaves_no_release(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/before").touch()
    # Whoever runs these tests may have it ignored.
    made = Process(["env", "--default-signal=INT", RUN], env=environment(tmp_path), start_new_session=True)
    made.wait_for("^make dist: source")
    # As a terminal does it, to all that was started.
    os.killpg(made.pid, signal.SIGINT)
    made.wait_for("interrupted in source")
    made.wait_for("is as it was before")
    assert made.stop() == 130, made.text()
    assert (tmp_path / "dist/before").exists()
    assert not list((tmp_path / "dist.unfinished").glob("SHA256SUMS*"))
