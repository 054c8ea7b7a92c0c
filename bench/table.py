"""What was measured, as tables in Markdown."""

import statistics
from collections import defaultdict


class Table:
    """Values by what was measured and of whom, in the order in which they came."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, what: str, whom: str, value: float) -> None:
        self.values[what][whom].append(value)

    def median(self, what: str, whom: str) -> float | None:
        values = self.values.get(what, {}).get(whom)
        return statistics.median(values) if values else None

    def rows(self):
        """What, whom, the values, and the ratio of the first one's median to this one's."""
        for what, parties in self.values.items():
            ours = statistics.median(next(iter(parties.values())))
            for n, (whom, values) in enumerate(parties.items()):
                theirs = statistics.median(values)
                yield what, whom, values, None if n == 0 or not theirs else ours / theirs

    def markdown(self) -> str:
        lines = ["| what | of | min | median | max | runs | ours to it |", "|---|---|---:|---:|---:|---:|---:|"]
        last = None
        for what, whom, values, ratio in self.rows():
            cells = [number(f(values)) for f in (min, statistics.median, max)]
            lines.append(f"| {what if what != last else ''} | {whom} | {' | '.join(cells)} | {len(values)} | "
                         f"{'' if ratio is None else f'{number(ratio)} ×'} |")
            last = what
        return "\n".join(lines)


def number(value: float) -> str:
    """A value as text, with three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 0.1 else f"{value:.2g}"
