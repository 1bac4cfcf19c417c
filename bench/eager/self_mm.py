"""Self-MM (Yu et al., AAAI 2021): BERT's first output and two LSTMs give one vector per modality; a
fused head and one head per modality predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import Encoder, Inputs, Method, Recurrent, Shape
from multi_task import MultiTask, MultiTaskModel


class SelfMm(MultiTaskModel):
    """The model."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Path | None) -> None:
        super().__init__()
        bert = Encoder.load(encoder)
        self.text_model = nn.ModuleDict({"model": bert})
        audio, vision = hyper["audio_out"], hyper["video_out"]
        self.audio_model = Recurrent(
            shape.audio_dim, hyper["a_lstm_hidden_size"], audio, hyper["a_lstm_dropout"]
        )
        self.video_model = Recurrent(
            shape.vision_dim, hyper["v_lstm_hidden_size"], vision, hyper["v_lstm_dropout"]
        )
        self.add_heads(hyper, (bert.width + audio + vision, bert.width, audio, vision))

    def vectors(self, inputs: Inputs) -> list[Tensor]:
        text = self.text_model["model"](inputs.text)[:, 0]
        audio = self.audio_model(inputs.audio, inputs.audio_lengths)
        vision = self.video_model(inputs.vision, inputs.vision_lengths)
        return [torch.cat([text, audio, vision], 1), text, audio, vision]


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds Self-MM (see `common.build`)."""
    return MultiTask(SelfMm(hyper, shape, encoder), hyper, shape.train_samples)
