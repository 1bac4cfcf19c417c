"""What is missing of the training split: the regimes of a spec's ``train_missing``, to the bit as workers erase it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cases import Case
from .dataset import Split
from .erasure import BERT_PADDING, BERT_UNKNOWN, ERASURE_SEED, Batch, ErasedSplit, Rates, draw_rates
from .step_seed import WHOLE_EPOCH, step_seed

#: The batch size of LNLN's authors.
BATCH_SIZE = 64
#: Their loading processes.
_LOADERS = 8
#: The epoch that stands for what is drawn before the first one.
_BEFORE = 0


@dataclass(frozen=True)
class Visits:
    """In which order a pass visits samples. Only ``lnln-loader`` depends on it.

    Attributes:
        order: The samples, int64 ``[n]``.
        batch_size: Samples in a batch.
        number: Which pass of its epoch it is, from 0.
    """

    order: Sequence[int] | NDArray[np.int64]
    batch_size: int = BATCH_SIZE
    number: int = 0


def training_rates(
    train_missing: str, samples: int, run_seed: int, epoch: int, visits: Visits | None = None
) -> Rates:
    """The missing rates of a pass over the training split.

    Args:
        train_missing: The regime: ``complete``, ``fixed:0.2``, ``drawn-once``, ``redrawn`` or ``lnln-loader``.
        samples: How many there are.
        run_seed: The run's seed.
        epoch: The epoch, from 1.
        visits: In which order samples are visited: for ``lnln-loader``.

    Raises:
        ValueError: An unknown regime, or one that needs ``visits``.
    """
    if train_missing == "complete":
        return Rates.complete(samples)
    if train_missing == "drawn-once":
        return Rates.of_training(samples, run_seed, _BEFORE)
    if train_missing == "redrawn":
        return Rates.of_training(samples, run_seed, epoch)
    if train_missing == "lnln-loader":
        if visits is None:
            raise ValueError(
                "what `lnln-loader` erases depends on the order in which samples are visited: give `visits`, a"
                " `halfheard.Visits`"
            )
        return _loaded(samples, run_seed, epoch, visits)
    regime, _, rate = train_missing.partition(":")
    if regime == "fixed" and rate:
        return Rates.of_case(Case.parse(f"r={rate}"), samples)
    raise ValueError(
        f"`{train_missing}` is not a training regime: `complete`, `fixed:0.2` (a missing rate), `drawn-once`,"
        " `redrawn` or `lnln-loader`"
    )


def _loaded(samples: int, run_seed: int, epoch: int, visits: Visits) -> Rates:
    """As LNLN's authors load it. The dataset draws rates when it is made, and again whenever sample 0 is read; it is
    read by processes that are forked from it for every pass, so what one of them draws is its own and gone with it.
    Batches go to the processes in turn."""
    rates = Rates.of_training(samples, run_seed, _BEFORE)
    order = np.asarray(visits.order, np.int64)
    found = np.flatnonzero(order == 0)
    if len(found) == 0:
        return rates
    first = int(found[0])
    process = np.arange(len(order)) // max(visits.batch_size, 1) % _LOADERS
    redrawn = order[first:][process[first:] == process[first]]
    new = draw_rates(samples, [run_seed & 0xFFFFFFFF, run_seed >> 32, epoch, visits.number, 0x000E5A5E])
    for own, other in ((rates.text, new.text), (rates.audio, new.audio), (rates.vision, new.vision)):
        own[redrawn] = other[redrawn]
    return rates


def erase_training(
    split: Split,
    run_seed: int,
    epoch: int,
    seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
    *,
    train_missing: str = "redrawn",
    repeated_numbers: bool = True,
    visits: Visits | None = None,
) -> Batch:
    """A training split as the benchmark erases it in one epoch (from 1) of the run with this seed.

    Args:
        split: The split.
        run_seed: The run's seed.
        epoch: The epoch, from 1.
        seed: The protocol's erasure seed.
        unknown: The token that stands for missing ones: that of the encoder that will read the text.
        padding: The token at padding.
        train_missing: The regime, as in a spec.
        repeated_numbers: Whether new rates are compared with the same uniform numbers in every epoch: the fault
            ``repeated-numbers`` of references.
        visits: In which order samples are visited: for ``lnln-loader``.

    Raises:
        ValueError: An unknown regime, or one that needs ``visits``.
    """
    return training_split(
        split,
        run_seed,
        epoch,
        seed,
        unknown,
        padding,
        train_missing=train_missing,
        repeated_numbers=repeated_numbers,
        visits=visits,
    )[:]


def training_split(
    split: Split,
    run_seed: int,
    epoch: int,
    seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
    *,
    train_missing: str = "redrawn",
    repeated_numbers: bool = True,
    visits: Visits | None = None,
) -> ErasedSplit:
    """As :func:`erase_training`, masked when samples are asked for."""
    rates = training_rates(train_missing, len(split), run_seed, epoch, visits)
    # With other numbers samples would not keep the erasure that the other regimes say they keep.
    if train_missing == "redrawn" and not repeated_numbers:
        seed = step_seed(run_seed, epoch, WHOLE_EPOCH, 0)
    return ErasedSplit(split, rates, seed, unknown, padding)
