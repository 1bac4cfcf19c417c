"""Measurements, their medians and ratios, as text, Markdown and JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field

from machine import Machine

HEAD = (
    "method", "step, eager", "step, ours", "ratio", "over products", "evaluated/s, eager", "ours", "ratio", "peak, eager", "ours", "ratio",
)

# What a column says.
OVER = "over products: how many times as long our step takes as its products of matrices alone would, at the rate above"


@dataclass(frozen=True)
class Outcome:
    """One measurement: seconds a training step, predictions a second, the most resident bytes."""

    step: float
    evaluated: float
    peak: int
    # Floating-point operations of a step, if they are known.
    operations: float | None = None


@dataclass
class Row:
    """The measurements of a method."""

    method: str
    ours: list[Outcome] = field(default_factory=list)
    theirs: list[Outcome] = field(default_factory=list)
    # Why there are none, by side.
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, own: bool, outcome: Outcome | str) -> None:
        """Adds a measurement, or why there is none."""
        if isinstance(outcome, str):
            self.missing["ours" if own else "eager PyTorch"] = outcome
        else:
            (self.ours if own else self.theirs).append(outcome)

    @property
    def complete(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.ours and self.theirs) and not self.missing

    def cells(self, rate: float) -> tuple[str, ...]:
        """The row of the table, on a machine with so many floating-point operations a second. A ratio above 1 means
        that ours is better."""
        mine, other = median(self.ours), median(self.theirs)

        def ratio(over: float | None, under: float | None) -> str:
            return f"{over / under:.2f}x" if over and under else "–"

        def show(value: float | None, form: str, scale: float = 1.0) -> str:
            return format(value / scale, form) + ("" if scale == 1.0 else " GB") if value else "–"

        products = mine.operations / rate if mine and mine.operations else None
        step, other_step = (side.step if side else None for side in (mine, other))
        speed, other_speed = (side.evaluated if side else None for side in (mine, other))
        peak, other_peak = (float(side.peak) if side else None for side in (mine, other))
        return (
            self.method,
            show(other_step, ".3f"), show(step, ".3f"), ratio(other_step, step), ratio(step, products),
            show(other_speed, ".1f"), show(speed, ".1f"), ratio(speed, other_speed),
            show(other_peak, ".1f", 1e9), show(peak, ".1f", 1e9), ratio(other_peak, peak),
        )


def median(outcomes: list[Outcome]) -> Outcome | None:
    """The medians of several measurements."""
    if not outcomes:
        return None
    return Outcome(
        statistics.median(one.step for one in outcomes),
        statistics.median(one.evaluated for one in outcomes),
        int(statistics.median(one.peak for one in outcomes)),
        outcomes[0].operations,
    )


def notes(rows: list[Row]) -> list[str]:
    """What is missing, and why."""
    return [f"{row.method}, {side}: {why}" for row in rows for side, why in row.missing.items()]


def as_text(machine: Machine, rows: list[Row], batch: int) -> str:
    """For a terminal."""
    lines = [HEAD, *(row.cells(machine.float32) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    table = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    said = [machine.sentence(), f"batches of {batch}; a ratio above 1 means that ours is faster or smaller; {OVER}"]
    return "\n".join([*said, *table, *notes(rows)])


def as_markdown(machine: Machine, rows: list[Row], batch: int) -> str:
    """For the documentation."""
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cells)} |"

    table = [line(HEAD), line(("---",) + ("---:",) * (len(HEAD) - 1)), *(line(row.cells(machine.float32)) for row in rows)]
    said = f"{machine.sentence()}. Batches of {batch}; a ratio above 1 means that ours is faster or smaller; {OVER}."
    return "\n".join([said, "", *table, *(["", *notes(rows)] if notes(rows) else [])]) + "\n"


def as_json(machine: Machine, rows: list[Row], batch: int) -> str:
    """For programs: every measurement."""
    return json.dumps({"machine": machine.fields(), "batch": batch, "methods": [asdict(row) for row in rows]}, indent=1) + "\n"
