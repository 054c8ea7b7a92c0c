"""The counts of a campaign."""

from collections import Counter
from collections.abc import Iterable

from judges.verdict import FAULTS, Fault

COLUMNS = ["cuts", "before the answer", "answered", "rebooted by us", "completed", "uncleanBoot", "cancelled", "other",
           *FAULTS]
OUTCOMES = {"completed": "completed", "failed uncleanBoot": "uncleanBoot", "cancelled": "cancelled"}


class Tally:
    """Counts trials by the stage in which the power was cut, of `stages`."""

    def __init__(self, stages: Iterable[str]) -> None:
        self.rows = {stage: Counter() for stage in stages}
        self.trials = 0
        self.kinds: Counter = Counter()
        self.causes: Counter = Counter()
        self.on_disk: Counter = Counter()
        self.faults: list[Fault] = []
        # What ended the campaign early.
        self.stuck: list[str] = []

    def add(self, trial) -> None:
        """Counts a trial of `powercuts.trial`."""
        self.trials += 1
        verdict, asked = trial.verdict, trial.plan.kind != "local"
        self.rows[trial.plan.stage.name].update({
            "cuts": trial.cuts,
            "before the answer": trial.cuts_before_the_answer if asked else 0,
            "answered": asked and trial.answered_before_the_cut,
            "rebooted by us": verdict.reboots,
            OUTCOMES.get(verdict.outcome, "other"): 1,
            **Counter(fault.name for fault in verdict.faults),
        })
        self.kinds[trial.plan.kind] += 1
        self.causes.update(trial.causes)
        self.on_disk[trial.on_disk] += 1
        self.faults += verdict.faults

    def total(self, column: str) -> int:
        return sum(row[column] for row in self.rows.values())

    def cuts(self) -> int:
        return self.total("cuts")

    def before_the_answer(self) -> float:
        """The part of the cuts that fell before the device had answered."""
        return self.total("before the answer") / max(1, self.cuts())

    def failures(self) -> int:
        return len(self.faults) + len(self.stuck)

    def __str__(self) -> str:
        widths = [len(column) for column in COLUMNS]
        lines = [line("cut after", COLUMNS, widths)]
        lines += [line(stage, [row[column] for column in COLUMNS], widths) for stage, row in self.rows.items()]
        lines.append(line("all", [self.total(column) for column in COLUMNS], widths))
        lines.append(f"\nasked by: {listed(self.kinds)}")
        lines.append(f"boot causes reported: {listed(self.causes)}")
        lines.append(f"on disk at the cut: {listed(self.on_disk)}")
        lines += [f"WRONG: {fault}" for fault in self.faults]
        lines += [f"STUCK: {stuck}" for stuck in self.stuck]
        return "\n".join(lines)


def line(name: str, values: list, widths: list[int]) -> str:
    return f"{name:<12}" + "".join(f"  {value:>{width}}" for value, width in zip(values, widths, strict=True))


def listed(counts: Counter) -> str:
    return "; ".join(f"{name} {count}" for name, count in counts.most_common())
