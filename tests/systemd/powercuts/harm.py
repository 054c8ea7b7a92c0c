"""What a power cut may do to the daemon's state directory besides, while the machine is off."""

import shutil
from collections.abc import Callable
from pathlib import Path

STATE = "var/lib/iotdm"
RECORD = f"{STATE}/state.json"


def empty(root: Path, _luck: float) -> bool:
    """As where /var is in memory, or an overlay that is thrown away. Whether anything was destroyed."""
    contents = list((root / STATE).iterdir())
    for path in contents:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return bool(contents)


def flip(root: Path, luck: float) -> bool:
    """One bit of the record, which one `luck` says, from 0 to 1."""
    record = root / RECORD
    if not record.exists():
        return False
    content = bytearray(record.read_bytes())
    bit = int(luck * len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    # In its place: owner and mode stay.
    record.write_bytes(content)
    return True


HARMS: dict[str, Callable[[Path, float], bool]] = {"emptied": empty, "flipped": flip}
