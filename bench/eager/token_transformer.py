"""The transformers of ALMT (Zhang et al., EMNLP 2023), which LNLN uses, too.

Pre-norm attention with separate norms for query, key and value, learned positions, learned tokens
that gather a sequence into a fixed length, and the learning of the hyper-modality. There is no
dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Width of one head, whatever the model's width.
HEAD = 64


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, N, heads * d]` to `[B, heads, N, d]`."""
    batch, steps, _ = x.shape
    return x.view(batch, steps, heads, -1).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax attention of `[B, Q, heads * d]` over `[B, K, heads * d]`, to `[B, Q, heads * d]`."""
    found = F.scaled_dot_product_attention(
        split_heads(query, heads), split_heads(key, heads), split_heads(value, heads)
    )
    return found.transpose(1, 2).flatten(2)


def output_projection(heads: int, head: int, width: int) -> nn.Module:
    """The projection of the joined heads; a single head of full width has none."""
    if heads == 1 and head == width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(heads * head, width))


class Attention(nn.Module):
    """Projections and softmax attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * HEAD, bias=False)
        self.to_k = nn.Linear(width, heads * HEAD, bias=False)
        self.to_v = nn.Linear(width, heads * HEAD, bias=False)
        self.to_out = output_projection(heads, HEAD, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`[B, Q, D]` over `[B, K, D]`, to `[B, Q, D]`."""
        found = attend(self.to_q(query), self.to_k(key), self.to_v(value), self.heads)
        out: Tensor = self.to_out(found)
        return out


class NormedAttention(nn.Module):
    """Attention whose query, key and value have a layer norm each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_k = nn.LayerNorm(width)
        self.norm_v = nn.LayerNorm(width)
        self.fn = Attention(width, heads)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """`target` `[B, Q, D]` attends to `source` `[B, K, D]`. Returns `[B, Q, D]`."""
        out: Tensor = self.fn(self.norm_q(target), self.norm_k(source), self.norm_v(source))
        return out


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # The places of the dropout, which is 0, stay so that the weights keep their names.
        self.net = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(hidden, width),
            nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, N, D]`."""
        out: Tensor = self.net(x)
        return out


class NormedFeedForward(nn.Module):
    """A feed-forward part after a layer norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = FeedForward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, N, D]`."""
        out: Tensor = self.fn(self.norm(x))
        return out


class Layers(nn.Module):
    """Layers of attention and a feed-forward part, each around a residual."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([NormedAttention(width, heads), NormedFeedForward(width, hidden)])
            for _ in range(depth)
        )

    def states(self, target: Tensor, source: Tensor | None = None) -> list[Tensor]:
        """`target` `[B, N, D]` and what each layer makes of it, attending to `source` `[B, S, D]`
        or to itself."""
        states = [target]
        for layer in self.layers:
            attention, feed = layer.children()
            x = states[-1]
            x = attention(x, x if source is None else source) + x
            states.append(feed(x) + x)
        return states


class Transformer(nn.Module):
    """A transformer over sequences of up to `length` steps, with `tokens` learned ones (0: none)
    before them."""

    def __init__(
        self, length: int, tokens: int, width: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, length + tokens, width))
        self.extra_token = nn.Parameter(torch.zeros(1, tokens, width)) if tokens else None
        self.encoder = Layers(width, depth, heads, hidden)

    def states(self, x: Tensor) -> list[Tensor]:
        """`[B, N, D]` to the states before the first and after each layer, `[B, tokens + N, D]`
        each."""
        if self.extra_token is not None:
            x = torch.cat([self.extra_token.expand(len(x), -1, -1), x], dim=1)
        return self.encoder.states(x + self.pos_embedding[:, : x.shape[1]])

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, tokens + N, D]`."""
        return self.states(x)[-1]


class CrossTransformer(nn.Module):
    """A transformer whose target attends to a source, with the same learned token before each."""

    def __init__(
        self, source: int, target: int, width: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.pos_embedding_s = nn.Parameter(torch.randn(1, source + 1, width))
        self.pos_embedding_t = nn.Parameter(torch.randn(1, target + 1, width))
        self.extra_token = nn.Parameter(torch.zeros(1, 1, width))
        self.CrossTransformerEncoder = Layers(width, depth, heads, hidden)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """`source` `[B, S, D]` and `target` `[B, T, D]` to `[B, 1 + T, D]`."""
        extra = self.extra_token.expand(len(source), -1, -1)
        source = torch.cat([extra, source], dim=1)
        target = torch.cat([extra, target], dim=1)
        source = source + self.pos_embedding_s[:, : source.shape[1]]
        target = target + self.pos_embedding_t[:, : target.shape[1]]
        return self.CrossTransformerEncoder.states(target, source)[-1]


class HyperAttention(nn.Module):
    """Attention of the dominant modality to audio and to vision."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        head = width // heads
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head, bias=False)
        self.to_k_ta = nn.Linear(width, heads * head, bias=False)
        self.to_k_tv = nn.Linear(width, heads * head, bias=False)
        self.to_v_ta = nn.Linear(width, heads * head, bias=False)
        self.to_v_tv = nn.Linear(width, heads * head, bias=False)
        self.to_out = output_projection(heads, head, width)

    def forward(self, dominant: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """`dominant` `[B, N, D]` over audio and vision `[B, N, D]`, to `[B, N, D]`."""
        query = self.to_q(dominant)
        from_audio = attend(query, self.to_k_ta(audio), self.to_v_ta(audio), self.heads)
        from_vision = attend(query, self.to_k_tv(vision), self.to_v_tv(vision), self.heads)
        out: Tensor = self.to_out(from_audio + from_vision)
        return out


class HyperLayer(nn.Module):
    """One layer of adaptive hyper-modality learning."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.fn = HyperAttention(width, heads)

    def forward(self, dominant: Tensor, audio: Tensor, vision: Tensor, hyper: Tensor) -> Tensor:
        """The next `hyper` `[B, N, D]`; all inputs are `[B, N, D]`."""
        shift = self.fn(self.norm1(dominant), self.norm2(audio), self.norm3(vision))
        # The reference adds to the normed state, not to the state as its paper writes.
        out: Tensor = self.norm4(hyper) + shift
        return out


class HyperModality(nn.Module):
    """Learns a representation that conflicts least with the dominant modality.

    In each layer, the dominant modality at one scale attends to audio and vision for what to add.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([HyperLayer(width, heads)]) for _ in range(depth))

    def forward(
        self, dominant: list[Tensor], audio: Tensor, vision: Tensor, hyper: Tensor
    ) -> Tensor:
        """`dominant` has a state for each layer, `[B, N, D]` like the other inputs: `[B, N, D]`."""
        for layers, state in zip(self.layers, dominant, strict=False):
            for layer in layers.children():
                hyper = layer(state, audio, vision, hyper)
        return hyper
