"""tests/azure/run, which asks a real hub what nobody here knows: here another emulator stands for the service."""

import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from pyharness.hub import Hub
from pyharness.process import PATIENCE, Process
from pyharness.programs import ROOT

RUN = ROOT / "tests" / "azure" / "run"


@pytest.fixture
def service(tmp_path):
    with Hub(tmp_path / "service") as hub:
        yield hub


def command(service, *arguments, file=None):
    return [sys.executable, RUN, "--connection-string-file", file or service.service_file, "--ca-file", service.ca_file,
            "--mqtt-port", str(service.mqtt_port), *arguments]


def run(service, *arguments, **options):
    return subprocess.run(list(map(str, command(service, *arguments, **options))), capture_output=True, text=True,
                          timeout=PATIENCE, stdin=subprocess.DEVNULL)


def things(service):
    """What is on the service."""
    found = json.loads(service.done("device", "list", "--output", "json"))
    rows = service.done("query", "SELECT COUNT() AS n FROM devices.modules", "--output", "json")
    return len(found), rows.strip()


def test_questions_are_put_to_both_and_nothing_stays(service):
    before = things(service)
    # It has to be patient with a hub that throttles.
    service.fault("throttle", "--count", "1")
    only = ["connack-disabled", "illegal-will", "stale-etag", "edge-keys", "item-type", "configuration-etag", "put-keeps"]
    done = run(service, "--yes", "--output", "json", *(word for name in only for word in ("--only", name)))
    assert done.returncode == 0, done.stdout + done.stderr
    answers = {one["question"]: one for one in json.loads(done.stdout)["answers"]}
    assert sorted(answers) == sorted(only) and all(one["same"] for one in answers.values()), answers
    assert answers["connack-disabled"]["service"] == "CONNACK 5"
    assert answers["item-type"]["service"] == "Twin, Raw"
    assert things(service) == before


def test_what_is_interrupted_is_removed(service):
    before = things(service)
    # Where these tests run in the background of a shell, an interrupt is ignored by whoever inherits that.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with Process(command(service, "--yes", "--only", "token-expiry"), start_new_session=True, **heeding) as witness:
        witness.wait_for(r"^\[1/1\]")
        # The device that it makes is there until its token has expired, which takes seconds.
        while things(service) == before:
            assert time.monotonic() < witness.started + PATIENCE, witness.text()
        os.kill(witness.pid, signal.SIGINT)
        witness.wait_for(r"^interrupted")
    assert things(service) == before


def test_what_a_killed_run_has_left_is_removed_later(service):
    for id_ in ("iotdm-witness-0-a", "others"):
        service.create(id_)
    done = run(service, "--clean", "--yes")
    assert done.returncode == 0 and "1 removed" in done.stderr, done.stderr
    assert "others" in service.done("device", "list") and "witness" not in service.done("device", "list")


def test_nobody_is_asked_without_a_yes(service):
    done = run(service)
    assert done.returncode == 2 and "--yes" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("text, words", [
    (None, "cannot read"),
    ("hello", "HostName, SharedAccessKeyName, SharedAccessKey is missing"),
    ("HostName=h;DeviceId=d;SharedAccessKey=a2V5", "device's connection string"),
    ("HostName=h;SharedAccessKeyName=p;SharedAccessKey=?", "no base64"),
    ("HostName=nohub.invalid;SharedAccessKeyName=p;SharedAccessKey=a2V5", "nohub.invalid is not known"),
    ("HostName=127.0.0.1:1;SharedAccessKeyName=p;SharedAccessKey=a2V5", "127.0.0.1:1 cannot be reached"),
    ("HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5", "refuses the policy iothubowner"),
    ("{registryRead}", "refuses the policy registryRead"),
], ids=["no file", "no string", "device", "no key", "no name", "no port", "wrong key", "no right"])
def test_what_cannot_be_asked_is_told_in_words(service, tmp_path, text, words):
    file = tmp_path / "hub.txt"
    if text is not None:
        read = (service.data / "policies" / "registryRead").read_text()
        file.write_text(text.format(host=f"localhost:{service.https_port}", registryRead=read))
    done = run(service, "--yes", file=file)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_answers_that_differ_are_shown_so(capsys):
    loader = importlib.machinery.SourceFileLoader("witness", str(RUN))
    witness = importlib.util.module_from_spec(importlib.util.spec_from_loader("witness", loader))
    loader.exec_module(witness)
    hub = witness.Hub("h", "p", b"k")
    witness.show([(witness.QUESTIONS[0], "CONNACK 5", "CONNACK 5"), (witness.QUESTIONS[1], "\x1b[2J", "b")], hub, "text")
    shown = capsys.readouterr().out
    assert "1 answers differ" in shown and shown.count("DIFFERS") == 1 and "\x1b" not in shown
