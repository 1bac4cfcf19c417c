"""The results as a table for people and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from limits import Limit
from measure import Row


def figure(rate: float) -> str:
    """A rate with three significant digits at least."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _columns(lines: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _problems(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Why something was not measured, and of which rows that is true."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.problem:
            found.setdefault(row.problem, []).append(f"{row.variant.name} ({row.workers})")
    return found


def text(machine: str, limits: Sequence[Limit], rows: Sequence[Row]) -> str:
    """Limits, the table, what its rows promise, and what could not be measured."""
    out = [f"machine: {machine}", ""]
    out += _columns([(limit.what, f"{figure(limit.per_second)} a second") for limit in limits], [1])
    lines = [("system", "version", "workers", "jobs/s", "min-max", "jobs", "rounds", "durable")]
    problems = _problems(rows)
    for row in rows:
        rates = row.rates
        median = figure(statistics.median(rates)) if rates else "-"
        span = f"{figure(min(rates))}-{figure(max(rates))}" if rates else "-"
        jobs = str(row.tasks) if rates else "-"
        lines.append(
            (
                row.variant.name,
                row.version or "-",
                str(row.workers),
                median,
                span,
                jobs,
                str(len(rates)),
                row.variant.durable,
            )
        )
    out += ["", *_columns(lines, [2, 3, 4, 5, 6]), ""]
    seen = {row.variant.name: row.variant for row in rows}
    for variant in seen.values():
        out += [f"{variant.name}: {variant.promise}. A task is {variant.task}."]
    if problems:
        out += ["", "Not measured, or not in all rounds (workers in parentheses):"]
        out += [f"{', '.join(names)}: {problem}" for problem, names in problems.items()]
    return "\n".join(out) + "\n"


def markdown(machine: str, limits: Sequence[Limit], rows: Sequence[Row]) -> str:
    """The same for the documentation: a line for each system, a column for each number of workers."""
    workers = sorted({row.workers for row in rows})
    rounds = max((len(row.rates) for row in rows), default=0)
    bounds = "; ".join(f"{limit.what} {figure(limit.per_second)} a second" for limit in limits)
    out = [
        f"{machine}. Medians of {rounds} alternating rounds, the range in parentheses. What the machine can do: {bounds}.",
        "",
        "| system | durable | " + " | ".join(f"{count} worker{'s' * (count > 1)}" for count in workers) + " |",
        "|---|---|" + "---:|" * len(workers),
    ]
    cells: dict[str, dict[int, str]] = {}
    notes = _problems(rows)
    for row in rows:
        cell = "–"
        if row.rates:
            cell = f"{figure(statistics.median(row.rates))} ({figure(min(row.rates))}–{figure(max(row.rates))})"
        cells.setdefault(row.variant.name, {})[row.workers] = cell
    versions = {row.variant.name: row.version for row in rows if row.version}
    for variant in {row.variant.name: row.variant for row in rows}.values():
        name = f"{variant.name}, {versions[variant.name]}" if variant.name in versions else variant.name
        of = cells[variant.name]
        out.append(f"| {name} | {variant.durable} | " + " | ".join(of.get(count, "–") for count in workers) + " |")
    if notes:
        # A reason may be what a program wrote.
        said = {" ".join(problem.split()).replace("|", "/"): names for problem, names in notes.items()}
        out += ["", *(f"Not measured, or not in all rounds: {', '.join(names)}: {why}." for why, names in said.items())]
    return "\n".join(out) + "\n"


def document(machine: str, limits: Sequence[Limit], rows: Sequence[Row]) -> dict[str, object]:
    """The same as an object for JSON."""
    return {
        "machine": machine,
        "limits": [{"what": limit.what, "per_second": limit.per_second} for limit in limits],
        "results": [
            {
                "system": row.variant.system,
                "variant": row.variant.name,
                "version": row.version or None,
                "workers": row.workers,
                "jobs": row.tasks if row.rates else None,
                "jobs_per_second": statistics.median(row.rates) if row.rates else None,
                "min": min(row.rates) if row.rates else None,
                "max": max(row.rates) if row.rates else None,
                "rounds": row.rates,
                "durable": row.variant.durable,
                "promise": row.variant.promise,
                "task": row.variant.task,
                "problem": row.problem or None,
            }
            for row in rows
        ],
    }
