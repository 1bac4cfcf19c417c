"""Text only: the fine-tuned encoder with a linear head, a control without audio and vision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import Encoder, Inputs, Method, Shape, encoder_groups
from single_loss import SingleLoss


class TextOnly(nn.Module):
    """The model."""

    def __init__(self, hyper: dict[str, Any], encoder: Path | None) -> None:
        super().__init__()
        bert = Encoder.load(encoder)
        self.text_model = nn.ModuleDict({"model": bert})
        self.dropout = nn.Dropout(hyper["dropout"])
        self.head = nn.Linear(bert.width, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        """Predictions `[N]`, from the output at the first token."""
        text = self.text_model["model"](inputs.text)[:, 0]
        out: Tensor = self.head(self.dropout(text)).squeeze(1)
        return out


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds the text-only control (see `common.build`)."""
    model = TextOnly(hyper, encoder)
    modules = nn.ModuleDict({"Model": model})
    decayed, undecayed, head = encoder_groups(modules, "text_model")
    rate, decay = hyper["learning_rate_bert"], hyper["weight_decay_bert"]
    optimizer = torch.optim.Adam(
        [
            {"params": decayed, "lr": rate, "weight_decay": decay},
            {"params": undecayed, "lr": rate, "weight_decay": 0.0},
            {
                "params": [parameter for _, parameter in head],
                "lr": hyper["learning_rate_other"],
                "weight_decay": hyper["weight_decay_other"],
            },
        ]
    )
    return SingleLoss(modules, model, optimizer)
