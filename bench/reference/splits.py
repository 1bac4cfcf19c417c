"""Stand in for a reference's data loaders, and time what its trainer does between two batches. Needs no PyTorch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

# Batches of what is not timed; EMT-DLFR's trainer divides by half their number.
UNTIMED = 2
# How many predictions are timed, at least.
PREDICTIONS = 256


class Measured(Exception):
    """Ends a trainer that would train for many epochs."""


class Training:
    """The training split: the same batch again and again.

    Passes before the first validation are short and not timed: Self-MM generates labels and TFR-Net trains its
    generators from the second epoch on. Every pass of the second epoch has a round that is not timed and `rounds` that
    are.
    """

    def __init__(self, batch: Any, steps: int, rounds: int) -> None:
        self.batch, self.steps, self.rounds = batch, steps, rounds
        self.second_epoch = False
        # Seconds a step, of all timed rounds.
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return self.steps * (self.rounds + 1)

    def __iter__(self) -> Iterator[Any]:
        if not self.second_epoch:
            yield from itertools.repeat(self.batch, UNTIMED)
            return
        for round_ in range(self.rounds + 1):
            start = time.perf_counter()
            # A trainer comes back for the next batch when it has ended its step.
            yield from itertools.repeat(self.batch, self.steps)
            if round_ > 0:
                self.seconds.append((time.perf_counter() - start) / self.steps)


class Validation:
    """The validation split, which follows the training split of each epoch.

    After the second epoch, and after a batch that is not timed, it is `PREDICTIONS` samples long or longer, and ends the
    training. `of_size` makes a batch of so many samples.
    """

    def __init__(self, of_size: Callable[[int], Any], training: Training, size: int, timed: bool) -> None:
        self.of_size, self.training, self.timed = of_size, training, timed
        # Samples in a batch: as the reference evaluates, if its trainer says so.
        self.size = size
        # Predictions a second.
        self.rate: float | None = None

    def __len__(self) -> int:
        return UNTIMED

    def __iter__(self) -> Iterator[Any]:
        batch = self.of_size(self.size)
        if not self.training.second_epoch:
            self.training.second_epoch = True
            yield from itertools.repeat(batch, UNTIMED)
            return
        if self.timed:
            yield batch
            batches = -(-PREDICTIONS // self.size)
            start = time.perf_counter()
            yield from itertools.repeat(batch, batches)
            self.rate = batches * self.size / (time.perf_counter() - start)
        raise Measured
