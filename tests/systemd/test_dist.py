"""What `make dist` says of wrong use, and that nothing half-made looks like a release. What it makes is tested by `make dist-check`."""

import os
import re
import shutil
import signal
import subprocess
import time

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
    subprocess.run(["gpgconf", "--kill", "all"], env=environment(tmp_path), check=True)
    assert told.returncode == 1 and "KEY=ours cannot sign at the commit's instant, 2020-09-13" in told.stderr, told.stderr


def test_the_help_names_each_part(tmp_path):
    told = run(tmp_path, "--help")
    assert told.returncode == 0 and told.stderr == ""
    for part in ["source", "packages", "repository", "sbom", "static", "image"]:
        assert (ROOT / "packaging/dist" / part).exists() and f"\n  {part} " in told.stdout


def test_an_interruption_leaves_no_release(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "dist").mkdir()
    for name in ["before", "SHA256SUMS.asc"]:
        (tmp_path / "dist" / name).touch()
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


class Clone:
    """A repository with what a release is described by, and a small result of it in dist/, signed by "ours"."""

    def __init__(self, place) -> None:
        self.place, self.tree, self.dist = place, place / "tree", place / "dist"
        place.chmod(0o700)
        for folder in ["packaging/dist", "scripts"]:
            shutil.copytree(ROOT / folder, self.tree / folder)
        (self.tree / "debian").mkdir()
        for file in ["Cargo.toml", "CHANGELOG.md", "debian/changelog", "debian/control", "debian/copyright"]:
            shutil.copy(ROOT / file, self.tree / file)
        self.command("git", "init", "--quiet")
        self.commit()
        for name in ["ours", "strange"]:
            self.command("gpg", "--batch", "--quiet", "--passphrase", "", "--faked-system-time", "1600000000!",
                         "--quick-generate-key", name, "ed25519", "sign", "0")
        pool = self.dist / "debian/pool/bookworm"
        pool.mkdir(parents=True)
        for arch in ["amd64", "arm64"]:
            content = self.place / arch
            (content / "DEBIAN").mkdir(parents=True)
            (content / "DEBIAN/control").write_text(
                f"Package: iotdm-ctl\nVersion: 1\nArchitecture: {arch}\nMaintainer: us <us@example.org>\nDescription: small\n")
            self.command("dpkg-deb", "--root-owner-group", "--build", str(content), str(pool))
            (self.dist / f"iotdm-emulator_{self.version()}_linux-{arch}").write_text("a program\n")
        (self.dist / "COMMIT").write_text(self.command("git", "rev-parse", "HEAD"))
        self.sign()

    def command(self, *command: str, **variables: str) -> str:
        done = subprocess.run(command, cwd=self.tree, env=environment(self.place, **variables), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def commit(self) -> None:
        self.command("git", "add", "--all")
        self.command("git", "-c", "user.name=us", "-c", "user.email=us@example.org", "commit", "--quiet", "--allow-empty", "--message", "Change")

    def replace(self, file: str, old: str, new: str) -> None:
        text = (self.tree / file).read_text()
        assert old in text
        (self.tree / file).write_text(text.replace(old, new, 1))
        self.commit()

    def version(self) -> str:
        return (self.tree / "Cargo.toml").read_text().partition('\nversion = "')[2].partition('"')[0]

    def sign(self) -> None:
        for part in ["repository", "sums"]:
            self.command(f"packaging/dist/{part}", KEY="ours")

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run([self.tree / "packaging/dist/run", *arguments], env=environment(self.place, **variables), capture_output=True, text=True)

    def refuses(self, *arguments: str, **variables: str) -> str:
        """What is said to that, which changes nothing."""
        before = {file: file.read_bytes() for file in self.dist.rglob("*") if file.is_file()}
        refused = self.run(*arguments, **variables)
        assert refused.returncode == 1, refused.stdout + refused.stderr
        assert before == {file: file.read_bytes() for file in self.dist.rglob("*") if file.is_file()}
        assert not (self.place / "dist.unfinished").exists()
        return refused.stderr

    def signer_is_in(self, keyring: str) -> None:
        self.command("gpg", "--batch", "--dearmor", "--yes", "--output", str(self.place / "key.gpg"), str(self.dist / keyring))
        self.command("gpgv", "--keyring", str(self.place / "key.gpg"), str(self.dist / "SHA256SUMS.asc"), str(self.dist / "SHA256SUMS"))


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path)
    yield clone
    clone.command("gpgconf", "--kill", "all")


def test_a_prolonged_repository_keeps_what_it_does_not_make(clone):
    """Whatever SUITES and ARCHES say, and as often as it is done, from the next commit as well."""
    kept = "packages bookworm arm64: built with another profile than a release's: CARGO_PROFILE_RELEASE_LTO=off\n"
    (clone.dist / "TRIAL").write_text(kept + "repository: signed with a key that was made for this and thrown away (no KEY)\n")
    (clone.dist / "LEFT-OUT").write_text("packages bookworm armhf: there is no compiler\n")
    clone.sign()
    clone.commit()
    key = re.search("fpr:+([0-9A-F]+)", clone.command("gpg", "--with-colons", "--list-keys", "ours"))[1]
    versions = []
    for ago, expiry in [(60, "2y"), (30, "3y")]:
        # This changes the package of the key, and so has to change its version.
        clone.command("gpg", "--batch", "--quick-set-expire", key, expiry)
        told = clone.run("repository", KEY="ours", ARCHES="amd64", SUITES="trixie", SOURCE_DATE_EPOCH=str(int(time.time()) - ago),
                         DIST=f"{clone.dist}/")
        assert told.returncode == 3, told.stdout + told.stderr
        assert f"no release, but a trial: {kept}" in told.stdout
        assert (clone.dist / "TRIAL").read_text() == kept
        assert (clone.dist / "LEFT-OUT").read_text() == "packages bookworm armhf: there is no compiler\n"
        assert "\nArchitectures: amd64 arm64\n" in (clone.dist / "debian/dists/bookworm/Release").read_text()
        [keyring] = (clone.dist / "debian/pool/all").glob("*.deb")
        versions.append(clone.command("dpkg-deb", "--field", str(keyring), "Version").strip())
    clone.command("dpkg", "--compare-versions", versions[0], "lt", versions[1])
    clone.signer_is_in("debian/iotdm-archive-keyring.asc")


