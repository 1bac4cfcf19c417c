"""The systems that are measured, and what each promises while it is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from environment import install
from processes import BenchError

DRIVERS = Path(__file__).resolve().parent / "drivers"
SYSTEMS = ("hyperqueue", "dask", "ray", "celery")


@dataclass(frozen=True)
class Variant:
    """One system in one configuration."""

    system: str
    name: str
    # Short, for the table.
    durable: str
    # Precisely, with the option used.
    promise: str
    task: str
    driver: str
    # From the folder of environments to the driver's Python and the driver's options. Raises BenchError.
    prepare: Callable[[Path], tuple[Path, dict[str, str]]] = field(repr=False)


OURS = Variant(
    "halfheard",
    "Halfheard (bench_path)",
    "commits fsynced, messages each 2 min",
    "Jobs and results are in JetStream's files and committed to Postgres; Postgres syncs each "
    "commit, nats-server its files each 2 min (its default): a kill loses nothing, a power cut at most work since then",
    "a message to a process of the program `worker`, which answers at once",
    "",
    lambda folder: (folder, {}),
)


def _packaged(system: str, **options: str) -> Callable[[Path], tuple[Path, dict[str, str]]]:
    return lambda folder: (install(system, folder), options)


def hq_program(given: Path | None) -> Path:
    """The program `hq`: the given one, that of HALFHEARD_HQ, or that of PATH."""
    named = given or (Path(os.environ["HALFHEARD_HQ"]) if os.environ.get("HALFHEARD_HQ") else None)
    if named is not None:
        if not os.access(named, os.X_OK) or named.is_dir():
            raise BenchError(f"cannot run {named}: not an executable file")
        return named.resolve()
    found = shutil.which("hq")
    if found is None:
        raise BenchError("`hq` not found: the package on PyPI lacks it; put it on PATH, or pass --hq FILE")
    return Path(found)


def variants(hq: Path | None) -> list[Variant]:
    """All variants, in the order of the table."""

    def program(**options: str) -> Callable[[Path], tuple[Path, dict[str, str]]]:
        return lambda _folder: (Path(sys.executable), {"program": str(hq_program(hq)), **options})

    process = "a process (`/bin/true`)"
    array = f"{process}, of one array job"
    call = "a call of a Python function in a worker process"
    memory = "Tasks and results are in the memory of"
    journal = (
        "Events are appended to a journal (`hq server start --journal FILE --journal-flush-period {0}`), which is "
        "written and synced (fdatasync) each {0}; submission and completion do not wait for it"
    )
    aof = (
        "Queue and results are in an append-only file (`--appendonly yes --appendfsync {}`), {}; workers acknowledge a "
        "task after it has run (`task_acks_late`, `task_reject_on_worker_lost`)"
    )
    return [
        Variant(
            "hyperqueue",
            "HyperQueue (hq)",
            "nothing",
            f"{memory} the server (no `--journal`)",
            array,
            "drive_hq.py",
            program(),
        ),
        Variant(
            "hyperqueue",
            "HyperQueue (hq), journal",
            "journal, fsync each 30 s",
            f"{journal.format('30s')} (30 s is the default)",
            array,
            "drive_hq.py",
            program(journal="30s"),
        ),
        Variant(
            "hyperqueue",
            "HyperQueue (hq), journal, 10 ms",
            "journal, fsync each 10 ms",
            journal.format("10ms"),
            array,
            "drive_hq.py",
            program(journal="10ms"),
        ),
        Variant(
            "hyperqueue",
            "HyperQueue (Python package)",
            "nothing",
            f"{memory} the server, which the package starts without a journal, in one process with client and workers",
            f"{process}, of one job of single tasks",
            "drive_hyperqueue.py",
            _packaged("hyperqueue"),
        ),
        Variant(
            "dask",
            "Dask",
            "nothing",
            f"{memory} the scheduler and the workers (there is no option)",
            f"{call} (`Client.map`)",
            "drive_dask.py",
            _packaged("dask"),
        ),
        Variant(
            "ray",
            "Ray",
            "nothing",
            f"{memory} the driver and the workers; the control store too (no external Redis)",
            f"{call} (`.remote()`)",
            "drive_ray.py",
            _packaged("ray"),
        ),
        Variant(
            "celery",
            "Celery + Valkey",
            "nothing",
            f"{memory} Valkey (`--appendonly no --save ''`); workers acknowledge a task before it runs",
            call,
            "drive_celery.py",
            _packaged("celery"),
        ),
        Variant(
            "celery",
            "Celery + Valkey, AOF, 1 s",
            "log on disk, fsync each 1 s",
            aof.format("everysec", "written before each reply and synced once a second"),
            call,
            "drive_celery.py",
            _packaged("celery", appendfsync="everysec"),
        ),
        Variant(
            "celery",
            "Celery + Valkey, AOF, always",
            "log on disk, fsync before reply",
            aof.format("always", "written and synced before each reply"),
            call,
            "drive_celery.py",
            _packaged("celery", appendfsync="always"),
        ),
    ]
