"""Training steps and predictions of this project beside eager PyTorch, alternating in one run.

Each measurement is a process of its own: the worker's benchmark (`cargo bench --bench steps`), then the peer in
`bench/eager`, and so on for `--times` times; the medians are compared. The machine's own limits, measured in the same
run, stand above the table. Ratios can be trusted more than seconds.

Where clones of the references' repositories are named, their own code is measured in the same turns (`bench/reference`),
and the table has five columns more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
sys.path += [str(BENCH), str(BENCH / "reference")]

import repositories
from machine import Machine
from page import place_table
from table import EAGER, OURS, REFERENCE, Outcome, Row, as_json, as_markdown, as_text

ROOT = BENCH.parent
METHODS = (
    "misa self-mm mmim cenet tetfn almt lnln tfr-net emt-dlfr lf-dnn text-only"
).split()
# The longest that a measurement may take: a hung one must not stop the others.
TIMEOUT = 3600


class Unusable(Exception):
    """Why nothing can be measured, and what to do about it."""


def bench_program(cargo: str) -> Path:
    """Builds the worker's benchmark and returns its path."""
    command = [cargo, "bench", "--workspace", "--bench", "steps", "--no-run"]
    built = subprocess.run(
        [*command, "--message-format", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if built.returncode != 0:
        raise Unusable("the worker's benchmark cannot be built: see above")
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "steps":
            if message.get("executable"):
                return Path(message["executable"])
    raise Unusable("cargo did not say where the worker's benchmark is")


def measured(command: list[str], environment: dict[str, str]) -> Outcome | str:
    """The outcome that a program prints as JSON in its last line, or why there is none."""
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {TIMEOUT} s"
    if done.returncode != 0:
        # The kernel kills what takes more memory than there is.
        return "out of memory" if done.returncode == -9 else f"ended with {done.returncode}"
    try:
        said = json.loads(done.stdout.splitlines()[-1])
        evaluated = said["evaluated"]
        return Outcome(
            float(said["step"]),
            float(evaluated) if evaluated is not None else None,
            int(said["peak"] or 0),
            said.get("operations"),
            said.get("evaluated_batch"),
        )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        return f"printed no result ({error})"


def ours(program: Path, method: str, asked: argparse.Namespace) -> Outcome | str:
    """Measures a method of the worker."""
    environment = {
        **os.environ,
        "HALFHEARD_BENCH_ROUNDS": str(asked.rounds),
        "HALFHEARD_BENCH_THREADS": str(asked.threads),
        "HALFHEARD_BENCH_BATCH": str(asked.batch),
        "HALFHEARD_ENCODER_EN": str(asked.encoder),
    }
    return measured([str(program), "--bench", "--json", method], environment)


def in_python(folder: str, method: str, more: list[str], asked: argparse.Namespace) -> Outcome | str:
    """Measures a method by a program of Python."""
    command = [asked.python, "-B", str(BENCH / folder), "measure", method, *more]
    for name in ("rounds", "batch", "threads", "encoder"):
        command += [f"--{name}", str(getattr(asked, name))]
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    return measured(command, environment)


def sides(method: str, asked: argparse.Namespace, program: Path) -> dict[str, Callable[[], Outcome | str]]:
    """What measures the sides of a method, by their names."""
    measure = {
        OURS: lambda: ours(program, method, asked),
        EAGER: lambda: in_python("eager", method, ["--evaluate"], asked),
    }
    clone = asked.clones.get(repositories.METHODS.get(method))
    if clone:
        measure[REFERENCE] = lambda: in_python("reference", method, ["--evaluate", "--repository", str(clone)], asked)
    return measure


def compare(asked: argparse.Namespace, program: Path) -> list[Row]:
    """Measures the sides of all methods in turn, and says how far it is."""
    rows = []
    for method in asked.methods:
        row = Row(method)
        for time in range(asked.times):
            for name, measure in sides(method, asked, program).items():
                # What failed once is not tried again.
                if name in row.missing:
                    continue
                outcome = measure()
                row.add(name, outcome)
                said = outcome if isinstance(outcome, str) else f"{outcome.step:.3f} s a step"
                print(f"{method}, {name}, {time + 1} of {asked.times}: {said}", file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench/steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"all by default: {', '.join(METHODS)}")
    parser.add_argument("--python", default=os.environ.get("HALFHEARD_BENCH_PYTHON", sys.executable),
                        help="a Python with PyTorch; else HALFHEARD_BENCH_PYTHON, else the one that runs this")
    parser.add_argument("--cargo", default="cargo", help="cargo's program")
    parser.add_argument("--times", type=int, default=2, help="measurements of each, alternating (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds of four steps in each (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="samples in a batch of training (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads (%(default)s)")
    parser.add_argument("--encoder", type=Path, default=Path(os.environ.get("HALFHEARD_ENCODER_EN", ROOT / ".deps/encoder")),
                        help="the folder of the English encoder (%(default)s)")
    for repository in repositories.REPOSITORIES:
        parser.add_argument(f"--{repository.option}", metavar="FOLDER", default=os.environ.get(repository.variable),
                            help=f"a clone of {repository.name}: also measures {', '.join(repository.methods)} by its code; "
                            f"else {repository.variable}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes the measurements to a file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also writes the table to a file")
    parser.add_argument("--page", type=Path, metavar="FILE",
                        help="also replaces the table in a page of the documentation; one with references has its own place")
    asked = parser.parse_args()
    unknown = [name for name in asked.methods if name not in METHODS]
    if unknown:
        parser.error(f"no method `{unknown[0]}`: there are {', '.join(METHODS)}")
    for name in ("times", "rounds", "batch", "threads"):
        if getattr(asked, name) < 1:
            parser.error(f"--{name} is at least 1")
    asked.methods = asked.methods or METHODS
    named = {one: getattr(asked, one.option.replace("-", "_")) for one in repositories.REPOSITORIES}
    asked.clones = {repository: Path(folder) for repository, folder in named.items() if folder}
    return asked


def main() -> int:
    """Compares, and prints the table."""
    asked = arguments()
    try:
        for repository, clone in asked.clones.items():
            repository.check(clone)
        if not (asked.encoder / "config.json").is_file():
            raise Unusable(f"no encoder at {asked.encoder}: run `make setup`, or name one with --encoder")
        if subprocess.run([asked.python, "-c", "import torch"], stderr=subprocess.DEVNULL, check=False).returncode:
            raise Unusable(f"{asked.python} has no PyTorch: `pip install torch`, or name another with --python")
        program = bench_program(asked.cargo)
        machine = Machine.measure(asked.python, ROOT / "bench/steps/limits.py", asked.threads)
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except repositories.Unusable as error:
        print(error.report(), file=sys.stderr)
        return 1
    rows = compare(asked, program)
    references = bool(asked.clones)
    print(as_text(machine, rows, asked.batch, references))
    if asked.json:
        asked.json.write_text(as_json(machine, rows, asked.batch, references), encoding="utf-8")
    if asked.markdown:
        asked.markdown.write_text(as_markdown(machine, rows, asked.batch, references), encoding="utf-8")
    if asked.page:
        try:
            place = "bench/steps with references" if references else "bench/steps"
            place_table(asked.page, place, as_markdown(machine, rows, asked.batch, references))
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0 if all(row.complete for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
