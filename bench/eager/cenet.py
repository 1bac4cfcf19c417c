"""CENET in eager PyTorch: the cross-modal enhancement network (Wang et al., IEEE TMM 2022).

B samples, texts of L tokens, S steps of another modality, H features of the text encoder. The
modules have the recording's names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import Encoder, Inputs, Method, Shape
from single_loss import SingleLoss

# The index of the encoder's layer before which tokens are shifted.
INJECTION = 1

# The factor of attention scores in the reference, where others divide by the root of the width.
SHARPNESS = 8.0


class Attention(nn.Module):
    """Single-head attention of tokens to another modality's steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.Wq = nn.Linear(width, width)
        self.Wk = nn.Linear(width, width)
        self.Wv = nn.Linear(width, width)

    def forward(self, tokens: Tensor, steps: Tensor) -> Tensor:
        """Tokens `[B, L, H]` and steps `[B, S, H]` to `[B, L, H]`."""
        scores = self.Wq(tokens) @ self.Wk(steps).transpose(1, 2)
        weights = torch.softmax(scores * SHARPNESS, dim=-1)
        out: Tensor = weights @ self.Wv(steps)
        return out


def transform(features: int, width: int) -> nn.Sequential:
    """Features of steps `[B, S, features]` to `[B, S, width]`."""
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))


class Enhancement(nn.Module):
    """Shifts every token by what it finds in vision and audio."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.visual_transform = transform(shape.vision_dim, width)
        self.acoustic_transform = transform(shape.audio_dim, width)
        self.hv = Attention(width)
        self.ha = Attention(width)
        self.cat_connect = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, vision: Tensor, audio: Tensor) -> Tensor:
        """Tokens `[B, L, H]`, vision `[B, Tv, Dv]` and audio `[B, Ta, Da]` to `[B, L, H]`."""
        from_vision = self.hv(tokens, self.visual_transform(vision))
        from_audio = self.ha(tokens, self.acoustic_transform(audio))
        out: Tensor = self.cat_connect(torch.cat([from_vision, from_audio], dim=-1)) + tokens
        return out


class Classifier(nn.Module):
    """The first output through two linear layers."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(width, 1)

    def forward(self, states: Tensor) -> Tensor:
        """`[B, L, H]` to `[B]`."""
        first = self.dropout(states[:, 0])
        out: Tensor = self.out_proj(self.dropout(torch.tanh(self.dense(first))))
        return out.squeeze(1)


class Cenet(nn.Module):
    """The network."""

    def __init__(self, shape: Shape, encoder: Encoder) -> None:
        super().__init__()
        width = encoder.width
        enhancement = Enhancement(shape, width)
        enhancement.apply(encoder.initialize)
        encoder.encoder["CE"] = enhancement
        # Embeddings of words' sentiment, part of speech and polarity, which the reference has and
        # never uses; here because weights load by name.
        for name, rows in (("senti", 3), ("pos_tag", 5), ("polarity", 6)):
            table = nn.Embedding(rows, width)
            encoder.initialize(table)
            encoder.embeddings.add_module(f"{name}_embeddings", table)
        self.bert = encoder
        self.classifier = Classifier(width, encoder.dropout)
        self.classifier.apply(encoder.initialize)

    def forward(self, inputs: Inputs) -> Tensor:
        """Predictions `[B]`."""
        # The reference does not train the embeddings.
        with torch.no_grad():
            embedded = self.bert.embed(inputs.text)

        def enhance(tokens: Tensor) -> Tensor:
            out: Tensor = self.bert.encoder["CE"](tokens, inputs.vision, inputs.audio)
            return out

        states = self.bert.encode(embedded, inputs.text, (INJECTION, enhance))
        prediction: Tensor = self.classifier(states)
        return prediction


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds the method; see `common.build`."""
    model = Cenet(shape, Encoder.load(encoder))
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = "bias" in name or "LayerNorm.weight" in name
        # All of the enhancement's weights decay.
        (undecayed if plain and ".CE." not in name else decayed).append(parameter)
    optimizer = torch.optim.Adam(
        [
            {"params": decayed, "weight_decay": hyper["weight_decay"]},
            {"params": undecayed, "weight_decay": 0.0},
        ],
        lr=hyper["learning_rate"],
        eps=hyper["adam_epsilon"],
    )
    limit = hyper["max_grad_norm"]
    return SingleLoss(
        nn.ModuleDict({"Model": model}), model, optimizer, limit=limit if limit >= 0 else None
    )
