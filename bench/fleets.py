"""How long a fleet takes: the tables of docs/scale.md, from IoT Hub's documented limits.

`python3 bench/fleets.py` writes them anew; `--check` only tells whether they are up
to date. Whoever has another fleet changes the numbers below.
"""

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent
PAGE, RESULTS = BENCH.parent / "docs/scale.md", BENCH / "RESULTS.md"

# Assumptions about a device. Times are in seconds, sizes in KB.
AWAY = 90  # from the call until the device is back and well
TWIN, REPORT, CALL, REPLY, ROW = 3, 0.8, 0.3, 0.4, 0.5
REPORTS = 3  # rebooting; completed, with rebootTime; health
ROWS = 100  # of a page of a query
INTERVAL = 30  # of --interval: how often the outcome is looked for
FLEETS = (1_000, 10_000, 100_000, 1_000_000)
FREE = 500  # devices that a free hub has at most


@dataclass
class Tier:
    """So many units of a tier; limits in a second unless they are named otherwise."""

    name: str
    units: int
    messages: int  # in a day, of one unit
    meter: float  # KB that are one message
    methods: float  # of up to 4 KB
    queries: float
    reads: float
    updates: float
    job_operations: float
    connections: float


def tier(name: str, units: int) -> Tier:
    """Source: Microsoft Learn, "IoT Hub quotas and throttling" and "Choose the right IoT Hub tier and size for your solution"; how many devices a free hub has, "Azure IoT Hub pricing"."""
    u = units
    if name == "S3":
        return Tier(name, u, 300_000_000, 4, 6000 * u, 1000 / 60 * u, 500 * u, 250 * u, 50 * u, 6000 * u)
    if name == "S2":
        return Tier(name, u, 6_000_000, 4, 120 * u, 20 / 60 * u, max(100, 10 * u), max(50, 5 * u), max(10, u), 120 * u)
    day, meter = (8_000, 0.5) if name == "F1" else (400_000, 4)
    return Tier(name, u, day, meter, 40 * u, 20 / 60 * u, 100, 50, 10, max(100, 12 * u))


TIERS = [tier(*of) for of in (("F1", 1), ("S1", 1), ("S1", 10), ("S1", 200), ("S2", 1), ("S2", 10), ("S2", 200), ("S3", 1), ("S3", 10))]


@dataclass
class Way:
    """What one device of a fleet takes, by its operator, the hub and itself."""

    heading: str
    calls: float = 0
    queries: float = 1 / ROWS
    reads: float = 0  # by the operator
    updates: float = 0  # by the operator or the hub itself
    notices: float = 0  # that the device gets of changes
    job_operations: float = 0

    def in_flight(self) -> float:
        """How long a device is in flight, in seconds: the operator finds that it is back half an interval later, on average."""
        return AWAY + (INTERVAL / 2 if self.reads else 0)

    def messages(self, t: Tier) -> float:
        """How many messages of the day's quota a device takes."""
        def of(kb: float) -> int:
            return math.ceil(kb / t.meter)

        # A result is billed by its size as a whole.
        page = of(ROW * ROWS) * self.queries
        called = (self.calls + self.job_operations) * (of(CALL) + of(REPLY))
        return page + called + (self.reads + 1) * of(TWIN) + REPORTS * of(REPORT) + (self.updates + self.notices) * of(CALL)

    def limits(self, t: Tier) -> dict[str, float]:
        """How many devices in a second each of the hub's throttles lets through, once they are selected."""
        takes = {
            "calls": (t.methods, self.calls), "twin reads": (t.reads, self.reads + 1),
            "twin updates": (t.updates, self.updates + REPORTS), "job operations": (t.job_operations, self.job_operations),
            "connections": (t.connections, 1)}
        return {what: limit / each for what, (limit, each) in takes.items() if each}


LOOKS = math.ceil(AWAY / INTERVAL)
WAYS = [
    Way("By method, `iotdm-ctl reboot --where`", calls=1, reads=LOOKS),
    Way("By wish, `--when-online`", reads=LOOKS, updates=2, notices=2),
    Way("By the hub's jobs, `--job`", queries=2 / ROWS, job_operations=1),
    Way("By automatic configuration, `--as-configuration`", queries=0, updates=1, notices=1),
]


