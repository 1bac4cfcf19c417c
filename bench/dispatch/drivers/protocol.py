"""What every driver speaks with the benchmark: JSON, one object a line.

A driver runs in the environment of its system. Its only argument is a JSON object (`Request`). It starts the system on
loopback, with all workers connected, and says `{"version": ...}`. For each line `{"tasks": N}` that it then reads, it
submits N no-op tasks, waits until all results are there, and answers `{"seconds": ...}`. At the end of its input, and
on SIGTERM and SIGINT, it stops the system.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class System(Protocol):
    """A started system with all its workers."""

    version: str

    def run(self, tasks: int) -> None:
        """Submits so many no-op tasks and returns when all their results are there."""


@dataclass(frozen=True)
class Request:
    """What a driver is asked to start."""

    workers: int
    # Empty, of this driver alone, removed by the benchmark.
    folder: Path
    options: dict[str, str] = field(default_factory=dict)


def serve(start: Callable[[Request], AbstractContextManager[System]]) -> None:
    """Runs a driver to its end."""
    # Whatever the system's libraries print goes to the log, not among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    given = json.loads(sys.argv[1])
    request = Request(given["workers"], Path(given["folder"]), given["options"])
    with start(request) as system:
        print(json.dumps({"version": system.version}), file=answers)
        for line in sys.stdin:
            tasks = json.loads(line)["tasks"]
            since = time.perf_counter()
            system.run(tasks)
            print(json.dumps({"seconds": time.perf_counter() - since}), file=answers)


@contextmanager
def children() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that starts processes; at the end they are stopped, the last started first."""
    with ExitStack() as stack:

        def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
            stack.callback(stop, child)
            return child

        yield start


def stop(child: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """Ends a process: asks with SIGTERM, then kills."""
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def wait_until(ready: Callable[[], bool], what: str, watched: list[subprocess.Popen[bytes]], limit: float = 60) -> None:
    """Waits until something is the case, or fails when time is up or a watched process has ended."""
    until = time.monotonic() + limit
    while not ready():
        for child in watched:
            if child.poll() is not None:
                sys.exit(f"{what}: a process ended with exit code {child.returncode}: {child.args}")
        if time.monotonic() > until:
            sys.exit(f"{what}: not within {limit:.0f} s")
        time.sleep(0.05)
