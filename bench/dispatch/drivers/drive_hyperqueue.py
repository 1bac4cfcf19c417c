"""HyperQueue by its Python package, which has neither a journal nor array jobs: one job of processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.ffi import get_version
from protocol import Request, serve


class _StillRunning(Exception):
    pass


class HyperQueue:
    """A server and workers of one core each, as threads of this process: that is how the package starts them."""

    version = get_version().removeprefix("v")

    def __init__(self, cluster: LocalCluster, request: Request) -> None:
        self.client = cluster.client()
        self.request = request

    def run(self, tasks: int) -> None:
        job = Job(default_workdir=self.request.folder)
        for _ in range(tasks):
            job.program(["/bin/true"], stdout=None, stderr=None)
        submitted = self.client.submit(job)
        while (finished := self.finished(submitted.id)) is None:
            time.sleep(0.05)
        if finished != tasks:
            raise SystemExit(f"{finished} of {tasks} tasks finished")

    def finished(self, job: int) -> int | None:
        """The number of tasks finished, or None while some are not.

        The package's own wait looks once a second, which would round every measurement up. It stops waiting if the
        function that it reports to raises.
        """
        counts: dict[int, dict[str, int]] = {}

        def report(jobs: dict[int, dict[str, int]]) -> None:
            counts.update(jobs)
            if not jobs[job]["completed"]:
                raise _StillRunning

        try:
            self.client.connection.wait_for_jobs([job], report)
        except _StillRunning:
            return None
        return counts[job]["finished"]


@contextmanager
def start(request: Request) -> Iterator[HyperQueue]:
    """Starts a server and its workers."""
    with LocalCluster(server_dir=str(request.folder / "server")) as cluster:
        for _ in range(request.workers):
            cluster.start_worker(WorkerConfig(cores=1))
        yield HyperQueue(cluster, request)


if __name__ == "__main__":
    serve(start)
