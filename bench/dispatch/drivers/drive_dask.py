"""Dask: a scheduler process, worker processes of one thread each, and one `Client.map`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import distributed
from protocol import Request, children, serve, wait_until


def noop(_: int) -> None:
    """The task."""


class Dask:
    """A connected client."""

    version = distributed.__version__

    def __init__(self, client: distributed.Client) -> None:
        self.client = client

    def run(self, tasks: int) -> None:
        # `pure=False`: or the same calls of an earlier measurement would not be made again.
        results = self.client.gather(self.client.map(noop, range(tasks), pure=False))
        if results != [None] * tasks:
            raise SystemExit(f"{len(results)} of {tasks} results")


@contextmanager
def start(request: Request) -> Iterator[Dask]:
    """Starts a scheduler and its workers."""
    file = request.folder / "scheduler.json"
    cli = [sys.executable, "-m"]
    scheduler = [*cli, "distributed.cli.dask_scheduler", "--scheduler-file", str(file)]
    worker = [*cli, "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-nanny", "--nthreads", "1"]
    worker += ["--local-directory", str(request.folder), "--host", "127.0.0.1", "--no-dashboard"]
    with children() as begin:
        running = [begin([*scheduler, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"])]
        wait_until(lambda: file.exists() and file.stat().st_size > 0, "Dask's scheduler", running)
        running += [begin(worker) for _ in range(request.workers)]
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(request.workers, timeout=60)
            yield Dask(client)


if __name__ == "__main__":
    serve(start)
