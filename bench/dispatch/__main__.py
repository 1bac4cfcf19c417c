"""Measures the no-op jobs a second of other systems on this machine, with what each of them promises meanwhile."""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
from pathlib import Path
from typing import TextIO

sys.dont_write_bytecode = True  # The source tree stays clean.

sys.path.append(str(Path(__file__).resolve().parent.parent))

import limits
import table
from measure import Row, measure
from page import place_table
from processes import BenchError, adopt_orphans, end_on_signals, stop_descendants
from systems import OURS, SYSTEMS, variants

ROOT = Path(__file__).resolve().parent.parent.parent


def _system(text: str) -> str:
    """A system's name, for argparse."""
    if text not in SYSTEMS:
        raise argparse.ArgumentTypeError(f'unknown system "{text}"; there are {", ".join(SYSTEMS)}')
    return text


def _positive(text: str) -> int:
    """A positive integer, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f'not a positive integer: "{text}"')
    return value


def _seconds(text: str) -> float:
    """A number of seconds, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 600:
        raise argparse.ArgumentTypeError(f'not a number of seconds from 0.1 to 600: "{text}"')
    return value


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python bench/dispatch", description=__doc__)
    option = made.add_argument
    option("systems", nargs="*", type=_system, metavar="SYSTEM", help=f"{', '.join(SYSTEMS)}; all by default")
    option(
        "--jobs",
        type=_positive,
        default=100_000,
        metavar="N",
        help="run at most N jobs a measurement (default: %(default)s)",
    )
    option(
        "--workers",
        type=_positive,
        action="append",
        metavar="N",
        help="run so many workers; can be repeated (default: 1 and 4)",
    )
    option(
        "--seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="aim at measurements of S seconds (default: %(default)s)",
    )
    option("--rounds", type=_positive, default=3, metavar="N", help="measure everything N times (default: %(default)s)")
    option(
        "--folder",
        type=Path,
        default=ROOT / "target/bench-dispatch",
        metavar="FOLDER",
        help="keep environments, logs and the systems' files there (default: target/bench-dispatch)",
    )
    option(
        "--hq", type=Path, metavar="FILE", help="run HyperQueue with this `hq` (default: HALFHEARD_HQ, or that of PATH)"
    )
    option(
        "--bench-path", type=Path, metavar="FILE", help="measure Halfheard in the same rounds, with this `bench_path`"
    )
    option("--json", action="store_true", help="print JSON")
    option("--page", type=Path, metavar="FILE", help="also replace the table in a page of the documentation")
    return made


def _lock(folder: Path) -> TextIO:
    """Keeps a second benchmark out of the folder, for as long as the returned file is open."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BenchError(f"{folder} is in use by another run; wait for it, or pass another --folder") from None
    return file


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    options = parser().parse_args(arguments)
    wanted = options.systems or list(SYSTEMS)
    workers = list(dict.fromkeys(options.workers or [1, 4]))
    rows = [Row(variant, count) for variant in variants(options.hq) if variant.system in wanted for count in workers]
    if options.bench_path is not None:
        rows = [Row(OURS, count) for count in workers] + rows
    program = options.bench_path.resolve() if options.bench_path is not None else None

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        adopt_orphans()
        end_on_signals()
        folder = options.folder.resolve()
        held = _lock(folder)
        machine = limits.machine()
        say("measuring the limits of the machine …")
        found = limits.measure(folder, max(workers))
        try:
            measure(rows, folder, options.rounds, options.seconds, options.jobs, say, bench_path=program)
        finally:
            stop_descendants()
            held.close()
    except KeyboardInterrupt:
        say("interrupted; all processes are stopped")
        return 130
    except (BenchError, OSError) as error:
        say(f"error: {error}")
        return 1
    if options.json:
        json.dump(table.document(machine, found, rows), sys.stdout, indent=2)
        print()
    else:
        print(table.text(machine, found, rows), end="")
    if options.page:
        try:
            place_table(options.page, "bench/dispatch", table.markdown(machine, found, rows))
        except (OSError, ValueError) as error:
            say(f"error: {error}")
            return 1
    return 0 if any(row.rates for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
