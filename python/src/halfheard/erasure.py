"""Erasure: which steps of which samples are missing.

As the reference draws it (LNLN's ``core/dataset.py``): one uniform number for each step of each sample from
NumPy's legacy generator, reseeded with the same seed for each modality; a step is kept where its number
exceeds the sample's rate and it is not padding. What is missing of a sample depends on its place in the
split, so a split is always erased as a whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cases import Case
from .dataset import Split

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
        rates: The rates that were drawn.
    """

    text: NDArray[np.int32]
    audio: NDArray[np.float32]
    vision: NDArray[np.float32]
    text_kept: NDArray[np.uint8]
    audio_kept: NDArray[np.uint8]
    vision_kept: NDArray[np.uint8]
    rates: Rates

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
            Rates(self.rates.text[samples], self.rates.audio[samples], self.rates.vision[samples]),
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


def _erase(split: Split, rates: Rates, seed: int, unknown: int, padding: int) -> Batch:
    ids, mask = split.text[:, 0], split.text[:, 1].astype(np.uint8)
    text_kept = kept(mask, rates.text, seed)
    # The text ends at its first padding. Its first and last token are always kept.
    padded = mask == 0
    lengths = np.where(padded.any(1), padded.argmax(1), mask.shape[1])
    rows = np.flatnonzero(lengths > 0)
    text_kept[rows, 0] = 1
    text_kept[rows, lengths[rows] - 1] = 1
    text = split.text.copy()
    text[:, 0] = np.where(text_kept == 1, ids, np.where(mask == 1, unknown, padding))

    def steps(features: NDArray[np.float32], lengths: NDArray[np.int64], rates: NDArray[np.float64]) -> tuple[
        NDArray[np.float32], NDArray[np.uint8]
    ]:
        present = (np.arange(features.shape[1]) < lengths[:, None]).astype(np.uint8)
        mask = kept(present, rates, seed)
        return np.where(mask[:, :, None] == 1, features, np.float32(0)), mask

    audio, audio_kept = steps(split.audio, split.audio_lengths, rates.audio)
    vision, vision_kept = steps(split.vision, split.vision_lengths, rates.vision)
    return Batch(text, audio, vision, text_kept, audio_kept, vision_kept, rates)


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
    return _erase(split, Rates.of_case(case, len(split)), seed, unknown, padding)


def erase_training(
    split: Split,
    run_seed: int,
    epoch: int,
    seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
) -> Batch:
    """A training split as the benchmark erases it in one epoch (from 1) of the run with this seed."""
    return _erase(split, Rates.of_training(len(split), run_seed, epoch), seed, unknown, padding)
