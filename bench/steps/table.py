"""Measurements, their medians and ratios, as text, Markdown and JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field

from machine import Machine

HEAD = (
    "method", "step, eager", "step, ours", "ratio", "over products", "evaluated/s, eager", "ours", "ratio", "peak, eager", "ours", "ratio",
)

# Further columns, where methods were measured by their references' own code, too.
REFERENCE_HEAD = ("step, reference", "ratio", "evaluated/s, reference", "its batches", "ratio")

# Where a reference's step is other work than ours.
OTHER_WORK = {"lf-dnn": "its reference reads text features from a file, so that ratio compares a step without an encoder"}

# What columns say.
EVALUATED = "its batches: those in which the reference evaluates"
OVER = "over products: how many times as long our step takes as its products of matrices alone would, at the rate above"

# What is compared.
OURS, EAGER, REFERENCE = "ours", "eager PyTorch", "the reference's own code"


@dataclass(frozen=True)
class Outcome:
    """One measurement: seconds a training step, predictions a second if they were measured, the most resident bytes."""

    step: float
    evaluated: float | None
    peak: int
    # Floating-point operations of a step, if they are known.
    operations: float | None = None
    # Samples in a batch of predictions, if it has a size of its own.
    evaluated_batch: int | None = None


@dataclass
class Row:
    """The measurements of a method."""

    method: str
    ours: list[Outcome] = field(default_factory=list)
    theirs: list[Outcome] = field(default_factory=list)
    # By the reference's own code.
    reference: list[Outcome] = field(default_factory=list)
    # Why there are none, by side.
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, side: str, outcome: Outcome | str) -> None:
        """Adds a measurement of a side, or why there is none."""
        if isinstance(outcome, str):
            self.missing[side] = outcome
        else:
            {OURS: self.ours, EAGER: self.theirs, REFERENCE: self.reference}[side].append(outcome)

    @property
    def complete(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.ours and self.theirs) and not self.missing

    def cells(self, rate: float, references: bool = False) -> tuple[str, ...]:
        """The row of the table, on a machine with so many floating-point operations a second. A ratio above 1 means
        that ours is better."""
        mine, other, reference = median(self.ours), median(self.theirs), median(self.reference)

        def ratio(over: float | None, under: float | None) -> str:
            return f"{over / under:.2f}x" if over and under else "–"

        def show(value: float | None, form: str, scale: float = 1.0) -> str:
            if not value:
                return "–"
            return format(value, form) if scale == 1.0 else format(value / scale, form) + " GB"

        products = mine.operations / rate if mine and mine.operations else None
        step, other_step = (side.step if side else None for side in (mine, other))
        speed, other_speed = (side.evaluated if side else None for side in (mine, other))
        peak, other_peak = (float(side.peak) if side else None for side in (mine, other))
        their_step, their_speed, their_batch = (
            (reference.step, reference.evaluated, reference.evaluated_batch) if reference else (None, None, None)
        )
        last = (
            show(their_step, ".3f"), ratio(their_step, step),
            show(their_speed, ".1f"), show(their_batch, "d"), ratio(speed, their_speed),
        )
        return (
            self.method,
            show(other_step, ".3f"), show(step, ".3f"), ratio(other_step, step), ratio(step, products),
            show(other_speed, ".1f"), show(speed, ".1f"), ratio(speed, other_speed),
            show(other_peak, ".1f", 1e9), show(peak, ".1f", 1e9), ratio(other_peak, peak),
            *(last if references else ()),
        )


def median(outcomes: list[Outcome]) -> Outcome | None:
    """The medians of several measurements."""
    if not outcomes:
        return None
    evaluated = [one.evaluated for one in outcomes if one.evaluated is not None]
    return Outcome(
        statistics.median(one.step for one in outcomes),
        statistics.median(evaluated) if evaluated else None,
        int(statistics.median(one.peak for one in outcomes)),
        outcomes[0].operations,
        outcomes[0].evaluated_batch,
    )


def notes(rows: list[Row]) -> list[str]:
    """What is missing, and why; what a ratio does not say."""
    missing = [f"{row.method}, {side}: {why}" for row in rows for side, why in row.missing.items()]
    other = [f"{row.method}: {OTHER_WORK[row.method]}" for row in rows if row.reference and row.method in OTHER_WORK]
    return missing + other


def lines_of(machine: Machine, rows: list[Row], references: bool) -> list[tuple[str, ...]]:
    """The table's head and rows."""
    head = HEAD + (REFERENCE_HEAD if references else ())
    return [head, *(row.cells(machine.float32, references) for row in rows)]


def columns(references: bool) -> str:
    """What the columns say."""
    return f"{OVER}; {EVALUATED}" if references else OVER


def as_text(machine: Machine, rows: list[Row], batch: int, references: bool = False) -> str:
    """For a terminal."""
    lines = lines_of(machine, rows, references)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    said = [machine.sentence(), f"batches of {batch}; a ratio above 1 means that ours is faster or smaller; {columns(references)}"]
    return "\n".join([*said, *table, *notes(rows)])


def as_markdown(machine: Machine, rows: list[Row], batch: int, references: bool = False) -> str:
    """For the documentation."""
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cells)} |"

    head, *cells = lines_of(machine, rows, references)
    table = [line(head), line(("---",) + ("---:",) * (len(head) - 1)), *(line(row) for row in cells)]
    said = f"{machine.sentence()}. Batches of {batch}; a ratio above 1 means that ours is faster or smaller; {columns(references)}."
    return "\n".join([said, "", *table, *(["", *notes(rows)] if notes(rows) else [])]) + "\n"


def as_json(machine: Machine, rows: list[Row], batch: int, references: bool = False) -> str:
    """For programs: every measurement."""
    methods = [asdict(row) for row in rows]
    if not references:
        for method in methods:
            del method["reference"]
    return json.dumps({"machine": machine.fields(), "batch": batch, "methods": methods}, indent=1) + "\n"
