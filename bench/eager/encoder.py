"""BERT and RoBERTa in plain PyTorch, under the weight names of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tensors import read_safetensors

# A layer's index, and a change of the states `[N, L, H]` before that layer.
Injection = tuple[int, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class EncoderConfig:
    """The configuration of an encoder, with the defaults of Hugging Face: those of BERT base."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    roberta: bool = False

    @staticmethod
    def read(folder: Path) -> EncoderConfig:
        """Reads `config.json` of an encoder's folder."""
        file = folder / "config.json"
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = values.get("model_type", "bert")
        if kind not in ("bert", "roberta", "xlm-roberta"):
            raise ValueError(f"{file}: `{kind}` is not supported: use a BERT or RoBERTa encoder")
        if values.get("hidden_act", "gelu") != "gelu":
            raise ValueError(f"{file}: only the activation `gelu` is supported")
        known = EncoderConfig.__dataclass_fields__.keys() & values.keys()
        config = {name: values[name] for name in known}
        return EncoderConfig(**{**config, "roberta": kind != "bert"})


class _SelfAttention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`[N, L, H]` to `[N, L, H]`; `mask` `[N, 1, 1, L]` is added to the scores."""

        def split(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:2], self.heads, -1).transpose(1, 2)

        context = F.scaled_dot_product_attention(
            split(self.query(x)),
            split(self.key(x)),
            split(self.value(x)),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        joined: Tensor = context.transpose(1, 2).flatten(2)
        return joined


class _Output(nn.Module):
    """A linear layer, dropout, the residual sum and a layer norm."""

    def __init__(self, width: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return out


class _Layer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(config), "output": _Output(config.hidden_size, config)}
        )
        self.intermediate = nn.ModuleDict(
            {"dense": nn.Linear(config.hidden_size, config.intermediate_size)}
        )
        self.output = _Output(config.intermediate_size, config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        out: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        padding = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=padding)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings,
            width,
            padding_idx=padding if config.roberta else None,
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        total = self.word_embeddings(words) + self.token_type_embeddings(segments)
        out: Tensor = self.dropout(self.LayerNorm(total + self.position_embeddings(positions)))
        return out


class Encoder(nn.Module):
    """The encoder. Its state has Hugging Face's names: `embeddings.…`, `encoder.layer.0.…`, and a
    `pooler`, which no method reads, because published weights have one.

    A method may add modules under `embeddings` and `encoder` where its reference has some.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.hidden_size)})
        self.apply(self.initialize)

    @staticmethod
    def load(folder: Path | None) -> Encoder:
        """The encoder of a folder with `config.json` and `model.safetensors`, or, without a folder,
        BERT base with random weights."""
        if folder is None:
            return Encoder(EncoderConfig())
        encoder = Encoder(EncoderConfig.read(folder))
        file = folder / "model.safetensors"
        stored = {
            name.removeprefix("roberta.").removeprefix("bert."): tensor
            for name, tensor in read_safetensors(file).items()
        }
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if name in stored:
                    if stored[name].shape != parameter.shape:
                        raise ValueError(f"{file}: `{name}` does not have the shape in config.json")
                    parameter.copy_(stored[name])
                elif not name.startswith("pooler."):
                    raise ValueError(f"{file}: `{name}` is missing: not the weights of config.json")
        return encoder

    @property
    def width(self) -> int:
        """Features per token, H."""
        return self.config.hidden_size

    @property
    def dropout(self) -> float:
        """Dropout of hidden states."""
        return self.config.hidden_dropout_prob

    def initialize(self, module: nn.Module) -> None:
        """Gives a linear layer or an embedding this encoder's initial weights; for heads, too."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, text: Tensor) -> Tensor:
        """The last hidden states `[N, L, H]` of `text` `[N, 3, L]` int64 (ids, mask, segments), with
        BERT's own outputs at padded positions."""
        return self.encode(self.embed(text), text)

    def embed(self, text: Tensor) -> Tensor:
        """Word, position and segment embeddings of `text` `[N, 3, L]`, normed: `[N, L, H]`."""
        words, mask, segments = text.unbind(1)
        if not self.config.roberta:
            positions = torch.arange(text.shape[2], device=text.device)
            out: Tensor = self.embeddings(words, positions, segments)
            return out
        # Positions count the tokens that are not padding, starting after padding's own id. The mask
        # decides what is padding, since feature files store 0 there for every vocabulary.
        padding = self.config.pad_token_id if self.config.pad_token_id is not None else 1
        present = mask != 0
        words = words.masked_fill(~present, padding)
        positions = present.long().cumsum(1) * present + padding
        out = self.embeddings(words, positions, torch.zeros_like(words))
        return out

    def encode(self, x: Tensor, text: Tensor, injection: Injection | None = None) -> Tensor:
        """The layers alone, over embeddings `x` `[N, L, H]` of `text` `[N, 3, L]`, with an injection
        between two of them: `[N, L, H]`."""
        padding = (text[:, 1] == 0)[:, None, None, :]
        mask = torch.zeros(padding.shape, dtype=x.dtype, device=x.device)
        mask = mask.masked_fill(padding, torch.finfo(x.dtype).min)
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for i, layer in enumerate(layers):
            if injection is not None and injection[0] == i:
                x = injection[1](x)
            x = layer(x, mask)
        return x
