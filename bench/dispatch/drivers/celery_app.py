"""The Celery application that the client and the workers import; its configuration comes from the environment."""

from __future__ import annotations

import os

from celery import Celery

_url = os.environ["BENCH_CELERY_URL"]
_late = os.environ["BENCH_CELERY_LATE"] == "1"

app = Celery("celery_app", broker=_url, backend=_url)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=_late,
    task_reject_on_worker_lost=_late,
    # Short tasks: a worker fetches many at once, as Celery's guide advises.
    worker_prefetch_multiplier=128,
)


@app.task
def noop() -> None:
    """The task."""
