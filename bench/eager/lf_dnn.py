"""LF-DNN (Cambria et al., CICLing 2017; Williams et al., Challenge-HML 2018), late fusion by a deep
neural network: each modality becomes one vector, and the concatenated vectors are regressed. The text
encoder is not trained.

As in MMSA, the text's network reads the padding and has no dropout, and the means over time of audio
and vision include the padding, which is zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import Encoder, Inputs, Method, Shape
from single_loss import SingleLoss


class TextNet(nn.Module):
    """An LSTM over the encoder's outputs, and a linear layer of its last state."""

    def __init__(self, width: int, hidden: int, output: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, hidden, batch_first=True)
        self.linear_1 = nn.Linear(hidden, output)

    def forward(self, words: Tensor) -> Tensor:
        """`[N, L, H]` to `[N, output]`."""
        _, (last, _) = self.rnn(words)
        out: Tensor = self.linear_1(last.squeeze(0))
        return out


class FrameNet(nn.Module):
    """The mean over time, batch norm, three layers."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, hidden)

    def forward(self, frames: Tensor) -> Tensor:
        """`[N, T, D]` to `[N, hidden]`."""
        mean = frames.mean(1)
        # A single sample has no variance and is normed as in evaluation.
        self.norm.train(self.training and len(mean) > 1)
        x = self.dropout(self.norm(mean))
        x = torch.relu(self.linear_1(x))
        x = torch.relu(self.linear_2(x))
        return torch.relu(self.linear_3(x))


class LfDnn(nn.Module):
    """The model."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Path | None) -> None:
        super().__init__()
        bert = Encoder.load(encoder).requires_grad_(False)
        self.bertmodel = nn.ModuleDict({"model": bert})
        audio, vision, text = hyper["audio_hidden"], hyper["vision_hidden"], hyper["text_out"]
        self.text_subnet = TextNet(bert.width, hyper["text_hidden"], text)
        self.audio_subnet = FrameNet(shape.audio_dim, audio, hyper["audio_dropout"])
        self.video_subnet = FrameNet(shape.vision_dim, vision, hyper["vision_dropout"])
        width = hyper["post_fusion_dim"]
        self.dropout = nn.Dropout(hyper["post_fusion_dropout"])
        self.post_fusion_layer_1 = nn.Linear(audio + vision + text, width)
        self.post_fusion_layer_2 = nn.Linear(width, width)
        self.post_fusion_layer_3 = nn.Linear(width, 1)

    def train(self, mode: bool = True) -> LfDnn:
        """Sets the mode; the encoder stays in evaluation."""
        super().train(mode)
        self.bertmodel.eval()
        return self

    def forward(self, inputs: Inputs) -> Tensor:
        """Predictions `[N]`."""
        with torch.no_grad():
            words = self.bertmodel["model"](inputs.text) * inputs.text[:, 1, :, None]
        vectors = [
            self.audio_subnet(inputs.audio),
            self.video_subnet(inputs.vision),
            self.text_subnet(words),
        ]
        x = self.dropout(torch.cat(vectors, 1))
        x = torch.relu(self.post_fusion_layer_1(x))
        x = torch.relu(self.post_fusion_layer_2(x))
        out: Tensor = self.post_fusion_layer_3(x).squeeze(1)
        return out


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds LF-DNN (see `common.build`)."""
    model = LfDnn(hyper, shape, encoder)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(
        trained, lr=hyper["learning_rate"], weight_decay=hyper["weight_decay"]
    )
    return SingleLoss(model, model, optimizer)
