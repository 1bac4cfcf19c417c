"""Dataset files, as ``coord data import`` writes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .protocol import Protocol
from .tensors import read_tensors


@dataclass(frozen=True)
class Split:
    """One split, ``n`` samples. Arrays are read-only views of the file.

    Attributes:
        name: ``train``, ``valid`` or ``test``.
        text: Token ids, mask and segments, int32 ``[n, 3, text_len]``.
        audio: float32 ``[n, audio_len, audio_dim]``.
        vision: float32 ``[n, vision_len, vision_dim]``.
        audio_lengths: Steps of each sample that are not padding, int64 ``[n]``.
        vision_lengths: The same, int64 ``[n]``.
        labels: float32 ``[n]``.
        ids: The samples' ids.
        raw_text: The texts as they were said.
    """

    name: str
    text: NDArray[np.int32]
    audio: NDArray[np.float32]
    vision: NDArray[np.float32]
    audio_lengths: NDArray[np.int64]
    vision_lengths: NDArray[np.int64]
    labels: NDArray[np.float32]
    ids: list[str]
    raw_text: list[str]

    def __len__(self) -> int:
        return len(self.labels)


class Dataset:
    """A dataset file, mapped into memory.

    Attributes:
        protocol: How its labels are measured.
        train: The training split.
        valid: The validation split.
        test: The test split.

    Raises:
        ValueError: The file is not a dataset.
        OSError: It cannot be read.
    """

    protocol: Protocol
    train: Split
    valid: Split
    test: Split

    def __init__(self, path: str | os.PathLike[str]) -> None:
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != "halfheard-dataset":
            raise ValueError(f"{os.fspath(path)} is not a dataset: write one with `coord data import`")
        self.protocol = Protocol.of_file(metadata)
        try:
            self.train, self.valid, self.test = (_split(tensors, name) for name in ("train", "valid", "test"))
        except KeyError as error:
            raise ValueError(f"{os.fspath(path)} is not a dataset: it lacks {error}") from None


def _split(tensors: dict[str, NDArray[Any]], name: str) -> Split:
    def of(what: str) -> NDArray[Any]:
        return tensors[f"{name}.{what}"]

    return Split(
        name=name,
        text=of("text"),
        audio=of("audio"),
        vision=of("vision"),
        audio_lengths=of("audio_lengths"),
        vision_lengths=of("vision_lengths"),
        labels=of("labels"),
        ids=_texts(of("ids"), of("ids_offsets")),
        raw_text=_texts(of("raw_text"), of("raw_text_offsets")),
    )


def _texts(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    joined = data.tobytes()
    return [joined[start:end].decode(errors="replace") for start, end in zip(offsets[:-1], offsets[1:])]
