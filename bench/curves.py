"""How costs grow, as pictures: one SVG for each thing that may be many or large."""

import math
import re
import statistics
from html import escape
from pathlib import Path

from table import Table, number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 240, 62, 14, 62, 46
COLOURS = ("#1f5fa8", "#c05a00", "#2f7d32", "#8e3a8e")
# A curve: its points, from the smallest on.
Points = list[tuple[float, float]]
# What a picture is of: its title, what grows, and how that is named in the table; then what is
# drawn, by its name in the table.
PICTURES = {
    "hub": ("The emulator, by the number of its devices", "devices", r"hub of ([\d,]+): (.*)", (
        "memory for each connection, KiB", "exec to ready with these devices, ms", "durable reports a second",
        "method round trips a second", "CPU for each method, µs")),
    "fleet": ("A fleet in one command, by its devices, beside the emulator", "devices", r"fleet of ([\d,]+): (.*)", (
        "devices a second", "CPU for each device, ms", "peak of memory, KiB")),
    "pretended": ("iotdm-ctl alone, by the devices of a fleet that are only pretended", "devices",
                  r"([\d,]+) pretended devices (?:planned|rebooted): (.*)", (
                      "devices a second", "CPU for each device, ms", "peak of memory, KiB")),
    "twin": ("A twin, by its size", "KB of properties", r"twin of ([\d,]+) KB: (.*)", (
        "durable reports a second", "exec to ready with these devices, ms", "iotdm-ctl twin show, ms",
        "iotdm-ctl twin show, peak of memory, KiB")),
    "history": ("Years of boots of one daemon", "boots that it has seen", r"history of ([\d,]+) boots: (.*)", (
        "its files, bytes", "exec to READY=1, ms", "peak of resident memory, KiB",
        "round trip of getBootHistory, median, ms")),
}


def draw(table: Table, folder: Path) -> list[Path]:
    """Writes the pictures of which there are at least two points; the files."""
    files = []
    for name, (title, grows, pattern, measures) in PICTURES.items():
        panels = {measure: curves(table, pattern, measure) for measure in measures}
        panels = {measure: lines for measure, lines in panels.items() if any(len(points) > 1 for points in lines.values())}
        if panels:
            files.append(folder / f"{name}.svg")
            files[-1].write_text(picture(title, grows, panels))
    return files


def curves(table: Table, pattern: str, measure: str) -> dict[str, Points]:
    """The medians of a measure, by whom they are of and what was done."""
    found: dict[str, Points] = {}
    for what, parties in table.values.items():
        match = re.fullmatch(pattern, what)
        if match and match[2] == measure:
            done = re.search(r"devices (planned|rebooted)", what)
            for whom, values in parties.items():
                name = f"{whom}, {done[1]}" if done else whom
                found.setdefault(name, []).append((float(match[1].replace(",", "")), statistics.median(values)))
    # Somebody of whom there is one value only makes no curve.
    return {whom: sorted(points) for whom, points in found.items() if len(points) > 1}


def picture(title: str, grows: str, panels: dict[str, dict[str, Points]]) -> str:
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width, height = columns * WIDTH, rows * HEIGHT + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" fill="#222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>']
    for nth, (measure, lines) in enumerate(panels.items()):
        x, y = nth % columns * WIDTH, nth // columns * HEIGHT + 34
        parts += [f'<g transform="translate({x} {y})">', *panel(measure, grows, lines), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def panel(measure: str, grows: str, lines: dict[str, Points]) -> list[str]:
    places = sorted({x for points in lines.values() for x, _ in points})
    low, high = math.log(places[0]), math.log(places[-1])
    top = ceiling(max(y for points in lines.values() for _, y in points))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (right - LEFT) * (math.log(x) - low) / (high - low)

    def up(y: float) -> float:
        return bottom - (bottom - TOP) * y / top

    parts = [f'<text x="12" y="16" font-weight="bold">{escape(measure)}</text>']
    for part in range(5):
        y = top * part / 4
        parts += [f'<path d="M{LEFT} {up(y):.1f}H{right}" stroke="#ddd"/>',
                  f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{number(y)}</text>']
    for x in places:
        anchor = "end" if x == places[-1] else "middle"
        parts.append(f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="{anchor}">{x:,.0f}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2:.0f}" y="{bottom + 34}" text-anchor="middle">{escape(grows)}</text>')
    for nth, (whom, points) in enumerate(lines.items()):
        colour = COLOURS[nth % len(COLOURS)]
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        column, row = nth % 2, nth // 2
        x, y = 12 + column * 160, 32 + row * 14
        parts += [f'<circle cx="{x + 4}" cy="{y - 4}" r="4" fill="{colour}"/>', f'<text x="{x + 12}" y="{y}">{escape(whom)}</text>']
    return parts


def ceiling(value: float) -> float:
    """The next value above that four lines divide into round ones."""
    step = 10 ** math.floor(math.log10(value)) if value > 0 else 1
    return next(step * factor for factor in (1, 1.2, 1.6, 2, 3, 4, 6, 8, 10, 12) if step * factor >= value)