def table(way: Way) -> str:
    lines = ["| tier | units | devices a second | limited by | away at once | devices in a day's messages | "
             + " | ".join(f"{count:,}" for count in FLEETS) + " |", "|---|---:|---:|---|---:|---:|" + "---:|" * len(FLEETS)]
    for t in TIERS:
        limits = way.limits(t)
        by = min(limits, key=limits.get)
        rate, in_a_day = limits[by], t.messages * t.units / way.messages(t)
        # All devices are selected before the first is asked.
        times = [span(count * (way.queries / t.queries + 1 / rate) + way.in_flight(), count / in_a_day)
                 if t.name != "F1" or count <= FREE else "–" for count in FLEETS]
        cells = [t.name, f"{t.units}", short(rate), by, f"{math.ceil(round(rate * way.in_flight(), 6)):,}", f"{math.floor(in_a_day):,}", *times]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def span(seconds: float, days_of_quota: float) -> str:
    """The time that a fleet takes; where a day's messages do not do, how many days' messages it needs."""
    if days_of_quota > 1:
        return f"{math.ceil(days_of_quota):,} days"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def formula() -> str:
    """The numbers of one row, step by step."""
    way, t = WAYS[0], tier("S1", 1)
    limits = way.limits(t)
    least, selecting = min(limits.values()), 10_000 * way.queries / t.queries
    lines = [
        "```",
        f"looks at the twin      = {AWAY} s away / {INTERVAL} s of --interval        = {LOOKS}",
        f"calls                  = {t.methods:.0f} / 1                              = {limits['calls']:.0f} devices a second",
        f"twin reads             = {t.reads:.0f} / ({LOOKS} looks + 1 by the device)     = {limits['twin reads']:.0f} devices a second",
        f"twin updates           = {t.updates:.0f} / {REPORTS} reports                      = {limits['twin updates']:.1f} devices a second",
        f"the least of these     = {least:.1f} devices a second",
        f"selecting 10,000       = 10,000 / {ROWS} rows of a page / 20 pages a minute = {selecting:.0f} s",
        f"in flight              = {AWAY} s away + {INTERVAL} s / 2 until the next look  = {way.in_flight():.0f} s",
        f"away at once           = {least:.1f} devices a second x {way.in_flight():.0f} s     = {math.ceil(round(least * way.in_flight(), 6)):,} devices",
        f"10,000 devices         = {selecting:.0f} s + 10,000 / {least:.1f} + {way.in_flight():.0f} s    = {selecting + 10_000 / least + way.in_flight():,.0f} s",
        f"messages of a device   = {way.messages(t):.2f}; {t.messages:,} a day are those of {math.floor(t.messages / way.messages(t)):,} devices",
        "```"]
    return "\n".join(lines)


def measured() -> str:
    """What `make bench` measured of one operator's machine."""
    text = RESULTS.read_text()

    def median(what: str) -> str | None:
        row = re.search(rf"^\| {re.escape(what)} \| iotdm-ctl \| \S+ \| (\S+) \|", text, re.M)
        return row[1] if row else None

    lines = ["| devices, pretended | devices a second | CPU for each, ms | peak of memory, KiB |", "|---:|---:|---:|---:|"]
    for count in (100, 1_000, 10_000, 100_000):
        of = [median(f"{count:,} pretended devices rebooted: {what}")
              for what in ("devices a second", "CPU for each device, ms", "peak of memory, KiB")]
        if all(of):
            lines.append(f"| {count:,} | {' | '.join(of)} |")
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet: `make bench` fills this in."


def page() -> str:
    """The page with its tables as they should be."""
    text = PAGE.read_text()
    parts = {"formula": formula(), "measured": measured()} | {f"way {n}": table(way) for n, way in enumerate(WAYS, 1)}
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{part}\n\n{end}{rest.split(end)[1]}"
    return text


def write() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == page() else "docs/scale.md is not up to date: run python3 bench/fleets.py")
    write()
