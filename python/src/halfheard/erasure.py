"""Erasure: which steps of which samples are missing.

As the reference draws it (LNLN's ``core/dataset.py``): one uniform number for each step of each sample from
NumPy's legacy generator, reseeded with the same seed for each modality; a step is kept where its number
exceeds the sample's rate and it is not padding. What is missing of a sample depends on its place in the
split, so a split is always erased as a whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import Case
from .dataset import Split
from .step_seed import WHOLE_EPOCH, step_seed

#: The seed of the paper's erasure.
ERASURE_SEED = 1111
#: BERT's ``[UNK]`` and ``[PAD]``.
BERT_UNKNOWN, BERT_PADDING = 100, 0


@dataclass(frozen=True)
class Rates:
    """The rate of each sample in each modality, float64 ``[n]``."""

    text: NDArray[np.float64]
    audio: NDArray[np.float64]
    vision: NDArray[np.float64]

    @classmethod
    def of_case(cls, case: Case, samples: int) -> Rates:
        """The same case for each of ``samples``."""
        return cls(*(np.full(samples, case.rate_of(modality)) for modality in ("text", "audio", "vision")))

    @classmethod
    def complete(cls, samples: int) -> Rates:
        """Nothing is missing."""
        return cls(np.zeros(samples), np.zeros(samples), np.zeros(samples))

    @classmethod
    def of_training(cls, samples: int, run_seed: int, epoch: int) -> Rates:
        """The rates of one epoch (from 1) of training: in each modality half of the samples keep rate 0,
        the others draw one from U(0, 1). The same as workers draw for this run and epoch."""
        words = [run_seed & 0xFFFFFFFF, run_seed >> 32, epoch, 0x000E5A5E]
        draws = np.random.RandomState(words)

        def modality() -> NDArray[np.float64]:
            rates = draws.uniform(size=samples)
            order = np.arange(samples)
            for i in range(samples // 2):
                left = samples - i
                j = i + min(int(draws.uniform() * left), left - 1)
                order[i], order[j] = order[j], order[i]
                rates[order[i]] = 0.0
            return rates

        return cls(modality(), modality(), modality())

    def __getitem__(self, samples: slice | NDArray[np.intp]) -> Rates:
        """Those of some of the samples."""
        return Rates(self.text[samples], self.audio[samples], self.vision[samples])


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

    def __init__(self, split: Split, rates: Rates, seed: int, unknown: int, padding: int) -> None:
        self.split = split
        self._rates = rates
        self._tokens = unknown, padding
        mask = split.text[:, 1].astype(np.uint8)
        self._text_kept = kept(mask, rates.text, seed)
        # The text ends at its first padding. Its first and last token are always kept.
        padded = mask == 0
        lengths = np.where(padded.any(1), padded.argmax(1), mask.shape[1])
        rows = np.flatnonzero(lengths > 0)
        self._text_kept[rows, 0] = 1
        self._text_kept[rows, lengths[rows] - 1] = 1

        def steps(features: NDArray[Any], lengths: NDArray[np.int64], rates: NDArray[np.float64]) -> NDArray[np.uint8]:
            present = (np.arange(features.shape[1]) < lengths[:, None]).astype(np.uint8)
            return kept(present, rates, seed)

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
        seed: The protocol's erasure seed.
        unknown: The token that stands for missing ones: that of the encoder that will read the text.
        padding: The token at padding.

    Raises:
        ValueError: An unknown case.
    """
    case = Case.parse(case) if isinstance(case, str) else case
    return ErasedSplit(split, Rates.of_case(case, len(split)), seed, unknown, padding)[:]


def erase_training(
    split: Split,
    run_seed: int,
    epoch: int,
    seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
    *,
    missing: bool = True,
    fidelity: str = "reference",
) -> Batch:
    """A training split as the benchmark erases it in one epoch (from 1) of the run with this seed.

    Args:
        split: The split.
        run_seed: The run's seed.
        epoch: The epoch, from 1.
        seed: The protocol's erasure seed.
        unknown: The token that stands for missing ones: that of the encoder that will read the text.
        padding: The token at padding.
        missing: Whether anything is missing, ``train_missing`` of a spec.
        fidelity: ``reference``, or ``corrected``: then the uniform numbers, too, are drawn anew for each epoch.
    """
    return training_split(split, run_seed, epoch, seed, unknown, padding, missing=missing, fidelity=fidelity)[:]


def training_split(
    split: Split,
    run_seed: int,
    epoch: int,
    seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
    *,
    missing: bool = True,
    fidelity: str = "reference",
) -> ErasedSplit:
    """As :func:`erase_training`, masked when samples are asked for."""
    rates = Rates.of_training(len(split), run_seed, epoch) if missing else Rates.complete(len(split))
    if fidelity == "corrected":
        seed = step_seed(run_seed, epoch, WHOLE_EPOCH, 0)
    return ErasedSplit(split, rates, seed, unknown, padding)
