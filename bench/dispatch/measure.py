"""Measures variants by their drivers, in rounds that alternate between them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processes import BenchError, last_line, run, stop_descendants
from systems import DRIVERS, OURS, Variant

# Started before each measurement, untimed: the first tasks import, connect and fork.
WARM_UP = 50
START_LIMIT = 120.0
# `bench_path` takes its number from whoever calls it; this is its default.
OUR_JOBS = 20_000
_OURS = re.compile(r"^jobs from submission to result row, (\d+) worker program\(s\)\s+([\d.]+) a second", re.MULTILINE)


@dataclass
class Row:
    """A variant with a number of workers, and what was measured."""

    variant: Variant
    workers: int
    version: str = ""
    tasks: int = 0
    # Jobs a second, one for each round.
    rates: list[float] = field(default_factory=list)
    # Why there is no figure, or not all of them.
    problem: str = ""


def size(probe: Callable[[int], float], seconds: float, limit: int) -> int:
    """The number of tasks, at most `limit`, that takes about so many seconds.

    `probe` runs a number of tasks and returns the seconds. It is called with more and more, until it takes long enough
    to tell.
    """
    tasks = min(100, limit)
    while True:
        taken = max(probe(tasks), 1e-9)
        if taken >= seconds / 5 or tasks == limit:
            return max(1, min(limit, round(tasks / taken * seconds)))
        # Ten times as many, unless that would take longer than the measurement itself.
        tasks = min(limit, max(tasks + 1, round(tasks * min(10.0, seconds / taken))))


class Driver:
    """A running driver, and so a started system."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        assert child.stdin is not None and child.stdout is not None, "both are pipes"
        self.child, self.log = child, log
        self.rest = b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(child.stdout, selectors.EVENT_READ)
        self.version = str(self._answer("version", START_LIMIT))

    def run(self, tasks: int, limit: float) -> float:
        """Runs tasks; returns the seconds from submission to the last result."""
        try:
            self.child.stdin.write(json.dumps({"tasks": tasks}).encode() + b"\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return float(self._answer("seconds", limit))

    def _ended(self) -> BenchError:
        return BenchError(f"the driver ended: {last_line(self.log)} (log: {self.log})")

    def _answer(self, key: str, limit: float) -> object:
        until = time.monotonic() + limit
        while b"\n" not in self.rest:
            if not self.selector.select(max(0.0, until - time.monotonic())):
                raise BenchError(f"no answer within {limit:.0f} s (log: {self.log})")
            read = os.read(self.child.stdout.fileno(), 65536)
            if not read:
                raise self._ended()
            self.rest += read
        line, _, self.rest = self.rest.partition(b"\n")
        try:
            return json.loads(line)[key]
        except (ValueError, KeyError, TypeError):
            raise BenchError(f"the driver answered {line[:100]!r}, not its {key}") from None


@contextlib.contextmanager
def started(variant: Variant, workers: int, folder: Path) -> Iterator[Driver]:
    """Starts a system; at the end nothing of it runs, and its files are gone. Its log stays."""
    python, options = variant.prepare(folder / "environments")
    own = folder / "run"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    log = folder / "logs" / f"{Path(variant.driver).stem}.log"
    log.parent.mkdir(exist_ok=True)
    request = {"workers": workers, "folder": str(own), "options": options}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as temporary:
        # Some systems write to the home folder and the temporary one: both go with the measurement.
        environment = {**os.environ, "HOME": str(own), "TMPDIR": temporary, "PYTHONDONTWRITEBYTECODE": "1"}
        # Numerical libraries would start threads for each worker, and no task computes anything.
        environment["OMP_NUM_THREADS"] = "1"
        environment.pop("PYTHONPATH", None)
        try:
            with log.open("wb") as output:
                child = subprocess.Popen(
                    [str(python), str(DRIVERS / variant.driver), json.dumps(request)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    cwd=own,
                    env=environment,
                    # Ctrl-C goes to the benchmark alone, which then stops the system in order.
                    start_new_session=True,
                )
            with child:
                try:
                    yield Driver(child, log)
                except BaseException:
                    # It may be in the middle of a measurement, and would not see the end of its input.
                    child.terminate()
                    raise
                finally:
                    _stop(child)
        finally:
            stop_descendants()
            shutil.rmtree(own, ignore_errors=True)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Lets the driver stop its system: at the end of its input, then on SIGTERM."""
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    for ask in (lambda: None, child.terminate, child.kill):
        ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
            return


def once(row: Row, folder: Path, seconds: float, limit: int) -> None:
    """Measures a row once more; the first time it also finds out how many tasks to run."""
    # A system that is ten times as slow as it was at first has stopped for some reason.
    patience = 60 + 10 * seconds
    with started(row.variant, row.workers, folder) as driver:
        row.version = driver.version
        driver.run(min(WARM_UP, limit), patience)
        if not row.tasks:
            row.tasks = size(lambda tasks: driver.run(tasks, patience), seconds, limit)
        row.rates.append(row.tasks / driver.run(row.tasks, patience))


def ours(rows: list[Row], program: Path, jobs: int, folder: Path) -> None:
    """Runs `bench_path` once and adds what it printed to its rows."""
    log = folder / "logs" / "bench_path.log"
    log.unlink(missing_ok=True)
    try:
        run([str(program), str(jobs)], log, timeout=600)
        rates = parse_bench_path(log.read_text(errors="replace"))
        for row in rows:
            if row.workers in rates:
                row.tasks = jobs
                row.rates.append(rates[row.workers])
            else:
                row.problem = f"not in the output of {program}"
    except (BenchError, OSError, subprocess.TimeoutExpired) as error:
        for row in rows:
            row.problem = f"{program}: {error}"
    finally:
        stop_descendants()


def parse_bench_path(text: str) -> dict[int, float]:
    """Jobs a second for each number of workers, from the output of `bench_path`."""
    return {int(workers): float(rate) for workers, rate in _OURS.findall(text)}


def measure(
    rows: list[Row],
    folder: Path,
    rounds: int,
    seconds: float,
    limit: int,
    say: Callable[[str], None],
    bench_path: Path | None = None,
) -> None:
    """Measures all rows in rounds. One that fails says why, and the others go on."""
    own = [row for row in rows if row.variant is OURS]
    rows = [row for row in rows if row.variant is not OURS]
    for number in range(1, rounds + 1):
        if own and bench_path is not None and not any(row.problem for row in own):
            say(f"round {number} of {rounds}: {OURS.name} …")
            ours(own, bench_path, min(limit, OUR_JOBS), folder)
        for row in rows:
            what = f"round {number} of {rounds}: {row.variant.name}, workers: {row.workers}"
            if row.problem:
                continue
            say(f"{what} …")
            try:
                once(row, folder, seconds, limit)
            except (BenchError, OSError) as error:
                row.problem = " ".join(str(error).split())
                say(f"{what}: {row.problem}")
            else:
                say(f"{what}: {row.rates[-1]:.0f} jobs a second ({row.tasks} jobs)")
