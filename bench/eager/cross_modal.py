"""The encoder of the multimodal transformer (Tsai et al., ACL 2019), used by TETFN and TFR-Net.

Pre-norm attention of one sequence to another or to itself, with a causal mask and sinusoidal
positions. Sequences have the time first: `[T, B, D]`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def future_mask(target: int, source: int, device: torch.device) -> Tensor:
    """The causal mask `[T, S]`: -inf where a source step is ahead of the target step by more than
    the difference of the lengths, 0 elsewhere."""
    mask = torch.full((target, source), float("-inf"), device=device)
    return mask.triu(1 + abs(source - target))


def sinusoidal_positions(x: Tensor) -> Tensor:
    """Sinusoidal positions `[T, B, D]` for `x`, `[T, B, D]`.

    Steps count from 1. A step whose first feature is zero is taken for padding and gets no
    position.
    """
    steps, _, width = x.shape
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=x.device) * (-math.log(10000.0) / (half - 1)))
    angles = torch.arange(1, steps + 1, device=x.device).unsqueeze(1) * frequencies
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    if width % 2 == 1:
        table = F.pad(table, (0, 1))
    return table.unsqueeze(1) * (x[:, :, :1] != 0)


class Layer(nn.Module):
    """Attention and a feed-forward part, each around a residual."""

    def __init__(
        self,
        width: int,
        heads: int,
        attention_dropout: float,
        relu_dropout: float,
        residual_dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=attention_dropout)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.layer_norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.relu_dropout = nn.Dropout(relu_dropout)
        self.residual_dropout = nn.Dropout(residual_dropout)
        nn.init.xavier_uniform_(self.self_attn.out_proj.weight)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor] | None, mask: Tensor) -> Tensor:
        """`x` `[T, B, D]` attends to itself or to `memory`, keys and values `[S, B, D]`:
        `[T, B, D]`."""
        norm = self.layer_norms[0]
        query = norm(x)
        key, value = (query, query) if memory is None else (norm(memory[0]), norm(memory[1]))
        attended, _ = self.self_attn(query, key, value, attn_mask=mask, need_weights=False)
        x = x + self.residual_dropout(attended)
        inner = self.relu_dropout(F.relu(self.fc1(self.layer_norms[1](x))))
        out: Tensor = x + self.residual_dropout(self.fc2(inner))
        return out


class CrossModalEncoder(nn.Module):
    """A stack of layers over inputs scaled by the root of their width, and a final layer norm."""

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        *,
        attention_dropout: float,
        relu_dropout: float,
        residual_dropout: float,
        embedding_dropout: float,
        positions: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(width, heads, attention_dropout, relu_dropout, residual_dropout)
            for _ in range(layers)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.scale = math.sqrt(width)
        self.positions = positions

    def embed(self, x: Tensor) -> Tensor:
        """`x` `[T, B, D]` scaled, with positions."""
        embedded = self.scale * x
        if self.positions:
            embedded = embedded + sinusoidal_positions(x)
        out: Tensor = self.embedding_dropout(embedded)
        return out

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """`x` `[T, B, D]` attends to `memory` `[S, B, D]`, the same in every layer, or to itself:
        `[T, B, D]`."""
        source = x if memory is None else memory
        mask = future_mask(len(x), len(source), x.device)
        x = self.embed(x)
        # Keys and values lose different features to dropout.
        embedded = None if memory is None else (self.embed(memory), self.embed(memory))
        for layer in self.layers:
            x = layer(x, embedded, mask)
        out: Tensor = self.layer_norm(x)
        return out
