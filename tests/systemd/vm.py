"""A whole machine with its own kernel, in QEMU, with power to switch on and to cut.

The host's loopback is 10.0.2.2 inside; the hub's ports are forwarded in the
guest, so that the same connection string leads there.
"""

import json
import socket
import subprocess
from pathlib import Path

HOST = "10.0.2.2"


class VirtualMachine:
    def __init__(self, root: Path, directory: Path) -> None:
        """A machine whose disk is filled from `root`."""
        self.kernel, = root.glob("boot/vmlinuz-*")
        self.initrd, = root.glob("boot/initrd.img-*")
        self.directory = directory
        self.disk = directory / "disk.img"
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, self.disk, "1536M"], check=True)
        self._process: subprocess.Popen | None = None
        self._monitor: socket.socket | None = None

    def power_on(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            address = self.directory / "monitor"
            address.unlink(missing_ok=True)
            listener.bind(str(address))
            listener.listen()
            listener.settimeout(60)
            self._process = subprocess.Popen(
                # Without KVM: slower, but it works inside of virtual machines, too.
                ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-display", "none",
                 "-kernel", self.kernel, "-initrd", self.initrd, "-append", "root=/dev/vda rw quiet console=ttyS0",
                 "-drive", f"file={self.disk},format=raw,if=virtio", "-nic", "user,model=virtio",
                 "-chardev", f"file,id=console,path={self.directory}/console,append=on", "-serial", "chardev:console",
                 "-qmp", f"unix:{address}"])
            self._monitor, _ = listener.accept()
        # QEMU's monitor protocol: it tells of events once its greeting was answered.
        self._monitor.sendall(b'{"execute":"qmp_capabilities"}')
        self._events = self._monitor.makefile()

    def wait_reset(self, timeout: float) -> None:
        """Waits until the guest itself has reset the machine."""
        self._monitor.settimeout(timeout)
        for line in self._events:
            message = json.loads(line)
            if message.get("event") == "RESET" and message["data"]["guest"]:
                return
        raise AssertionError("QEMU ended")

    def cut_power(self) -> None:
        """SIGKILL to QEMU: what the guest had not synced is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._monitor.close()
            self._process = None

    def boot_ids(self) -> list[str]:
        """The boots in the disk's journal, oldest first. The machine must be off."""
        checked = subprocess.run(["e2fsck", "-p", self.disk], capture_output=True, text=True)
        assert checked.returncode in (0, 1), checked.stdout + checked.stderr
        subprocess.run(["debugfs", "-R", f"rdump /var/log/journal {self.directory}", self.disk],
                       check=True, capture_output=True)
        boots = subprocess.run(
            ["journalctl", f"--directory={self.directory}/journal", "--list-boots", "--quiet"],
            check=True, capture_output=True, text=True)
        return [line.split()[1] for line in boots.stdout.splitlines()]


def prepare(root: Path, ports: list[int]) -> None:
    """Gives the machine a network, and the hub's ports on its own loopback."""
    (root / "etc/systemd/network/any.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=ipv4\n")
    units = ["systemd-networkd.service"]
    for port in ports:
        name, system = f"hub-{port}", root / "etc/systemd/system"
        (system / f"{name}.socket").write_text(
            f"[Socket]\nListenStream=127.0.0.1:{port}\n[Install]\nWantedBy=sockets.target\n")
        (system / f"{name}.service").write_text(
            f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {HOST}:{port}\n")
        units.append(f"{name}.socket")
    enable(root, *units)


def enable(root: Path, *units: str) -> None:
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", *units], check=True)