@pytest.mark.parametrize(("change", "named"), [
    (lambda dist: (dist / "debian/iotdm.sources").write_text("Types: deb\n"), "is not as it was signed: debian/iotdm.sources: FAILED"),
    (lambda dist: (dist / "debian/iotdm.sources").unlink(), "debian/iotdm.sources"),
    (lambda dist: (dist / "debian/more").write_text("more\n"), "is not as it was signed: it has debian/more besides"),
    (lambda dist: (dist / "SHA256SUMS").write_text(""), "is signed by none of the keys that are given"),
], ids=["altered", "removed", "added", "unsigned"])
def test_what_was_altered_is_not_signed_again(change, named, clone):
    change(clone.dist)
    assert named in clone.refuses("repository", KEY="ours")
    # Nor for a trial.
    assert named.partition(" by none")[0] in clone.refuses("repository")


def test_another_key_is_given_and_comes_with_a_repository_of_its_own(clone):
    assert "OLD_KEY=nobody: gpg has no key" in clone.refuses("image", KEY="strange", OLD_KEY="nobody")
    assert "signed by none of the keys that are given; name the one" in clone.refuses("image", KEY="strange")
    told = clone.run("image", KEY="strange", OLD_KEY="ours")
    assert told.returncode == 0, told.stdout + told.stderr
    clone.signer_is_in("debian/iotdm-archive-keyring.asc")
    trial = clone.run("image")
    assert trial.returncode == 0 and "no release, but a trial: repository: signed with a key that was made for this" in trial.stdout
    clone.signer_is_in("debian/iotdm-archive-keyring.asc")


def test_parts_of_different_commits_become_no_release(clone):
    first = clone.command("git", "rev-parse", "HEAD").strip()
    clone.commit()
    assert f"is of commit {first}, and this is " in clone.refuses("image", KEY="ours")
    (clone.dist / "COMMIT").unlink()
    clone.sign()
    assert "does not say of which commit it is" in clone.refuses("image", KEY="ours")


def test_a_folder_with_something_else_is_not_taken(tmp_path):
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/letters").touch()
    told = run(tmp_path)
    assert told.returncode == 1 and "holds something else than a result of make dist" in told.stderr
    assert (tmp_path / "dist/letters").exists()
    (tmp_path / "dist/letters").unlink()
    (tmp_path / "dist.replaced").mkdir()
    told = run(tmp_path)
    assert told.returncode == 1 and f"{tmp_path}/dist.replaced/; keep that as" in told.stderr
    assert (tmp_path / "dist.replaced").exists()


@pytest.mark.parametrize(("file", "new", "named"), [
    ("debian/changelog", "99.1-1", "debian/changelog begins with 99.1-1, which is of 99.1"),
    ("CHANGELOG.md", "## [99.1]", "the newest in CHANGELOG.md is 99.1"),
    ("Cargo.toml", '\nversion = "99.1-rc.1"', "Cargo.toml has version 99.1-rc.1"),
])
def test_versions_that_differ_are_told(file, new, named, clone):
    version = clone.version()
    packaged = (clone.tree / "debian/changelog").read_text().partition("(")[2].partition(")")[0]
    old = {"debian/changelog": packaged, "CHANGELOG.md": f"## [{version}]", "Cargo.toml": f'\nversion = "{version}"'}[file]
    clone.replace(file, old, new)
    assert named in clone.refuses(KEY="ours")


def test_a_version_is_behind_a_tilde_in_debian_and_unreleased_changes_make_a_trial(clone):
    version = clone.version()
    packaged = (clone.tree / "debian/changelog").read_text().partition("(")[2].partition(")")[0]
    clone.replace("Cargo.toml", f'\nversion = "{version}"', '\nversion = "99.1-rc.1"')
    clone.replace("debian/changelog", f"({packaged}) bookworm;", "(99.1~rc.1-1) UNRELEASED;")
    clone.replace("CHANGELOG.md", f"## [{version}]", "## [Unreleased]\n\n* One.\n\n## [99.1-rc.1]")
    (clone.dist / "COMMIT").write_text(clone.command("git", "rev-parse", "HEAD"))
    for old in clone.dist.glob("iotdm-emulator_*"):
        old.rename(str(old).replace(version, "99.1-rc.1"))
    clone.sign()
    told = clone.run("image", KEY="ours")
    assert told.returncode == 0, told.stdout + told.stderr
    assert [line.partition(" changes")[0] for line in (clone.dist / "TRIAL").read_text().splitlines()] == [
        "source: CHANGELOG.md has", "source: debian/changelog has 99.1~rc.1-1 as UNRELEASED"]
