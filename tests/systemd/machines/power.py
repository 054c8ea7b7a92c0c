"""The power of a machine, whatever it is made of."""

import math
import time
from dataclasses import dataclass, field

# How a life ended.
REBOOT = "reboot"
CUT = "cut"
OFF = "off"


@dataclass
class Life:
    """From switching on, or a reset, to whatever ended it."""

    began: float = field(default_factory=time.monotonic)
    end: str | None = None
    ended: float = math.inf
    # Whether the machine's systemd has said that all is up; only containers tell.
    up: bool = False

    def over(self, end: str) -> None:
        self.end, self.ended = end, time.monotonic()
