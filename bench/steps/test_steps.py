"""Tests of the comparison with programs that stand in for both sides."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import unittest
from argparse import Namespace
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from importlib.util import module_from_spec, spec_from_file_location  # noqa: E402

from machine import Machine  # noqa: E402
from page import END, begin, place_table  # noqa: E402
from table import EAGER, HEAD, OURS, REFERENCE, Outcome, Row, as_json, as_markdown, as_text  # noqa: E402

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
        row.add(OURS, Outcome(1.0, 40.0, 2_000_000_000, 1e11))
        row.add(OURS, Outcome(3.0, 60.0, 2_000_000_000))
        row.add(EAGER, Outcome(4.0, 25.0, 3_000_000_000))
        self.assertEqual(
            row.cells(MACHINE.float32),
            ("lnln", "4.000", "2.000", "2.00x", "2.00x", "25.0", "50.0", "2.00x", "3.0 GB", "2.0 GB", "1.50x"),
        )
        self.assertTrue(row.complete)

    def test_missing_side_is_said_and_not_counted(self) -> None:
        row = Row("tfr-net")
        row.add(OURS, Outcome(1.0, 2.0, 3))
        row.add(EAGER, "out of memory")
        self.assertFalse(row.complete)
        text = as_text(MACHINE, [row], 64)
        self.assertIn("tfr-net, eager PyTorch: out of memory", text)
        self.assertIn("–", text)
        self.assertIn("out of memory", as_markdown(MACHINE, [row], 64))
        said = json.loads(as_json(MACHINE, [row], 64))
        self.assertEqual(said["methods"][0]["missing"], {"eager PyTorch": "out of memory"})


    def test_references_have_columns_where_asked_for(self) -> None:
        row, other = Row("misa"), Row("text-only")
        for one in (row, other):
            one.add(OURS, Outcome(0.5, 40.0, 2_000_000_000))
            one.add(EAGER, Outcome(1.0, 20.0, 2_000_000_000))
        row.add(REFERENCE, Outcome(1.5, 8.0, 2_000_000_000, None, 16))
        rate = MACHINE.float32
        self.assertEqual(row.cells(rate, True), (*row.cells(rate), "1.500", "3.00x", "8.0", "16", "5.00x"))
        self.assertEqual(other.cells(rate, True), (*other.cells(rate), "–", "–", "–", "–", "–"))
        self.assertTrue(row.complete and other.complete)
        text = as_text(MACHINE, [row, other], 64, True)
        self.assertIn("step, reference", text)
        self.assertIn("its batches: ", text)
        page = as_markdown(MACHINE, [row, other], 64, True).splitlines()
        table = [line.count("|") for line in page if line.startswith("|")]
        self.assertEqual(table, [len(HEAD) + 6] * 4)
        said = json.loads(as_json(MACHINE, [row], 64, True))["methods"][0]
        self.assertEqual((said["reference"][0]["step"], said["reference"][0]["evaluated"]), (1.5, 8.0))

    def test_nothing_of_references_is_said_unless_asked_for(self) -> None:
        row = Row("misa")
        row.add(OURS, Outcome(0.5, 40.0, 2_000_000_000))
        row.add(EAGER, Outcome(1.0, 20.0, 2_000_000_000))
        for said in (as_text(MACHINE, [row], 64), as_markdown(MACHINE, [row], 64), as_json(MACHINE, [row], 64)):
            self.assertNotIn("reference", said)

    def test_reference_of_other_work_has_a_note(self) -> None:
        row = Row("lf-dnn")
        row.add(OURS, Outcome(0.5, 40.0, 2_000_000_000))
        self.assertNotIn("without an encoder", as_text(MACHINE, [row], 64, True))
        row.add(REFERENCE, Outcome(0.1, None, 2_000_000_000))
        for said in (as_text(MACHINE, [row], 64, True), as_markdown(MACHINE, [row], 64, True)):
            self.assertIn("lf-dnn: its reference reads text features from a file", said)

    def test_failed_reference_is_said(self) -> None:
        row = Row("misa")
        row.add(OURS, Outcome(0.5, 40.0, 2_000_000_000))
        row.add(EAGER, Outcome(1.0, 20.0, 2_000_000_000))
        row.add(REFERENCE, "ended with 1")
        self.assertFalse(row.complete)
        self.assertIn("misa, the reference's own code: ended with 1", as_text(MACHINE, [row], 64, True))


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
        said = json.dumps({"step": 0.5, "evaluated": 10, "evaluated_batch": 16, "peak": 7})
        outcome = self.outcome(f"print('noise'); print({said!r})")
        self.assertEqual(outcome, Outcome(0.5, 10.0, 7, None, 16))

    def test_programs_that_fail_say_why(self) -> None:
        self.assertIn("ended with 3", self.outcome("import sys; sys.exit(3)"))
        self.assertEqual(self.outcome("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), "out of memory")
        self.assertIn("printed no result", self.outcome("pass"))
        self.assertIn("printed no result", self.outcome("print('{\"step\": null}')"))

    def test_evaluation_need_not_be_measured(self) -> None:
        outcome = self.outcome("print('{\"step\": 0.5, \"evaluated\": null, \"peak\": 7}')")
        self.assertEqual(outcome, Outcome(0.5, None, 7))

    def asked(self, *words: str, **variables: str) -> Namespace:
        """The command line as it is read."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
        with mock.patch.dict(os.environ, {**kept, **variables}, clear=True), mock.patch.object(sys, "argv", ["steps", *words]):
            return self.steps.arguments()  # type: ignore[attr-defined]

    def test_clones_come_from_options_and_variables(self) -> None:
        self.assertEqual(self.asked().clones, {})
        asked = self.asked("--lnln", "b", BENCH_MMSA="a", BENCH_LNLN="c", BENCH_EMT_DLFR="")
        clones = {repository.option: str(folder) for repository, folder in asked.clones.items()}
        self.assertEqual(clones, {"mmsa": "a", "lnln": "b"})

    def test_sides_take_turns_and_the_reference_is_one_where_there_is_a_clone(self) -> None:
        asked = self.asked("misa", "lnln", "text-only", "--times", "2", "--lnln", "clone", "--batch", "3")
        commands = []

        def measured(command: list[str], _: dict[str, str]) -> Outcome | str:
            commands.append(command)
            return "out of memory" if "eager" in command[2] else Outcome(1.0, None, 1)

        with mock.patch.object(self.steps, "measured", measured), mock.patch("sys.stderr"):
            rows = self.steps.compare(asked, Path("program"))  # type: ignore[attr-defined]
        programs = [Path(command[2]).name if len(command) > 4 else "ours" for command in commands]
        once = ["ours", "eager", "ours"]
        self.assertEqual(programs, [*once, "ours", "eager", "reference", "ours", "reference", *once])
        command = commands[5]
        self.assertEqual(command[3:8], ["measure", "lnln", "--evaluate", "--repository", "clone"])
        self.assertIn("3", command)
        self.assertEqual([len(row.reference) for row in rows], [0, 2, 0])
        self.assertEqual([list(row.missing) for row in rows], [[EAGER]] * 3)

    def test_missing_clone_is_an_error_before_anything_is_measured(self) -> None:
        words = ["steps", "--mmsa", "/nowhere"]
        with mock.patch.object(sys, "argv", words), mock.patch("sys.stderr") as said:
            self.assertEqual(self.steps.main(), 1)  # type: ignore[attr-defined]
        text = "".join(call.args[0] for call in said.write.call_args_list)
        self.assertIn("error: missing clone of thuiar/MMSA: /nowhere", text)
        self.assertIn("hint: `git clone https://github.com/thuiar/MMSA`", text)

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
