"""Puts a table into a page of the documentation, in the place of the one that an earlier run left there."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- written by bench/steps -->"
END = "<!-- until here -->"


def place_table(page: Path, table: str) -> None:
    """Replaces what stands between the two marks.

    Raises ValueError if the page does not have each of them once, in this order.
    """
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{page} needs `{BEGIN}` and then `{END}`, each once")
    page.write_text(f"{before}{BEGIN}\n\n{table.strip()}\n\n{END}{after}", encoding="utf-8")
