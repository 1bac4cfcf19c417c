"""Child processes that do not outlive the benchmark, whatever they start themselves.

A system under test starts daemons in sessions of their own. This process adopts the orphans among its descendants
(PR_SET_CHILD_SUBREAPER, Linux), so that they can be found and stopped even after their parents are gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


class BenchError(Exception):
    """A failure that the user is told in one line."""


def adopt_orphans() -> None:
    """Makes this process the parent of all orphans among its descendants."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise BenchError(f"cannot adopt orphaned processes: {os.strerror(ctypes.get_errno())}")


def end_on_signals() -> None:
    """Lets the first SIGINT, SIGTERM or SIGHUP end the benchmark.

    Later ones are ignored, since they would end the clean-up.
    """
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]

    def interrupt(number: int, _frame: object) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in numbers:
        signal.signal(number, interrupt)


def _parents() -> dict[int, int]:
    """The parent of each process of this machine; zombies are left out."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The program's name may hold spaces and parentheses; the state and the parent come after it.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # It has ended meanwhile.
        if state != "Z":
            parents[int(entry.name)] = int(parent)
    return parents


def descendants(root: int | None = None) -> set[int]:
    """Living descendants of a process, of this one by default."""
    parents = _parents()
    found: set[int] = set()
    fresh = {root if root is not None else os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh and pid not in found}
        found |= fresh
    return found


def _reap() -> None:
    """Collects ended children, so that they do not stay as zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def stop_descendants(grace: float = 3.0, limit: float = 15.0) -> None:
    """Stops all descendants: with SIGTERM first, after `grace` seconds with SIGKILL.

    Raises BenchError if some are still there after `limit` seconds.
    """
    start = time.monotonic()
    asked: set[int] = set()
    while left := descendants():
        waited = time.monotonic() - start
        if waited > limit:
            raise BenchError(f"processes are still running: {' '.join(map(str, sorted(left)))}")
        for pid in left:
            kill = waited >= grace
            if kill or pid not in asked:
                asked.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                except ProcessLookupError:
                    pass
        time.sleep(0.02)
        _reap()
    _reap()


def run(command: list[str], log: Path, **options: object) -> None:
    """Runs a command to its end; its output goes to the end of `log`.

    Raises BenchError with the last line of its output if it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
    if done.returncode != 0:
        raise BenchError(f"{last_line(log)} (exit code {done.returncode}; log: {log})")


def last_line(log: Path) -> str:
    """The last line of a log that says something; of pip's output, its last error."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    errors = [line for line in lines[-20:] if line.startswith("ERROR: ")]
    line = errors[-1].removeprefix("ERROR: ") if errors else lines[-1] if lines else "no output"
    return line if len(line) <= 300 else line[:299] + "…"
