"""The counts of a campaign."""

from collections import Counter
from collections.abc import Iterable

COLUMNS = ["cuts", "sent", "answered 200", "not answered", "rebooted by us", "completed", "uncleanBoot",
           "duplicates", "losses", "wrong"]


class Tally:
    """Counts trials by the stage in which the power was cut, of `stages`."""

    def __init__(self, stages: Iterable[str]) -> None:
        self.rows = {stage: Counter() for stage in stages}
        self.trials = 0
        self.causes: Counter = Counter()
        self.on_disk: Counter = Counter()
        self.complaints: list[str] = []
        # What ended the campaign early.
        self.stuck: list[str] = []

    def add(self, trial) -> None:
        """Counts a trial of `powercuts.trial`."""
        self.trials += 1
        verdict, sent = trial.verdict, trial.plan.kind != "local"
        self.rows[trial.plan.stage.name].update({
            "cuts": trial.cuts,
            "sent": sent,
            "answered 200": sent and trial.answered_before_the_cut,
            "not answered": sent and not trial.answered_before_the_cut,
            "rebooted by us": verdict.reboots,
            "completed": verdict.outcome == "completed",
            "uncleanBoot": verdict.outcome == "failed uncleanBoot",
            "duplicates": len(verdict.duplicates),
            "losses": len(verdict.losses),
            "wrong": len(trial.wrong),
        })
        self.causes.update(trial.causes)
        self.on_disk[trial.on_disk] += 1
        self.complaints += [*verdict.duplicates, *verdict.losses, *trial.wrong]

    def cuts(self) -> int:
        return sum(row["cuts"] for row in self.rows.values())

    def failures(self) -> int:
        return len(self.complaints) + len(self.stuck)

    def __str__(self) -> str:
        widths = [len(column) for column in COLUMNS]
        lines = [line("cut after", COLUMNS, widths)]
        lines += [line(stage, [row[column] for column in COLUMNS], widths) for stage, row in self.rows.items()]
        total = sum(self.rows.values(), Counter())
        lines.append(line("all", [total[column] for column in COLUMNS], widths))
        lines.append(f"\nboot causes reported: {listed(self.causes)}")
        lines.append(f"on disk at the cut: {listed(self.on_disk)}")
        lines += [f"WRONG: {complaint}" for complaint in self.complaints]
        lines += [f"STUCK: {stuck}" for stuck in self.stuck]
        return "\n".join(lines)


def line(name: str, values: list, widths: list[int]) -> str:
    return f"{name:<12}" + "".join(f"  {value:>{width}}" for value, width in zip(values, widths, strict=True))


def listed(counts: Counter) -> str:
    return "; ".join(f"{name} {count}" for name, count in counts.most_common())
