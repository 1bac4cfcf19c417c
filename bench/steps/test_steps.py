"""Tests of the comparison with programs that stand in for both sides."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from importlib.util import module_from_spec, spec_from_file_location  # noqa: E402

from machine import Machine  # noqa: E402
from page import END, begin, place_table  # noqa: E402
from table import Outcome, Row, as_json, as_markdown, as_text  # noqa: E402

MACHINE = Machine("a processor", 2, 2, "2.11", 1e11, 5e10, 2e11, 1e10, 0.5)


def program() -> object:
    """The command's module under a name of its own."""
    spec = spec_from_file_location("bench_steps", HERE / "__main__.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tables(unittest.TestCase):
    """Ratios and what is missing."""

    def test_ratio_above_one_means_that_ours_is_better(self) -> None:
        row = Row("lnln")
        row.add(True, Outcome(1.0, 40.0, 2_000_000_000, 1e11))
        row.add(True, Outcome(3.0, 60.0, 2_000_000_000))
        row.add(False, Outcome(4.0, 25.0, 3_000_000_000))
        self.assertEqual(
            row.cells(MACHINE.float32),
            ("lnln", "4.000", "2.000", "2.00x", "2.00x", "25.0", "50.0", "2.00x", "3.0 GB", "2.0 GB", "1.50x"),
        )
        self.assertTrue(row.complete)

    def test_missing_side_is_said_and_not_counted(self) -> None:
        row = Row("tfr-net")
        row.add(True, Outcome(1.0, 2.0, 3))
        row.add(False, "out of memory")
        self.assertFalse(row.complete)
        text = as_text(MACHINE, [row], 64)
        self.assertIn("tfr-net, eager PyTorch: out of memory", text)
        self.assertIn("–", text)
        self.assertIn("out of memory", as_markdown(MACHINE, [row], 64))
        said = json.loads(as_json(MACHINE, [row], 64))
        self.assertEqual(said["methods"][0]["missing"], {"eager PyTorch": "out of memory"})


class Pages(unittest.TestCase):
    """The table in the documentation."""

    def test_only_what_is_between_the_marks_is_replaced(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            mark, other = begin("bench/steps"), f"{begin('bench/other')}\nkept\n{END}\n"
            page.write_text(f"{other}before\n{mark}\nold\n{END}\nafter\n{other}", encoding="utf-8")
            for table in ("| first |", "| second |"):
                place_table(page, "bench/steps", table)
            text = f"{other}before\n{mark}\n\n| second |\n\n{END}\nafter\n{other}"
            self.assertEqual(page.read_text("utf-8"), text)

    def test_page_without_marks_stays_as_it_is(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            mark = begin("bench/steps")
            for text in ("", f"{END}{mark}", f"{mark}{mark}{END}", f"{begin('bench/other')}{END}"):
                page.write_text(text, encoding="utf-8")
                with self.assertRaises(ValueError):
                    place_table(page, "bench/steps", "| table |")
                self.assertEqual(page.read_text("utf-8"), text)


class Programs(unittest.TestCase):
    """What measured programs may do."""

    def setUp(self) -> None:
        self.steps = program()

    def outcome(self, code: str) -> object:
        return self.steps.measured([sys.executable, "-c", code], dict(os.environ))  # type: ignore[attr-defined]

    def test_last_line_is_the_result(self) -> None:
        said = json.dumps({"step": 0.5, "evaluated": 10, "peak": 7})
        outcome = self.outcome(f"print('noise'); print({said!r})")
        self.assertEqual((outcome.step, outcome.evaluated, outcome.peak), (0.5, 10.0, 7))

    def test_programs_that_fail_say_why(self) -> None:
        self.assertIn("ended with 3", self.outcome("import sys; sys.exit(3)"))
        self.assertEqual(self.outcome("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), "out of memory")
        self.assertIn("printed no result", self.outcome("pass"))
        self.assertIn("printed no result", self.outcome("print('{\"step\": null}')"))

    def test_limits_come_from_the_machine(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "limits.py"
            script.write_text(
                "import json, sys\n"
                "rates = {'float32': 1e9 * int(sys.argv[1]), 'float32_eager': 1e9, 'bfloat16': 2e9}\n"
                "print(json.dumps({'torch': '2', 'memory': 3e9, **rates}))\n",
                encoding="utf-8",
            )
            machine = Machine.measure(sys.executable, script, 2)
        self.assertIn("2 GFLOP/s in float32", machine.sentence())


if __name__ == "__main__":
    unittest.main()
