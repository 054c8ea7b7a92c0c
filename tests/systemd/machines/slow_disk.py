"""A disk on which the daemon's fsync and rename take their time."""

import subprocess
from pathlib import Path

from machines.gateways import UNIT

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = "usr/lib/iotdm-slow-disk.so"


def install(root: Path, *, fsync: int = 0, rename: int = 0) -> None:
    """Adds so many milliseconds to each, from the daemon's next start on. A record that it writes takes two fsyncs and
    a rename."""
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", root / LIBRARY, SOURCE], check=True)
    drop_in = root / f"etc/systemd/system/{UNIT}.service.d/slow-disk.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(f"[Service]\nEnvironment=LD_PRELOAD=/{LIBRARY} SLOW_FSYNC_MS={fsync} SLOW_RENAME_MS={rename}\n")
