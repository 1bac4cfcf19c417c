"""Erasure: which steps of which samples are missing.

As the reference draws it (LNLN's ``core/dataset.py``): one uniform number for each step of each sample from
NumPy's legacy generator, reseeded with the same seed for each modality; a step is kept where its number
exceeds the sample's rate and it is not padding. What is missing of a sample depends on its place in the
split, so a split is always erased as a whole.

The field's other protocols that erase are here, too: whole modalities of single samples, blocks and bursts of steps.
Damage that changes features or words (``noise``, ``asr``, ``permuted``, ``averaged``) needs the training split or a
vocabulary: ``coord cases export`` writes such splits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import Case
from .dataset import Split

#: The seed of the paper's erasure.
ERASURE_SEED = 1111
#: BERT's ``[UNK]`` and ``[PAD]``.
BERT_UNKNOWN, BERT_PADDING = 100, 0
#: Kinds of cases that change features or words instead of erasing them.
_CHANGES = ("asr", "noise", "permuted", "averaged")


@dataclass(frozen=True)
class Rates:
    """The rate of each sample in each modality, float64 ``[n]``."""

    text: NDArray[np.float64]
    audio: NDArray[np.float64]
    vision: NDArray[np.float64]

    @classmethod
    def of_case(cls, case: Case, samples: int, seed: int = ERASURE_SEED) -> Rates:
        """The rates at which a case erases each of ``samples``. Those of ``mr`` are 1 where a modality of a sample is
        missing, those of ``block`` and ``bursts`` the share that is, and 0 where nothing is missing but features or
        words are changed."""
        if case.kind == "mr":
            missing = 1.0 - random_modality(samples, case.amount, case.seed(seed))
            # The order of the columns in GCNet's training.
            audio, text, vision = missing.T
            return cls(text, audio, vision)
        if case.kind in ("block", "bursts"):
            return cls(*(np.full(samples, case.amount) for _ in range(3)))
        if case.kind in _CHANGES:
            return cls.complete(samples)
        return cls(*(np.full(samples, case.rate_of(modality)) for modality in ("text", "audio", "vision")))

    @classmethod
    def complete(cls, samples: int) -> Rates:
        """Nothing is missing."""
        return cls(np.zeros(samples), np.zeros(samples), np.zeros(samples))

    @classmethod
    def of_training(cls, samples: int, run_seed: int, epoch: int) -> Rates:
        """The rates of one epoch (from 1) of training: in each modality half of the samples keep rate 0,
        the others draw one from U(0, 1). The same as workers draw for this run and epoch."""
        return draw_rates(samples, [run_seed & 0xFFFFFFFF, run_seed >> 32, epoch, 0x000E5A5E])

    def __getitem__(self, samples: slice | NDArray[np.intp]) -> Rates:
        """Those of some of the samples."""
        return Rates(self.text[samples], self.audio[samples], self.vision[samples])


def draw_rates(samples: int, key: list[int]) -> Rates:
    """Rates for training from the generator with this key: see :meth:`Rates.of_training`."""
    draws = np.random.RandomState(key)

    def modality() -> NDArray[np.float64]:
        rates = draws.uniform(size=samples)
        order = np.arange(samples)
        for i in range(samples // 2):
            left = samples - i
            j = i + min(int(draws.uniform() * left), left - 1)
            order[i], order[j] = order[j], order[i]
            rates[order[i]] = 0.0
        return rates

    return Rates(modality(), modality(), modality())


@dataclass(frozen=True)
class Batch:
    """A split, or a part of one, with steps missing. Missing audio and vision steps are zeros, missing
    tokens the encoder's unknown token.

    Attributes:
        text: Token ids, mask and segments, int32 ``[n, 3, text_len]``.
        audio: float32 ``[n, audio_len, audio_dim]``.
        vision: float32 ``[n, vision_len, vision_dim]``.
        text_kept: 1 where a token is kept, uint8 ``[n, text_len]``.
        audio_kept: uint8 ``[n, audio_len]``.
        vision_kept: uint8 ``[n, vision_len]``.
        audio_lengths: Steps of each sample that are not padding, missing or not, int64 ``[n]``.
        vision_lengths: The same, int64 ``[n]``.
        rates: The rates that were drawn.
        ids: The samples' ids.
    """

    text: NDArray[np.int32]
    audio: NDArray[np.float32]
    vision: NDArray[np.float32]
    text_kept: NDArray[np.uint8]
    audio_kept: NDArray[np.uint8]
    vision_kept: NDArray[np.uint8]
    audio_lengths: NDArray[np.int64]
    vision_lengths: NDArray[np.int64]
    rates: Rates
    ids: list[str]

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, samples: slice | NDArray[np.intp]) -> Batch:
        """Some of the samples."""
        return Batch(
            self.text[samples],
            self.audio[samples],
            self.vision[samples],
            self.text_kept[samples],
            self.audio_kept[samples],
            self.vision_kept[samples],
            self.audio_lengths[samples],
            self.vision_lengths[samples],
            self.rates[samples],
            _some(self.ids, samples),
        )

    def masks_sha256(self) -> str:
        """The hash of all three masks: who erases the same has the same."""
        digest = hashlib.sha256()
        for mask in (self.text_kept, self.audio_kept, self.vision_kept):
            digest.update(np.ascontiguousarray(mask).tobytes())
        return digest.hexdigest()


def kept(present: NDArray[np.uint8], rates: NDArray[np.float64], seed: int = ERASURE_SEED) -> NDArray[np.uint8]:
    """Which steps are kept, uint8 ``[n, steps]``: ``present`` is 1 where a step is not padding, ``rates``
    are ``[n]``."""
    draws = np.random.RandomState(seed).uniform(size=present.shape)
    return (draws > rates[:, None]).astype(np.uint8) * present


#: The mean length of a burst, up to the rate from which steps erased independently are in longer ones.
MEAN_BURST = 5.0


def block(present: NDArray[np.uint8], rate: float, seed: int = ERASURE_SEED) -> NDArray[np.uint8]:
    """Which steps are kept, uint8 ``[n, steps]``, if one block of each sample is erased: the rate's share of the steps
    between the first and the last, rounded half to even, anywhere between them. As NIAT draws it.

    Args:
        present: 1 where a step is not padding, uint8 ``[n, steps]``.
        rate: The share.
        seed: The protocol's erasure seed.
    """
    draws = np.random.RandomState(seed)
    kept = present.copy()
    for row, length in zip(kept, _lengths(present), strict=True):
        inner = int(length) - 2
        if inner < 0:
            continue
        missing = round(inner * rate)
        start = draws.randint(1, inner - missing + 2)
        row[start : start + missing] = 0
    return kept


def bursts(present: NDArray[np.uint8], rate: float, seed: int = ERASURE_SEED) -> NDArray[np.uint8]:
    """Which steps are kept, uint8 ``[n, steps]``, if bursts are erased: a Markov chain along each sample that erases a
    step with probability ``rate``, in bursts of ``MEAN_BURST`` steps in the mean. From a rate of 0.8, steps are erased
    independently, which makes as long ones.

    Args:
        present: 1 where a step is not padding, uint8 ``[n, steps]``.
        rate: The share.
        seed: The protocol's erasure seed.
    """
    independent = 1.0 - 1.0 / MEAN_BURST
    stay = max(rate, independent)
    enter = rate if rate >= independent else rate / (MEAN_BURST * (1.0 - rate))
    draws = np.random.RandomState(seed).uniform(size=present.shape)
    kept = present.copy()
    threshold: NDArray[np.float64] = np.full(len(present), rate)
    for step in range(present.shape[1]):
        erased = draws[:, step] <= threshold
        kept[erased, step] = 0
        threshold = np.where(erased, stay, enter)
    return kept


#: GCNet's training draws this many rows for a smaller batch, too.
_MIN_SAMPLES = 32
#: The source draws until the share is met, for ever at some rates. Here the nearest of so many masks is taken.
_ATTEMPTS = 1000


def random_modality(samples: int, rate: float, seed: int = ERASURE_SEED) -> NDArray[np.uint8]:
    """Which modalities of each sample are kept, uint8 ``[n, 3]`` in the order audio, text, vision, if this share of all
    is missing; one at least is kept, so no more than two thirds are missing. As GCNet draws it.

    Args:
        samples: How many there are.
        rate: The share that is missing, 0 to 0.7 in the field's tables.
        seed: The protocol's erasure seed.
    """
    share = 1.0 - rate
    if share == 1.0:
        return np.ones((samples, 3), np.uint8)
    draws = np.random.RandomState(seed)

    def certain(rows: int) -> NDArray[np.uint8]:
        return np.eye(3, dtype=np.uint8)[draws.randint(0, 3, size=rows)]

    if share <= 1.0 / 3.0:
        return certain(samples)
    rows = max(samples, _MIN_SAMPLES)
    cells = 3 * rows
    wanted = cells * share - rows

    def others(ratio: float) -> NDArray[np.bool_]:
        # So many percent of all cells, which is all of them above 100.
        percent = int(min(ratio, 1e6) * 100)
        return draws.randint(0, 100, size=(rows, 3)) < percent

    nearest = np.inf
    mask: NDArray[np.uint8] = np.ones((rows, 3), np.uint8)
    for _ in range(_ATTEMPTS):
        attempt = certain(rows)
        # A first draw only counts how many would fall on what is certain, so that more are drawn.
        lost = int((others(wanted / cells) & (attempt == 1)).sum())
        left = 1.0 - lost / wanted
        attempt |= others(wanted / left / cells if left else np.inf)
        error = abs(share - int(attempt.sum()) / cells)
        if error < nearest:
            nearest, mask = error, attempt
        if error < 0.005:
            break
    return mask[:samples]


def _lengths(present: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Steps of each sample before its first padding."""
    padded = present == 0
    return np.where(padded.any(1), padded.argmax(1), present.shape[1])


