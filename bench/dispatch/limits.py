"""What the machine can do at most: limits that bound the dispatch of durable jobs and of processes."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from processes import BenchError

RECORD = bytes(200)  # About the size of a result in a journal.


@dataclass(frozen=True)
class Limit:
    """One measured limit."""

    what: str
    per_second: float


def machine() -> str:
    """The processor, its cores, the load before the benchmark and the kernel."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    models = [line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{models[0] if models else platform.machine()}, {cores} cores, load {load:.1f}, Linux {platform.release()}"


def _rate(step: Callable[[], int], seconds: float) -> float:
    """Calls `step` for so many seconds; it returns how many things it did."""
    count, start = 0, time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds or not count:
        count += step()
    return count / elapsed


def appends(folder: Path, seconds: float) -> float:
    """Appends of a record to a file a second, each followed by fdatasync."""
    path = folder / "fsync.tmp"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def append() -> int:
        os.write(file, RECORD)
        os.fdatasync(file)
        return 1

    try:
        return _rate(append, seconds)
    finally:
        os.close(file)
        path.unlink()


def starts(at_once: int, seconds: float) -> float:
    """Processes of `true` started and waited for a second, with so many at once."""
    program = shutil.which("true")
    if program is None:
        raise BenchError("program `true` not found on PATH")
    running: list[int] = []

    def start() -> int:
        running.append(os.posix_spawn(program, [program], os.environ))
        if len(running) < at_once:
            return 0
        _check(os.waitpid(running.pop(0), 0)[1])
        return 1

    try:
        return _rate(start, seconds)
    finally:
        for pid in running:
            os.waitpid(pid, 0)


def _check(status: int) -> None:
    if status != 0:
        raise BenchError(f"`true` failed with exit code {os.waitstatus_to_exitcode(status)}")


def measure(folder: Path, at_once: int, seconds: float = 2.0) -> list[Limit]:
    """Measures all limits; the file to append to lies in `folder`."""
    found = [
        Limit(f"appends of {len(RECORD)} bytes, each with fdatasync, in {folder}", appends(folder, seconds)),
        Limit("processes (`true`) started, one after the other", starts(1, seconds)),
    ]
    if at_once > 1:
        found.append(Limit(f"processes (`true`) started, {at_once} at once", starts(at_once, seconds)))
    return found
