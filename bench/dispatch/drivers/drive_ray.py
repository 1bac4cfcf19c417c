"""Ray: a local node with so many CPUs, and one `ray.get` of all tasks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Nothing is reported to anybody. It counts only before the import.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray  # noqa: E402
from protocol import Request, serve  # noqa: E402


@ray.remote(num_cpus=1)
def noop() -> None:
    """The task."""


class Ray:
    """An initialized Ray."""

    version = ray.__version__

    def run(self, tasks: int) -> None:
        results = ray.get([noop.remote() for _ in range(tasks)])
        if results != [None] * tasks:
            raise SystemExit(f"{len(results)} of {tasks} results")


@contextmanager
def start(request: Request) -> Iterator[Ray]:
    """Starts a node; its workers are processes that run one task at a time."""
    ray.init(
        address="local",
        num_cpus=request.workers,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        # The benchmark's temporary folder, which it removes: the paths of Ray's sockets below it are long, and a
        # socket's path has at most 107 bytes.
        _temp_dir=tempfile.gettempdir(),
    )
    try:
        yield Ray()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    serve(start)
