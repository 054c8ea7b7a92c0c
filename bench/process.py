"""What the kernel says about a process."""

import contextlib
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


def private_memory(pid: int) -> float:
    """The memory that nobody else has mapped, pages of files included, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", text, re.M))


def field(pid: int, name: str) -> float:
    """A field of its status, such as VmRSS, RssAnon or VmHWM in KiB."""
    return int(re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@dataclass
class Activity:
    cpu: float  # seconds
    wake_ups: int  # of its threads, by themselves: how often one had nothing to do and waited
    bytes: int  # on the wire both ways, of the connections that are open


def activity(pid: int) -> Activity:
    wake_ups = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # It has just ended.
            # The involuntary ones are of whoever else wants the processor.
            wake_ups += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M)[1])
    return Activity(cpu(pid), wake_ups, wire_bytes(pid))


def cpu(pid: int) -> float:
    """The processor time, threads that have ended included, in seconds."""
    # The clock of a process, as clock_getcpuclockid(3) makes it.
    return time.clock_gettime(~pid << 3 | 2)


def wire_bytes(pid: int) -> int:
    """The bytes of its TCP connections on the wire, with 52 bytes of headers for each segment: IPv4's, and TCP's with timestamps."""
    listed = subprocess.run(["ss", "-tinpHO"], check=True, capture_output=True, text=True).stdout
    count = 0
    for line in listed.splitlines():
        if f"pid={pid}," in line:
            told = {key: int(value) for key, value in re.findall(r"\b(\w+):(\d+)\b", line)}
            count += told.get("bytes_sent", 0) + told.get("bytes_received", 0)
            count += 52 * (told.get("segs_out", 0) + told.get("segs_in", 0))
    return count
