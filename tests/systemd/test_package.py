"""The packages as files: what lintian, man, the shells and systemd-analyze say of them."""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from machines import package
from machines.gateways import NOTE, UNIT

SOURCE = Path(__file__).parents[2]
SECTIONS = {
    "man1/iotdm-ctl.1": ["SYNOPSIS", "OPTIONS", "SUBCOMMANDS", "EXIT STATUS", "FILES", "EXAMPLES"],
    "man1/iotdm-emulator.1": ["SYNOPSIS", "OPTIONS", "SUBCOMMANDS", "EXIT STATUS", "FILES", "EXAMPLES"],
    "man5/iotdm-agentd.toml.5": ["SYNOPSIS", "DESCRIPTION", "FILES", "EXAMPLES"],
    "man8/iotdm-agentd.8": ["SYNOPSIS", "OPTIONS", "EXIT STATUS", "FILES", "EXAMPLES"],
}
# With these, man writes what it would write to a terminal.
TERMINAL = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """All that the packages install."""
    root = tmp_path_factory.mktemp("packages")
    for name in package.NAMES:
        package.unpack(package.built(name, package.architecture()), root)
    return root


def said(*command, **options) -> str:
    """What a command prints, which is to succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout}"
    return done.stdout


def test_lintian_has_nothing_to_say():
    changes, = package.BUILT.glob(f"iotdm_*_{package.architecture()}.changes")
    assert said("lintian", "--pedantic", "--fail-on=pedantic", "--allow-root", changes) == ""


def test_what_administrators_have_to_know_is_shown_to_those_of_gateways(root):
    """By the next upgrade: apt-listchanges shows what is newer than the version that was installed."""
    news, = root.glob("usr/share/doc/*/NEWS.Debian.gz")
    assert news.parent.name == "iotdm-agentd"
    with gzip.open(news, "rt") as file:
        versions = re.findall(r"^iotdm \((.*)\)", file.read(), re.M)
    known = re.findall(r"^iotdm \((.*)\)", (SOURCE / "debian/changelog").read_text(), re.M)
    assert versions and set(versions) <= set(known)
    assert known[-1] not in versions, "nobody upgrades to the first one"


def test_manual_pages(root):
    pages = {str(page.relative_to(root / "usr/share/man"))[:-3]: page for page in root.glob("usr/share/man/man*/*.gz")}
    assert set(SECTIONS) < set(pages)
    for name, page in pages.items():
        command = ["man", "--warnings", "--encoding=UTF-8", "--local-file", page]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, env=TERMINAL)
        assert shown.stderr == "", name
        found = re.findall(r"^[A-Z][A-Z ]+$", shown.stdout, re.M)
        assert (found[0], found[-1]) == ("NAME", "SEE ALSO"), name
        assert set(SECTIONS.get(name, [])) <= set(found), name


def test_every_option_is_in_the_manual(root):
    for name in package.NAMES:
        page, = root.glob(f"usr/share/man/man[18]/{name}.[18].gz")
        text = said("man", "--local-file", page, env=TERMINAL)
        options = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", said(root / f"usr/bin/{name}", "--help"), re.M))
        assert options, name
        assert {option for option in options if option not in text} == set()


@pytest.mark.parametrize("name", package.NAMES)
def test_completions(root, name):
    share = root / "usr/share"
    bash = share / f"bash-completion/completions/{name}"
    # As bash itself does it: source the file, then call what it has registered.
    # Some scripts ask the program.
    complete = f"""
        PATH={root}/usr/bin:$PATH
        source {bash}
        registered=$(complete -p {name}) && [[ $registered =~ -F\\ ([^ ]+) ]]
        COMP_WORDS=({name} --) COMP_CWORD=1 COMP_LINE="{name} --"
        COMP_POINT=${{#COMP_LINE}}
        "${{BASH_REMATCH[1]}}" {name} -- {name}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert "--help" in said("bash", "-c", complete).split()
    said("zsh", "-n", share / f"zsh/vendor-completions/_{name}")
    said("fish", "--no-execute", share / f"fish/vendor_completions.d/{name}.fish")


@pytest.mark.parametrize(("name", "shipped", "with_namespaces"), [(UNIT, 13, 11), (NOTE, 5, 4)])
def test_the_units_are_as_closed_as_can_be(root, tmp_path, name, shipped, with_namespaces):
    """As shipped, and with the drop-in of the package's generator. The thresholds are ten times what is printed."""
    unit = shutil.copy(root / f"lib/systemd/system/{name}.service", tmp_path)

    def judged(threshold: int) -> str:
        return said("systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", "--no-pager", unit)

    assert "Overall exposure level" in judged(shipped)
    said(root / "lib/systemd/system-generators/iotdm-agentd-generator", tmp_path)
    assert re.search(r"✓ PrivateUsers=", judged(with_namespaces))


def test_the_unit_of_the_notice_is_as_closed_as_can_be(root):
    unit = root / "lib/systemd/system/iotdm-notice.service"
    judged = said("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit)
    assert "Overall exposure level" in judged


@pytest.mark.parametrize("name", package.NAMES)
def test_the_notices_of_all_that_is_linked_are_there(root, name):
    tree = said("cargo", "tree", f"--package={name}", "--edges=normal", "--prefix=none", "--format={p}", "--locked",
                cwd=SOURCE)
    # Such as "anyhow v1.0.0", and for our own crates a path after it.
    crates = {tuple(line.split()[:2]) for line in tree.splitlines() if line and "(/" not in line}
    with gzip.open(root / f"usr/share/doc/{name}/NOTICES.gz", "rt") as file:
        notices = file.read()
    named = dict(re.findall(r"^(\S+ \d\S*), .*\n(?:    http.*\n)?    (\[.*\])$", notices, re.M))
    assert {f"{crate} {version.removeprefix('v')}" for crate, version in crates} <= set(named)
    texts = set(re.findall(r"^(\[\d+\])$", notices, re.M))
    assert set(" ".join(named.values()).split()) == texts


def test_the_note_of_a_shutdown_is_written_again_and_again_and_taken_back(root):
    """Runs the unit's commands with a real /proc: what containers have in place of a boot id is an ordinary file."""
    unit = (root / f"lib/systemd/system/{NOTE}.service").read_text()
    start, stop = (shlex.split(re.search(rf"^Exec{when}=(.*)$", unit, re.M)[1]) for when in ["Start", "Stop"])
    with tempfile.TemporaryDirectory() as state:
        os.chmod(state, 0o777)
        note = Path(state, "last-shutdown")

        def run(command):
            said("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command, cwd=state, umask=0o077)

        for command in [start, stop, stop]:
            run(command)
        assert note.read_text() == Path("/proc/sys/kernel/random/boot_id").read_text()
        run(start)
        assert not note.exists()
        note.write_text("another boot\n")
        note.chmod(0o644)
        run(start)
        assert note.exists()


def test_the_catalogue_has_every_message(root):
    """Each id of the program has its entry, and no entry is of nothing."""
    program = re.findall(r'const \w+: &str = "([0-9a-f]{32})";', (SOURCE / "daemon/src/host/log.rs").read_text())
    catalogue = re.findall(r"^-- ([0-9a-f]{32})$", (root / "usr/lib/systemd/catalog/iotdm.catalog").read_text(), re.M)
    assert len(program) > 10
    assert sorted(program) == sorted(catalogue)
