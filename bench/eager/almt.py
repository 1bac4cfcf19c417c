"""ALMT (Zhang et al., EMNLP 2023): each modality is condensed into a few tokens; language, at
several scales, guides the learning of a hyper-modality from audio and vision; a cross transformer
fuses the two.

N samples, K tokens of D features for each modality.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import Encoder, Inputs, Method, Shape, warmup_cosine
from single_loss import SingleLoss
from token_transformer import CrossTransformer, HyperModality, Transformer


def cut(features: Tensor, frames: int) -> Tensor:
    """`features` `[N, T, F]` cut to `[N, frames, F]`, from each sample's first frame that is not
    zero, or so late that as many are left; unchanged if there are no more, or `frames` is 0."""
    steps = features.shape[1]
    if frames == 0 or steps <= frames:
        return features
    nonzero = (features != 0).any(dim=2)
    first = (nonzero.cumsum(dim=1) == 0).sum(dim=1, keepdim=True).clamp(max=steps - frames)
    places = first + torch.arange(frames, device=features.device)
    return features.gather(1, places.unsqueeze(2).expand(-1, -1, features.shape[2]))


class Almt(nn.Module):
    """The model."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Path | None) -> None:
        super().__init__()
        width, tokens, depth = hyper["width"], hyper["tokens"], hyper["hyper_depth"]
        self.frames: int = hyper["frames"]
        self.tokens: int = tokens

        def condense(modality: int, features: int, length: int) -> nn.Sequential:
            transformer = Transformer(
                length,
                tokens,
                width,
                hyper["embedding_depth"][modality],
                hyper["embedding_heads"][modality],
                hyper["embedding_hidden"],
            )
            return nn.Sequential(nn.Linear(features, width), transformer)

        def read(length: int) -> int:
            return min(length, self.frames) if self.frames else length

        bert = Encoder.load(encoder)
        self.bertmodel = nn.ModuleDict({"model": bert})
        self.embedding_l = condense(0, bert.width, shape.text_length)
        self.embedding_a = condense(1, shape.audio_dim, read(shape.audio_length))
        self.embedding_v = condense(2, shape.vision_dim, read(shape.vision_length))
        self.l_encoder = Transformer(tokens, 0, width, depth - 1, hyper["language_heads"], width)
        self.h_hyper = nn.Parameter(torch.ones(1, tokens, width))
        self.h_hyper_layer = HyperModality(width, depth, hyper["hyper_heads"])
        self.fusion_layer = CrossTransformer(
            tokens,
            tokens,
            width,
            hyper["fusion_depth"],
            hyper["fusion_heads"],
            hyper["fusion_hidden"],
        )
        self.regression_head = nn.Linear(width, 1)

    def forward(self, inputs: Inputs) -> Tensor:
        """Predictions `[N]`."""
        words = self.bertmodel["model"](inputs.text)
        language = self.embedding_l(words)[:, : self.tokens]
        audio = self.embedding_a(cut(inputs.audio, self.frames))[:, : self.tokens]
        vision = self.embedding_v(cut(inputs.vision, self.frames))[:, : self.tokens]
        scales = self.l_encoder.states(language)
        hyper = self.h_hyper.expand(len(words), -1, -1)
        hyper = self.h_hyper_layer(scales, audio, vision, hyper)
        fused = self.fusion_layer(hyper, scales[-1])
        out: Tensor = self.regression_head(fused[:, 0]).squeeze(1)
        return out


class AlmtMethod(SingleLoss):
    """The training procedure, with a schedule of the learning rate."""

    def __init__(self, model: Almt, hyper: dict[str, Any]) -> None:
        # The reference's trainer holds the model as `Model`.
        modules = nn.ModuleDict({"Model": model})
        optimizer = torch.optim.AdamW(
            modules.parameters(), lr=hyper["learning_rate"], weight_decay=hyper["weight_decay"]
        )
        limit = hyper["max_grad_norm"]
        super().__init__(modules, model, optimizer, F.mse_loss, limit if limit >= 0 else None)
        self.schedule = warmup_cosine(optimizer, hyper["max_epochs"])

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self.schedule.step()


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds ALMT (see `common.build`)."""
    return AlmtMethod(Almt(hyper, shape, encoder), hyper)
