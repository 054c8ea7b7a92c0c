"""A whole machine with its own kernel, in QEMU, with power to switch on and to cut,
memory that outlives a crash of the kernel (ERST), and a hardware watchdog.

The host's loopback is 10.0.2.2 inside; the hub's ports are forwarded in the
guest, so that the same connection string leads there.
"""

import json
import socket
import subprocess
import threading
from pathlib import Path

from machines import power
from machines.power import Life

HOST = "10.0.2.2"
# The guest's port of a shell of root's.
SHELL = 2323
# For how many seconds a boot is waited for: without KVM it takes about 20 s on an idle
# machine, and ten times as long on a busy one.
BOOT = 300
# After how many seconds the watchdog resets a machine on which nobody feeds it once it has been opened.
WATCHDOG = 10


class VirtualMachine:
    def __init__(self, root: Path, directory: Path) -> None:
        """A machine whose disk is filled from `root`."""
        self.kernel, = root.glob("boot/vmlinuz-*")
        self.initrd, = root.glob("boot/initrd.img-*")
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            # Where the guest's shell is reached on the host.
            self.shell = free.getsockname()[1]
        self.disk = directory / "disk.img"
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, self.disk, "1536M"], check=True)
        self.lives: list[Life] = []
        self._process: subprocess.Popen | None = None
        self._changed = threading.Condition()

    def power_on(self, clock: str = "utc") -> None:
        """Starts the machine, its clock chip at this date, or at the right one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            address = self.directory / "monitor"
            address.unlink(missing_ok=True)
            listener.bind(str(address))
            listener.listen()
            listener.settimeout(60)
            self._process = subprocess.Popen(
                # Without KVM: slower, but it works inside of virtual machines, too. With one processor: two that
                # are emulated were seen to wait for each other without end.
                ["qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-display", "none",
                 "-kernel", self.kernel, "-initrd", self.initrd,
                 # On a busy host the emulated timer may fail the kernel's test of timers, and the kernel then panics.
                 "-append", "root=/dev/vda rw quiet console=ttyS0 no_timer_check panic=1",
                 "-drive", f"file={self.disk},format=raw,if=virtio", "-nic", f"user,model=virtio,hostfwd=tcp:127.0.0.1:{self.shell}-:{SHELL}",
                 "-rtc", f"base={clock}",
                 "-object", f"memory-backend-file,id=nv,mem-path={self.directory}/nv,size=64K,share=on",
                 "-device", "acpi-erst,memdev=nv", "-device", "i6300esb",
                 "-chardev", f"file,id=console,path={self.directory}/console,append=on", "-serial", "chardev:console",
                 "-qmp", f"unix:{address}"])
            monitor, _ = listener.accept()
        self.lives.append(Life())
        # QEMU's monitor protocol: it tells of events once its greeting was answered.
        monitor.sendall(b'{"execute":"qmp_capabilities"}')
        self._listener = threading.Thread(target=self._listen, args=[monitor], daemon=True)
        self._listener.start()

    def run(self, script: str) -> str:
        """What a script prints that is run in the guest as root, its complaints included."""
        with socket.create_connection(("127.0.0.1", self.shell), timeout=BOOT) as shell:
            shell.sendall(f"exec 2>&1\n{script}\nexit\n".encode())
            with shell.makefile() as said:
                return said.read()

    def crash(self, script: str) -> None:
        """Runs a script in the guest by which the machine is reset, and waits for that."""
        life = self.lives[-1]
        with socket.create_connection(("127.0.0.1", self.shell), timeout=BOOT) as shell:
            shell.sendall(f"{script}\n".encode())
            self.wait_reset(BOOT, life)

    def wait_reset(self, timeout: float, life: Life | None = None) -> None:
        """Waits until the guest itself has reset the machine in this life, or in any."""
        with self._changed:
            reset = self._changed.wait_for(
                lambda: any(one.end == power.REBOOT for one in ([life] if life else self.lives)), timeout)
        assert reset, f"no reset in {timeout} s"

    def cut_power(self) -> None:
        """SIGKILL to QEMU: what the guest had not synced is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            # Returns once all that QEMU had told until then was heard.
            self._listener.join()
            self.lives[-1].over(power.CUT)
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

    def journal(self, *options: str) -> str:
        """The journal's lines of all boots, after `boot_ids`."""
        command = ["journalctl", f"--directory={self.directory}/journal", "--quiet", "--no-pager", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def read(self, path: str) -> str:
        """A file on the disk, after `boot_ids`."""
        return subprocess.run(["debugfs", "-R", f"cat {path}", self.disk], check=True, capture_output=True, text=True).stdout

    def _listen(self, monitor: socket.socket) -> None:
        """Hears of each reset until QEMU ends."""
        last = 0.0
        with monitor, monitor.makefile() as events:
            for line in events:
                message = json.loads(line)
                if message.get("event") != "RESET" or not message["data"]["guest"]:
                    continue
                at = message["timestamp"]["seconds"] + message["timestamp"]["microseconds"] / 1e6
                # The kernel tries several ways to reset at once; a boot takes far longer.
                if at - last > 2:
                    with self._changed:
                        self.lives[-1].over(power.REBOOT)
                        self.lives.append(Life())
                        self._changed.notify_all()
                last = at


def prepare(root: Path, ports: list[int]) -> None:
    """Gives the machine a network, the hub's ports on its own loopback, a shell that the host can reach, and a
    patience of WATCHDOG seconds to the hardware's watchdog."""
    (root / "etc/modprobe.d/watchdog.conf").write_text(f"options i6300esb heartbeat={WATCHDOG}\n")
    (root / "etc/systemd/network/any.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=ipv4\n")
    units, system = ["systemd-networkd.service"], root / "etc/systemd/system"
    for port in ports:
        name = f"hub-{port}"
        (system / f"{name}.socket").write_text(
            f"[Socket]\nListenStream=127.0.0.1:{port}\n[Install]\nWantedBy=sockets.target\n")
        (system / f"{name}.service").write_text(
            f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {HOST}:{port}\n")
        units.append(f"{name}.socket")
    (system / "shell.socket").write_text(f"[Socket]\nListenStream={SHELL}\nAccept=yes\n[Install]\nWantedBy=sockets.target\n")
    (system / "shell@.service").write_text(
        "[Service]\nExecStart=-/bin/sh\nStandardInput=socket\nStandardError=journal\n")
    units.append("shell.socket")
    enable(root, *units)


def enable(root: Path, *units: str) -> None:
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", *units], check=True)
