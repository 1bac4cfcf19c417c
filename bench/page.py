"""Puts a table into a page of the documentation, in the place of the one that an earlier run left there."""

from __future__ import annotations

from pathlib import Path

END = "<!-- until here -->"


def begin(program: str) -> str:
    """The mark before the table that `program` writes: bench/steps, for instance."""
    return f"<!-- written by {program} -->"


def place_table(page: Path, program: str, table: str) -> None:
    """Replaces what stands between the program's mark and the next that ends a table.

    Raises ValueError if the page does not have the program's mark once and another behind it.
    """
    text = page.read_text("utf-8")
    mark = begin(program)
    before, found, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    if not found or not end or mark in rest:
        raise ValueError(f"{page} needs `{mark}` once, and `{END}` behind it")
    page.write_text(f"{before}{mark}\n\n{table.strip()}\n\n{END}{after}", encoding="utf-8")
