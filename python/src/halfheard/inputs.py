"""Erased splits in files, as workers give them to programs and ``coord cases export`` writes them."""

from __future__ import annotations

import json
import os

from .cases import Case
from .erasure import ERASURE_SEED, Batch, Rates
from .tensors import read_tensors


def read_inputs(path: str | os.PathLike[str], case: Case | str) -> Batch:
    """Reads an erased split as views of the mapped file. Labels, if the file has them, are left out.

    Args:
        path: The safetensors file.
        case: The case that it is.

    Raises:
        ValueError: The file is not an erased split, or the case is unknown.
        OSError: It cannot be read.
    """
    case = Case.parse(case) if isinstance(case, str) else case
    tensors, metadata = read_tensors(path)
    try:
        samples = len(tensors["text"])
        ids = json.loads(metadata.get("ids", "[]"))
        # Files of earlier releases do not name it.
        seed = int(metadata.get("erasure_seed", ERASURE_SEED))
        return Batch(
            tensors["text"],
            tensors["audio"],
            tensors["vision"],
            tensors["text_kept"],
            tensors["audio_kept"],
            tensors["vision_kept"],
            tensors["audio_lengths"],
            tensors["vision_lengths"],
            Rates.of_case(case, samples, seed),
            [str(sample) for sample in ids],
        )
    except KeyError as error:
        raise ValueError(f"{os.fspath(path)} is not an erased split: it lacks {error}") from None
