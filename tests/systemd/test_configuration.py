"""Settings and secrets that cannot be used: the daemon names what is wrong, and its status is 78 for a wrong text, 1
for a file that is missing or cannot be read."""

from machines import gateways
from machines.gateways import DEVICE, UNIT

KEY = "c2VjcmV0"
DEVICE_STRING = f"HostName=hub.example;DeviceId=gw1;SharedAccessKey={KEY}"
SERVICE_STRING = f"HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey={KEY}"

# Settings, the connection string's file and its mode, and the words that say what is wrong.
MISTAKES = {
    "broken TOML": ("[hub\n", DEVICE_STRING, 0o600, "test.toml:1:"),
    "unknown key": ("[hub]\n\nkeepalive = '4m'\n", DEVICE_STRING, 0o600, "test.toml:3: unknown field `keepalive`"),
    "unknown section": ("[hubs]\n", DEVICE_STRING, 0o600, "test.toml:1: unknown field `hubs`"),
    "wrong type": ("[hub]\nkeep_alive = 240\n", DEVICE_STRING, 0o600, "test.toml:2: keep_alive: invalid type: integer"),
    "wrong value": ("[reboot]\nbackend = 'kexec'\n", DEVICE_STRING, 0o600, "test.toml:2: backend: unknown variant `kexec`"),
    "empty": ("", "", 0o600, "/secret is empty: write the device's connection string into it"),
    "only a newline": ("", "\n", 0o600, "/secret is empty"),
    "binary": ("", b"\x7fELF\xff\xfe\x00", 0o600, "/secret is not text; expected HostName="),
    "an operator's": ("", SERVICE_STRING, 0o600, "service connection string"),
    "in quotes": ("", f'"{DEVICE_STRING}"', 0o600, "/secret cannot be used: quotes stand around the connection string"),
    "UTF-16": ("", DEVICE_STRING.encode("utf-16"), 0o600, "/secret is text in UTF-16"),
    "no key": ("", "HostName=hub.example;DeviceId=gw1", 0o600, "SharedAccessKey"),
}

# The same of what may get better without a person who changes a text.
LATE = {
    "no such file": ("", None, 0o600, "/secret: No such file or directory"),
    "somebody else's file": ("", DEVICE_STRING, 0o000, "/secret: Permission denied"),
    "no such CAs": ("[hub]\nca_file = '/nowhere/ca.pem'\n", DEVICE_STRING, 0o600, "/nowhere/ca.pem: No such file"),
}


CASE = "/var/lib/case"


def check(machine, settings: str, secret: str | bytes | None, mode: int) -> str:
    """What the daemon says of these settings and this secret, run by a user that may not read everything; its exit status last."""
    place = machine.root / CASE[1:]
    machine.run("rm", "--recursive", "--force", CASE)
    (place / "agentd.toml.d").mkdir(parents=True)
    (place / "agentd.toml").write_text(f"[hub]\nconnection_string_file = '{CASE}/secret'\n")
    (place / "agentd.toml.d/test.toml").write_text(settings)
    if secret is not None:
        (place / "secret").write_bytes(secret if isinstance(secret, bytes) else secret.encode())
        (place / "secret").chmod(mode)
    machine.run("chown", "--recursive", "iotdm", CASE)
    daemon = f"iotdm-agentd --check-config --config {CASE}/agentd.toml 2>&1; echo status $?"
    return machine.run("setpriv", "--reuid=iotdm", "--clear-groups", "sh", "-c", daemon)


def test_each_mistake_is_named_and_ends_with_its_status(machine):
    machine.power_on()
    for status, cases in [(78, MISTAKES), (1, LATE)]:
        for name, (settings, secret, mode, words) in cases.items():
            said = check(machine, settings, secret, mode)
            assert words in said, f"{name}: {said}"
            assert said.endswith(f"status {status}\n"), f"{name}: {said}"
            assert KEY not in said, name


def test_what_can_be_used_is_shown_without_the_key(machine):
    machine.power_on()
    for secret, mode, warned in [(DEVICE_STRING, 0o600, False), (f"{DEVICE_STRING}\n", 0o644, True)]:
        said = check(machine, "", secret, mode)
        assert said.endswith("status 0\n"), said
        assert KEY not in said
        assert ("secret can be read by every user of this machine: give it to the user that the daemon runs as" in said) == warned, said


def test_a_packaged_secret_that_everybody_can_read_is_named_in_the_journal(machine, hub):
    gateways.configure(machine.root, hub)
    (machine.root / "etc/iotdm/connection-string").chmod(0o644)
    machine.power_on()
    gateways.enable(machine)
    machine.wait_journal("/etc/iotdm/connection-string can be read by every user", f"--unit={UNIT}")
    hub.wait_connected(DEVICE)
