"""The device's key is where it has to be, and nowhere else."""

from machines.gateways import DEVICE, UNIT

KEPT = "etc/iotdm/connection-string"


def test_the_key_is_nowhere_to_be_found(gateway, hub):
    asked = hub.ctl("reboot", DEVICE, "--delay", "1h", "--no-wait")
    assert asked.returncode == 0, asked.stderr
    key = (gateway.root / KEPT).read_text().split("SharedAccessKey=")[1].split(";")[0].strip()
    assert len(key) > 20

    journal = gateway.journal("--output=export")
    assert f"_SYSTEMD_UNIT={UNIT}.service" in journal, "the daemon's own words are among them"
    assert key not in journal
    # What other programs can be asked to print. find's own arguments do not have the key.
    (gateway.root / "root/key").write_text(key)
    search = "grep --fixed-strings --files-with-matches --no-messages --file=/root/key"
    assert gateway.run("sh", "-c", f"{search} /proc/[0-9]*/cmdline /proc/[0-9]*/environ", check=False) == ""
    # The control: the same search finds the key where it has to be.
    everywhere = f"{search} --recursive /etc /var/lib/iotdm /usr/lib/systemd /run/systemd /tmp /var/tmp"
    assert gateway.run("sh", "-c", everywhere, check=False) == f"/{KEPT}\n"

    assert gateway.run("stat", "--format=%U %a", f"/{KEPT}", "/var/lib/iotdm") == "root 600\niotdm 700\n"
    assert gateway.run("find", "/var/lib/iotdm", "-type", "f", "-perm", "/077") == ""
    assert "/var/lib/iotdm/state.json\n" in gateway.run("find", "/var/lib/iotdm", "-type", "f")
    # The control: these users do read what everybody may.
    others = "for user in nobody daemon; do setpriv --reuid=$user --clear-groups cat " \
             f"/{KEPT} /run/credentials/{UNIT}.service/connection-string /var/lib/iotdm/state.json /etc/hostname; done"
    assert gateway.run("sh", "-c", others, check=False) == 2 * gateway.run("cat", "/etc/hostname")


def test_no_core_file_is_written(gateway):
    """Neither as shipped nor where somebody has lifted the limit."""
    # Where the kernel writes core files is the host's affair, so this asks for
    # what the kernel goes by: the files in /proc of a process that leaves no core file belong to root, not to its user.
    daemon = gateway.show(UNIT, "MainPID")["MainPID"]
    assert gateway.run("stat", "--format=%U", f"/proc/{daemon}/environ", f"/proc/{daemon}/mem") == "root\nroot\n"
    assert "Max core file size        0                    0" in gateway.run("cat", f"/proc/{daemon}/limits")

    drop_in = gateway.root / f"etc/systemd/system/{UNIT}.service.d/core.conf"
    drop_in.write_text("[Service]\nLimitCORE=infinity\nWorkingDirectory=/var/lib/iotdm\nRestartSec=1h\n")
    gateway.run("systemctl", "daemon-reload")
    gateway.run("systemctl", "restart", UNIT)
    # The control: the same signal, the same limit, another program.
    gateway.run("mkdir", "--mode=777", "/var/lib/control")
    gateway.run("systemd-run", "--quiet", "--unit=control", "--uid=iotdm", "--property=LimitCORE=infinity",
                "--property=WorkingDirectory=/var/lib/control", "sleep", "infinity")
    ends = {}
    for unit in [UNIT, "control"]:
        gateway.run("systemctl", "kill", "--signal=ABRT", unit)
        ends[unit] = gateway.wait_journal("Main process exited, code=.*, status=6/ABRT", f"--unit={unit}")
    assert "code=killed" in ends[UNIT]
    assert gateway.run("find", "/var/lib/iotdm", "-name", "*core*") == ""
    # Where the host hands core files to a program, the machine sees none, not even of the control.
    if not gateway.run("cat", "/proc/sys/kernel/core_pattern").startswith("|"):
        assert "code=dumped" in ends["control"]
