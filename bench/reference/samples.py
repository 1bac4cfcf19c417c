"""Random batches of `bench/eager` under the names that the references' datasets give them."""

from __future__ import annotations

from typing import Any

import torch

from common import MOSI, random_batch

Samples = dict[str, Any]


def samples(count: int, vocabulary: int) -> Samples:
    """`count` samples in the shapes of MOSI: what any of the references reads."""
    batch = random_batch(count, MOSI, vocabulary=vocabulary)
    complete, erased = batch.complete_inputs(), batch.input
    labels = {
        "M": batch.labels,
        "missing_rate_l": batch.missing_rate.text,
        "missing_rate_a": batch.missing_rate.audio,
        "missing_rate_v": batch.missing_rate.vision,
    }
    return {
        "text": complete.text.float(),
        "text_m": erased.text.float(),
        "text_missing_mask": batch.kept.text,
        "audio": complete.audio,
        "audio_m": erased.audio,
        "audio_lengths": complete.audio_lengths,
        "audio_mask": batch.present.audio.long(),
        "audio_missing_mask": batch.kept.audio,
        "vision": complete.vision,
        "vision_m": erased.vision,
        "vision_lengths": complete.vision_lengths,
        "vision_mask": batch.present.vision.long(),
        "vision_missing_mask": batch.kept.vision,
        "index": batch.index,
        "id": [str(index) for index in range(count)],
        "labels": {name: values.view(-1, 1) for name, values in labels.items()},
    }


def averaged(batch: Samples, width: int) -> Samples:
    """The same for LF-DNN: features of the text instead of tokens, means over time of audio and vision."""
    return {
        **batch,
        "text": torch.rand(len(batch["index"]), MOSI.text_length, width),
        "audio": batch["audio"].mean(1, keepdim=True),
        "vision": batch["vision"].mean(1, keepdim=True),
    }
