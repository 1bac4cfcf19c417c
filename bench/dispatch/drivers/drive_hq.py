"""HyperQueue by its program `hq`: one array job of processes, submitted with `hq submit --wait`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from protocol import Request, children, serve, wait_until


class HyperQueue:
    """A server and its workers, one core each."""

    def __init__(self, request: Request) -> None:
        program = request.options["program"]
        self.request = request
        self.hq = [program, "--server-dir", str(request.folder / "server")]
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self.version = said.split()[-1].removeprefix("v")

    def ask(self, *arguments: str) -> object:
        """Runs a command of the client that prints JSON; None if it fails."""
        done = subprocess.run([*self.hq, "--output-mode", "json", *arguments], capture_output=True, text=True)
        return json.loads(done.stdout or "null") if done.returncode == 0 else None

    def run(self, tasks: int) -> None:
        # Without files for the output of each task, which is what takes the most time otherwise.
        submit = ["submit", "--wait", "--array", f"1-{tasks}", "--stdout=none", "--stderr=none", "--directives=off"]
        subprocess.run([*self.hq, *submit, "--", "/bin/true"], check=True, cwd=self.request.folder)
        job = self.ask("job", "list", "--all")[-1]
        finished = job["task_stats"]["finished"]
        if finished != tasks:
            raise SystemExit(f"{finished} of {tasks} tasks finished: {job}")


@contextmanager
def start(request: Request) -> Iterator[HyperQueue]:
    """Starts a server, with a journal if one is asked for, and its workers."""
    system = HyperQueue(request)
    server = [*system.hq, "server", "start", "--host", "127.0.0.1"]
    if period := request.options.get("journal"):
        server += ["--journal", str(request.folder / "journal"), "--journal-flush-period", period]
    worker = [*system.hq, "worker", "start", "--cpus", "1", "--detect-resources", "none", "--manager", "none"]
    with children() as begin:
        running = [begin(server)]
        wait_until(lambda: system.ask("server", "info") is not None, "HyperQueue's server", running)
        for number in range(request.workers):
            running.append(begin([*worker, "--work-dir", str(request.folder / f"worker-{number}")]))
        wait_until(lambda: len(system.ask("worker", "list") or []) == request.workers, "HyperQueue's workers", running)
        yield system


if __name__ == "__main__":
    serve(start)