def _some(values: list[str], samples: slice | NDArray[np.intp]) -> list[str]:
    if isinstance(samples, slice):
        return values[samples]
    return [values[place] for place in np.arange(len(values))[samples]]


class ErasedSplit:
    """A split of which it is known what is missing. Features are masked when samples are asked for, so that a
    large split need not be in memory twice.

    Attributes:
        split: The complete split.
    """

    split: Split

    def __init__(
        self, split: Split, rates: Rates, seed: int, unknown: int, padding: int, case: Case | None = None
    ) -> None:
        self.split = split
        self._rates = rates
        self._tokens = unknown, padding

        def erased(present: NDArray[np.uint8], rates: NDArray[np.float64]) -> NDArray[np.uint8]:
            if case is not None and case.kind in ("block", "bursts"):
                return (block if case.kind == "block" else bursts)(present, case.amount, seed)
            return kept(present, rates, seed)

        mask = split.text[:, 1].astype(np.uint8)
        self._text_kept = erased(mask, rates.text)
        # The first and the last token of a text are always kept.
        lengths = _lengths(mask)
        rows = np.flatnonzero(lengths > 0)
        self._text_kept[rows, 0] = 1
        self._text_kept[rows, lengths[rows] - 1] = 1

        def steps(features: NDArray[Any], lengths: NDArray[np.int64], rates: NDArray[np.float64]) -> NDArray[np.uint8]:
            present = (np.arange(features.shape[1]) < lengths[:, None]).astype(np.uint8)
            return erased(present, rates)

        self._audio_kept = steps(split.audio, split.audio_lengths, rates.audio)
        self._vision_kept = steps(split.vision, split.vision_lengths, rates.vision)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, samples: slice | NDArray[np.intp]) -> Batch:
        """Some of the samples."""
        split, (unknown, padding) = self.split, self._tokens
        text_kept, audio_kept, vision_kept = (
            mask[samples] for mask in (self._text_kept, self._audio_kept, self._vision_kept)
        )
        text = split.text[samples].copy()
        text[:, 0] = np.where(text_kept == 1, text[:, 0], np.where(text[:, 1] == 1, unknown, padding))

        def masked(features: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.where(mask[:, :, None] == 1, features[samples], np.float32(0))

        return Batch(
            text,
            masked(split.audio, audio_kept),
            masked(split.vision, vision_kept),
            text_kept,
            audio_kept,
            vision_kept,
            split.audio_lengths[samples],
            split.vision_lengths[samples],
            self._rates[samples],
            _some(split.ids, samples),
        )


def erase(
    split: Split,
    case: Case | str,
    seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
) -> Batch:
    """A whole split in a case, as every method of the benchmark is given it.

    Args:
        split: The split.
        case: The case, or its name.
        seed: The protocol's erasure seed; a case's own is used instead.
        unknown: The token that stands for missing ones: that of the encoder that will read the text.
        padding: The token at padding.

    Raises:
        ValueError: An unknown case, or one that does not erase.
    """
    case = Case.parse(case) if isinstance(case, str) else case
    if case.kind in _CHANGES:
        raise ValueError(f"`{case}` changes features or words: write such splits with `coord cases export`")
    rates = Rates.of_case(case, len(split), seed)
    return ErasedSplit(split, rates, case.seed(seed), unknown, padding, case)[:]
