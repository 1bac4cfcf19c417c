"""Runs a model as a program: the whole of training and evaluation, saving and resuming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .erasure import Batch
from .job import Job, Stopped, job
from .kept_values import Kept


class Trainable(Protocol):
    """What :func:`run` needs of a model. Two methods more are used if it has them:

    ``checkpoint()`` returns what prediction needs, where the state has more (an optimizer's moments): it becomes the
    checkpoint of an epoch instead of the state, and ``load`` is given either.

    ``is_done(job, epoch, predictions)`` says after an epoch whether to stop, given the predictions of the selection
    split; where both splits select, of the validation split.
    """

    def fit_epoch(self, job: Job, epoch: int, /) -> float | Mapping[str, float]:
        """Trains for one epoch and returns its mean losses."""

    def predict(self, batch: Batch, /) -> ArrayLike:
        """One value for each sample of the batch, on the scale of the labels."""

    def state(self) -> Kept:
        """All that the next epoch and predictions depend on."""

    def load(self, state: Any, /) -> None:
        """Continues from a state."""


def run(build: Callable[[Job], Trainable], *, batch_size: int = 256) -> None:
    """Does what the worker asks for with the model that ``build`` makes, a class, for example, whose constructor takes
    the job.

    Training goes from the state that an earlier attempt has saved through all epochs, reports each and saves after
    each. An evaluation loads each checkpoint and predicts the cases.

    Args:
        build: Makes the model of a job. What is random in it must follow from ``job.epoch_seed(0)``.
        batch_size: The most samples that ``predict`` is given at once.

    Raises:
        JobError: No worker has started this program.
    """
    work = job()
    model = build(work)
    if work.task == "train":
        _train(work, model, batch_size)
    else:
        _evaluate(work, model, batch_size)
    work.finish()


def _train(work: Job, model: Trainable, batch_size: int) -> None:
    state = work.restore()
    if state is not None:
        model.load(state)
    for epoch in work.epochs():
        losses = model.fit_epoch(work, epoch)
        splits = work.selections.items()
        predictions = {name: _predict(work, model, split, batch_size, epoch) for name, split in splits}
        first = next(iter(predictions.values()))
        is_done = getattr(model, "is_done", lambda *_: False)(work, epoch, first)
        work.report(epoch, losses, predictions, getattr(model, "checkpoint", model.state)())
        # After the last epoch there is nothing to resume: an attempt that is killed now repeats it.
        if is_done or epoch == work.max_epochs:
            return
        work.save(model.state())


def _evaluate(work: Job, model: Trainable, batch_size: int) -> None:
    cases = list(work.cases())
    # Each checkpoint is loaded once.
    for checkpoint in sorted({checkpoint for case in cases for checkpoint in case.checkpoints}):
        model.load(work.load(checkpoint))
        for case in cases:
            if checkpoint in case.checkpoints:
                work.predict(case, checkpoint, _predict(work, model, case.inputs, batch_size))


def _predict(
    work: Job, model: Trainable, inputs: Batch, batch_size: int, epoch: int | None = None
) -> NDArray[np.float32]:
    predictions = np.empty(len(inputs), np.float32)
    for start in range(0, len(inputs), batch_size):
        if work.stop_requested:
            raise Stopped
        # A sign of life; evaluations have no epoch to speak of.
        work.progress(epoch or 1)
        batch = inputs[start : start + batch_size]
        values: Any = model.predict(batch)
        if hasattr(values, "detach"):
            values = values.detach().cpu().numpy()
        values = np.asarray(values, np.float32).reshape(-1)
        if len(values) != len(batch):
            raise ValueError(f"`predict` returned {len(values)} values for {len(batch)} samples")
        predictions[start : start + len(batch)] = values
    return predictions
