"""TETFN (Wang et al., Pattern Recognition 2023): audio and vision, averaged to the text's length,
attend to text and, through the text, to each other; text attends to both. Labels are generated as
in Self-MM.

N samples, L tokens, L' steps after the convolutions, D features a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import Encoder, Inputs, Method, Shape
from cross_modal import CrossModalEncoder
from multi_task import MultiTask, MultiTaskModel


def average(x: Tensor, length: int) -> Tensor:
    """Averages `x` `[N, T, F]` to `[N, length, F]`, after repeating its last step until `length`
    divides T."""
    batch, steps, _ = x.shape
    if steps == length:
        return x
    pool = -(-steps // length)
    last = x[:, -1:].expand(-1, pool * length - steps, -1)
    return torch.cat([x, last], dim=1).view(batch, length, pool, -1).mean(dim=2)


class RecurrentConvolution(nn.Module):
    """An LSTM over all steps, padding included, and a convolution."""

    def __init__(self, features: int, hidden: int, width: int, kernel: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(features, hidden, batch_first=True)
        self.conv = nn.Conv1d(hidden, width, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L, F]` to `[L', N, D]`."""
        states, _ = self.rnn(x)
        out: Tensor = self.conv(states.transpose(1, 2)).permute(2, 0, 1)
        return out


class TextEnhanced(nn.Module):
    """Attention of one modality to another, to which the text adds."""

    def __init__(self, width: int, settings: dict[str, Any]) -> None:
        super().__init__()
        self.lower_mha = CrossModalEncoder(width, layers=1, positions=True, **settings)
        self.upper_mha = CrossModalEncoder(width, layers=2, positions=True, **settings)

    def forward(self, query: Tensor, key: Tensor, text: Tensor) -> Tensor:
        """`[L', N, D]` each, to `[L', N, D]` in the steps of `key`."""
        out: Tensor = self.upper_mha(key, self.lower_mha(query, text))
        return out


class Tetfn(MultiTaskModel):
    """The model."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Path | None) -> None:
        super().__init__()
        width = hyper["dst_feature_dims"]

        settings = {
            "heads": hyper["nheads"],
            "relu_dropout": hyper["relu_dropout"],
            "residual_dropout": hyper["res_dropout"],
            "embedding_dropout": hyper["embed_dropout"],
        }

        def transformer(width: int, attention_dropout: str = "attn_dropout") -> CrossModalEncoder:
            dropout = hyper[attention_dropout]
            return CrossModalEncoder(
                width, layers=2, positions=False, attention_dropout=dropout, **settings
            )

        def enhanced() -> TextEnhanced:
            return TextEnhanced(width, {**settings, "attention_dropout": hyper["attn_dropout"]})

        bert = Encoder.load(encoder)
        self.text_model = nn.ModuleDict({"model": bert})
        # The reference convolves vision with the audio's kernel, too.
        kernel = hyper["conv1d_kernel_size_a"]
        self.audio_model = RecurrentConvolution(
            shape.audio_dim, hyper["a_lstm_hidden_size"], width, kernel
        )
        self.video_model = RecurrentConvolution(
            shape.vision_dim, hyper["v_lstm_hidden_size"], width, kernel
        )
        self.proj_l = nn.Conv1d(bert.width, width, hyper["conv1d_kernel_size_l"], bias=False)
        self.trans_l_with_a = transformer(width, "attn_dropout_a")
        self.trans_l_with_v = transformer(width, "attn_dropout_v")
        self.trans_a_with_l = transformer(width)
        self.trans_a_with_v = enhanced()
        self.trans_v_with_l = transformer(width)
        self.trans_v_with_a = enhanced()
        self.trans_l_mem = transformer(2 * width)
        self.trans_a_mem = transformer(2 * width)
        self.trans_v_mem = transformer(2 * width)
        self.add_heads(hyper, (6 * width, width, width, width))

    def vectors(self, inputs: Inputs) -> list[Tensor]:
        length = inputs.text.shape[2]
        words = self.text_model["model"](inputs.text)
        audio = self.audio_model(average(inputs.audio, length))
        vision = self.video_model(average(inputs.vision, length))
        text = self.proj_l(words.transpose(1, 2)).permute(2, 0, 1)
        for_text = [self.trans_l_with_a(text, audio), self.trans_l_with_v(text, vision)]
        for_audio = [self.trans_a_with_l(audio, text), self.trans_a_with_v(vision, audio, text)]
        for_vision = [self.trans_v_with_l(vision, text), self.trans_v_with_a(audio, vision, text)]
        fused_text = self.trans_l_mem(torch.cat(for_text, dim=2))
        fused_audio = self.trans_a_mem(torch.cat(for_audio, dim=2))
        fused_vision = self.trans_v_mem(torch.cat(for_vision, dim=2))
        fused = torch.cat([fused_text[-1], fused_audio[-1], fused_vision[-1]], dim=1)
        return [fused, *(x.max(dim=0).values for x in (text, audio, vision))]


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds TETFN (see `common.build`)."""
    return MultiTask(Tetfn(hyper, shape, encoder), hyper, shape.train_samples)
