"""The emulator's image: as a file, and as it runs."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import release
from pyharness.process import Process
from pyharness.programs import ROOT

EXCHANGE = Path(__file__).with_name("exchange.py")


def blobs(name: str) -> dict[str, bytes]:
    with tarfile.open(release.the(name)) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive.getmembers() if one.isfile()}


def blob(files: dict[str, bytes], described: dict) -> bytes:
    content = files[f"blobs/sha256/{described['digest'].removeprefix('sha256:')}"]
    assert len(content) == described["size"] and hashlib.sha256(content).hexdigest() == described["digest"].removeprefix("sha256:")
    return content


def held_by(layer: bytes, arch: str, config: dict) -> None:
    """The layer has the static program alone, and the configuration is of it."""
    assert config["architecture"] == arch
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["User"] == "65532:65532" and config["config"]["Volumes"] == {"/data": {}}
    assert config["config"]["Healthcheck"]["Test"] == ["CMD", "/usr/bin/iotdm-emulator", "health"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        held = {one.name: one for one in archive.getmembers()}
        program = archive.extractfile(held["usr/bin/iotdm-emulator"]).read()
    assert set(held) == {"data", "usr", "usr/bin", "usr/bin/iotdm-emulator"}
    assert held["data"].uid == 65532 and held["data"].mode == 0o700
    assert program == release.the(f"iotdm-emulator_{release.version()}_linux-{arch}").read_bytes()


def architectures() -> list[str]:
    return sorted(file.name.rpartition("-")[2] for file in release.DIST.glob("iotdm-emulator_*_linux-*"))


def test_the_oci_image_is_well_formed_and_has_each_architecture():
    files = blobs(f"iotdm-emulator_{release.version()}.oci.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [top] = json.loads(files["index.json"])["manifests"]
    assert top["annotations"]["org.opencontainers.image.ref.name"] == f"localhost/iotdm-emulator:{release.version()}"
    manifests = json.loads(blob(files, top))["manifests"]
    assert [one["platform"] for one in manifests] == [{"architecture": arch, "os": "linux"} for arch in architectures()]
    for described in manifests:
        manifest = json.loads(blob(files, described))
        [layer] = manifest["layers"]
        held_by(gzip.decompress(blob(files, layer)), described["platform"]["architecture"], json.loads(blob(files, manifest["config"])))


@pytest.mark.parametrize("arch", architectures() or ["missing"])
def test_the_archive_for_docker_has_the_same(arch):
    files = blobs(f"iotdm-emulator_{release.version()}_{arch}.docker.tar")
    [manifest] = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == [f"localhost/iotdm-emulator:{release.version()}"]
    [layer] = manifest["Layers"]
    held_by(gzip.decompress(files[layer]), arch, json.loads(files[manifest["Config"]]))


class Podman:
    """Podman with a store of its own, in a network of its own, so that the standard ports are free."""

    def __init__(self, place: Path) -> None:
        settings = place / "containers.conf"
        # It may be a container itself, where neither control groups nor limits can be set.
        settings.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\ncgroups = "disabled"\n'
                            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "crun"\n')
        self.environment = {**os.environ, "CONTAINERS_CONF": str(settings), "TMPDIR": str(place)}
        # Where control groups of both versions are, the runtime takes those of the first alone.
        enter = "ip link set lo up && { ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; } && echo ready && exec sleep infinity"
        self._world = Process(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", enter])
        self._world.wait_for("^ready")
        self.inside = ["nsenter", "--target", str(self._world.pid), "--net", "--mount"]
        self._command = [*self.inside, "podman", "--root", place / "store", "--runroot", place / "run", "--storage-driver", "vfs"]

    def command(self, *arguments) -> list[str]:
        return [*map(str, self._command), *map(str, arguments)]

    def run(self, *arguments, wrong: bool = False) -> str:
        done = subprocess.run(self.command(*arguments), env=self.environment, capture_output=True, text=True)
        assert wrong or done.returncode == 0, f"podman {arguments}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if wrong else "")

    def close(self) -> None:
        self.run("rm", "--all", "--force", "--time", "0", wrong=True)
        self._world.kill()


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    for tool in ["podman", "crun"]:
        if not shutil.which(tool):
            pytest.skip(f"left out: the image is not run, as there is no {tool} here")
    podman = Podman(tmp_path_factory.mktemp("podman"))
    try:
        podman.run("load", "--input", release.the(f"iotdm-emulator_*_{release.own_architecture()}.docker.tar"))
        yield podman
    finally:
        podman.close()


@pytest.fixture
def image() -> str:
    return f"localhost/iotdm-emulator:{release.version()}"


# What a careful administrator takes from it: it works without.
LOCKED = ["--network", "host", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges",
          "--volume", "hub:/data"]


def test_the_official_sdk_talks_to_the_image_as_a_ci_service_starts_it(podman, image, tmp_path):
    """Without any argument, as services of GitHub Actions are started; see packaging/examples/emulator-github-actions.yml."""
    hub = Process(podman.command("run", "--rm", "--name", "hub", *LOCKED, image), env=podman.environment)
    try:
        hub.wait_for("^ready mqtts=0.0.0.0:8883 https=0.0.0.0:8443 data=/data/iotdm-emulator$")
        assert podman.run("inspect", "--format", "{{.Config.User}}", "hub").strip() == "65532:65532"
        podman.run("exec", "hub", "/usr/bin/iotdm-emulator", "health")
        # What the image itself names as its check.
        podman.run("healthcheck", "run", "hub")
        podman.run("cp", "hub:/data/iotdm-emulator", tmp_path)
        said = subprocess.run([*podman.inside, sys.executable, EXCHANGE, tmp_path / "iotdm-emulator"], capture_output=True, text=True, timeout=400)
        assert said.returncode == 0 and said.stdout.strip().endswith("exchanged"), said.stdout + said.stderr
        assert hub.stop() == 0, hub.text()
    finally:
        podman.run("rm", "--force", "--ignore", "--time", "0", "hub")


def test_the_state_stays_in_the_volume_and_names_and_ports_are_the_users(podman, image, tmp_path):
    hub = Process(podman.command("run", "--rm", "--name", "named", *LOCKED, image, "serve", "--bind", "127.0.0.1", "--host", "hub.example",
                                 "--host", "localhost", "--mqtt-port", "8884", "--https-port", "8444", "--device", "gw2"),
                  env=podman.environment)
    try:
        hub.wait_for("^ready mqtts=127.0.0.1:8884 https=127.0.0.1:8444 ")
        podman.run("exec", "named", "/usr/bin/iotdm-emulator", "health")
        podman.run("cp", "named:/data/iotdm-emulator", tmp_path)
        devices = tmp_path / "iotdm-emulator/devices"
        assert "HostName=hub.example" in (devices / "gw2").read_text()
        # This one is from the test before, in the same volume.
        assert (devices / "made-by-the-sdk").exists()
        # A hub that is stopped serves nobody, and the check says so.
        podman.run("kill", "--signal", "STOP", "named")
        refused = subprocess.run(podman.command("healthcheck", "run", "named"), env=podman.environment, capture_output=True, text=True)
        assert refused.returncode != 0
        podman.run("kill", "--signal", "CONT", "named")
        assert hub.stop() == 0, hub.text()
    finally:
        podman.run("rm", "--force", "--ignore", "--time", "0", "named")


def test_of_all_architectures_podman_takes_its_own(podman):
    archive = release.the(f"iotdm-emulator_{release.version()}.oci.tar")
    assert podman.run("pull", "--quiet", f"oci-archive:{archive}").strip()
    podman.run("run", "--rm", "--network", "none", f"localhost/iotdm-emulator:{release.version()}", "--version")


@pytest.mark.parametrize("example", sorted((ROOT / "packaging/examples").glob("emulator-*")), ids=lambda example: example.name)
def test_the_examples_name_this_version(example):
    assert f"iotdm-emulator:{release.version()}" in example.read_text()
