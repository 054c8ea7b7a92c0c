"""A running program, and what it says."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# How long, in seconds, a line or an end may take: enough for a loaded machine,
# as it only passes when something is wrong.
PATIENCE = 60


class Line(NamedTuple):
    """A line, and when it came, in seconds of the monotonic clock."""

    at: float
    text: str


class Said(NamedTuple):
    """A line that was waited for: when it came, and the match of the pattern."""

    at: float
    match: re.Match


class Process:
    """A running program whose lines, of both outputs unless `stderr` goes elsewhere, are kept.

    `listener` is told each line as it comes, and the file `log` gets them
    appended. With `terminal` the program writes to one, on which programs give
    each line at once. Further options are those of Popen.
    """

    def __init__(self, command: Sequence, *, terminal: bool = False, listener: Callable[[str], object] | None = None,
                 log: Path | None = None, **options) -> None:
        self.lines: list[Line] = []
        self._listener = listener
        self._news = threading.Condition()
        self._ended = False
        ours, theirs = pty.openpty() if terminal else os.pipe()
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stderr", theirs)
        self.started = time.monotonic()
        self._process = subprocess.Popen(list(map(str, command)), stdout=theirs, **options)
        os.close(theirs)
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, args=[ours, log], daemon=True)
        self._reader.start()

    def _read(self, source: int, log: Path | None) -> None:
        rest = b""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(log, "a")) if log else None
            # An error is how a terminal ends.
            stack.enter_context(contextlib.suppress(OSError))
            while news := os.read(source, 65536):
                now = time.monotonic()
                *whole, rest = (rest + news).split(b"\n")
                texts = [line.decode(errors="replace").rstrip("\r") for line in whole]
                if file:
                    file.writelines(f"{text}\n" for text in texts)
                    file.flush()
                with self._news:
                    self.lines += [Line(now, text) for text in texts]
                    self._news.notify_all()
                for text in texts if self._listener else ():
                    self._listener(text)
        os.close(source)
        with self._news:
            self._ended = True
            self._news.notify_all()

    def text(self) -> str:
        """All that was said so far."""
        return "\n".join(line.text for line in self.lines)

    def wait_for(self, pattern: str, nth: int = 1, patience: float = PATIENCE) -> Said:
        """The nth line, past or to come, that has `pattern`; fails at once when the program ends without it."""

        def found() -> list[Said]:
            matches = (Said(line.at, re.search(pattern, line.text)) for line in self.lines)
            return [said for said in matches if said.match][nth - 1:nth]

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, patience)
            if said := found():
                return said[0]
            why = "it has ended" if self._ended else f"{patience} s have passed"
        raise AssertionError(f"no {pattern!r} from {self._process.args}, {why}:\n" + self.text()[-4000:])

    def tell(self, line: str) -> None:
        """Writes a line to its input, which `stdin=subprocess.PIPE` has to have made."""
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def stop(self) -> int:
        """Asks it to end and waits for that; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._end(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._end(None)

    def _end(self, patience: float | None) -> int:
        code = self._process.wait(patience)
        # With all that it said until then, unless a child of it keeps its output open.
        self._reader.join(timeout=1)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            self.stop()
