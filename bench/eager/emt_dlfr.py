"""EMT-DLFR (Sun et al., IEEE TAC 2023): the efficient multimodal transformer with dual-level
feature restoration.

B is the number of samples, L of tokens, T of steps, D the transformer's width. Training sees every
sample twice: complete and erased, each encoded in a forward pass of its own. The transformer's last
layer updates the sequences also where only the context is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import (
    Accumulation,
    Batch,
    Encoder,
    Inputs,
    Method,
    PerModality,
    Position,
    Shape,
    encoder_groups,
    pack,
    unpack,
)


def projection(width: int, output: int, bias: bool) -> nn.Module:
    """A linear layer, or none between equal widths."""
    return nn.Identity() if width == output else nn.Linear(width, output, bias=bias)


class Attention(nn.Module):
    """Multi-head attention; key and value have one layer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width)
        self.heads = heads
        self.dropout = dropout

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """`x` `[B, N, D]` attends to `memory` `[B, M, D]` where `mask` `[B, M]` is set, if there is
        one: `[B, N, D]`."""

        def split(projected: Tensor) -> Tensor:
            batch, steps, width = projected.shape
            return projected.view(batch, steps, self.heads, width // self.heads).transpose(1, 2)

        key, value = self.to_kv(memory).chunk(2, dim=-1)
        context = F.scaled_dot_product_attention(
            split(self.to_q(x)),
            split(key),
            split(value),
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.to_out(context.transpose(1, 2).flatten(2))
        return out


class NormedAttention(nn.Module):
    """Attention to another normed sequence or, without `context`, to the normed sequence itself."""

    def __init__(self, width: int, heads: int, dropout: float, context: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width) if context else None
        self.fn = Attention(width, heads, dropout)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """`x` `[B, N, D]`, `context` `[B, M, D]`, `mask` of what is attended to, to `[B, N, D]`."""
        x = self.norm(x)
        memory = x if self.norm_context is None else self.norm_context(context)
        out: Tensor = self.fn(x, memory, mask)
        return out


class GatedGelu(nn.Module):
    """The first half of the features times the GELU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., 2 W]` to `[..., W]`."""
        values, gates = x.chunk(2, dim=-1)
        return values * F.gelu(gates)


class FeedForward(nn.Module):
    """A gated layer and its projection, named `net`."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, 2 * inner),
            GatedGelu(),
            nn.Linear(inner, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, N, D]`."""
        out: Tensor = self.net(x)
        return out


class NormedFeedForward(nn.Module):
    """A feed-forward part after a layer norm."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = FeedForward(width, inner, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, N, D]`."""
        out: Tensor = self.fn(self.norm(x))
        return out


class Promotion(nn.Module):
    """One direction of a mutual promotion unit (MPU): attention to the other side, to itself, and a
    feed-forward part, each around a residual."""

    def __init__(self, hyper: dict[str, Any]) -> None:
        super().__init__()
        width, heads = hyper["d_model"], hyper["heads"]
        cross = NormedAttention(width, heads, hyper["attn_dropout"], context=True)
        own = NormedAttention(width, heads, hyper["attn_dropout"], context=False)
        feed = NormedFeedForward(width, hyper["ff_expansion"] * width, hyper["ff_dropout"])
        self.layers = nn.ModuleList([nn.ModuleList([cross, own, feed])])

    def forward(
        self, x: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None
    ) -> Tensor:
        """`x` `[B, N, D]` with `mask` `[B, N]` after attending to `context` `[B, M, D]` with
        `context_mask` `[B, M]`."""
        cross, own, feed = self.layers[0].children()
        x = cross(x, context, context_mask) + x
        x = own(x, None, mask) + x
        out: Tensor = feed(x) + x
        return out


class AttentionPool(nn.Module):
    """The weighted mean of several vectors, whose scores come from a small network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, W]` to `[B, W]`."""
        weights = self.attention(x).softmax(dim=1)
        mean: Tensor = (weights.transpose(1, 2) @ x).squeeze(1)
        return mean


def sinusoids(steps: int, width: int) -> Tensor:
    """Sinusoidal positions `[1, steps, width]`, counted from 0: sines and cosines alternate."""
    rates = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10_000.0) / width))
    angles = torch.arange(steps).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(1, steps, -1)[:, :, :width]


class Transformer(nn.Module):
    """A global context of one vector per modality interacts with each modality's sequence. All
    layers, modalities and directions share one unit, and all layers one pool; both are stored under
    the first of their names."""

    positions: Tensor

    def __init__(self, hyper: dict[str, Any], steps: int) -> None:
        super().__init__()
        self.depth: int = hyper["fusion_layers"]
        self.mpus = nn.ModuleList([nn.ModuleList([nn.ModuleList([Promotion(hyper)])])])
        self.attn_pools = nn.ModuleList([AttentionPool(3 * hyper["d_model"])])
        self.dropout = nn.Dropout(hyper["emb_dropout"])
        self.register_buffer("positions", sinusoids(steps, hyper["d_model"]), persistent=False)

    def forward(
        self, context: Tensor, sequences: list[Tensor], masks: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The global context `[B, 3, D]` and three sequences `[B, T, D]`, each with its mask
        `[B, T]`, to both after the last layer."""
        promote: nn.Module = self.mpus[0][0][0]  # type: ignore[index]
        pool = self.attn_pools[0]
        sequences = [self.dropout(x + self.positions[:, : x.shape[1]]) for x in sequences]
        for _ in range(self.depth):
            contexts = [
                promote(context, None, x, mask) for x, mask in zip(sequences, masks, strict=True)
            ]
            sequences = [
                promote(x, mask, context, None) for x, mask in zip(sequences, masks, strict=True)
            ]
            context = pool(torch.stack(contexts, dim=1).flatten(2)).view_as(context)
        return context, sequences


class Recurrent(nn.Module):
    """An LSTM with one linear layer for its steps and its last state."""

    def __init__(self, width: int, hidden: int, output: int, dropout: float) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = projection(hidden, output, bias=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, T, F]` of `lengths` `[B]` to steps `[B, longest, output]` and a vector
        `[B, output]`."""
        steps, (last, _) = self.rnn(pack(x, lengths))
        return self.linear_1(unpack(steps)), self.linear_1(self.dropout(last.squeeze(0)))


class Norm(nn.BatchNorm1d):
    """A batch norm that normalizes a batch of one sample, which has no variance, as in
    evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, W]` to `[B, W]`."""
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class Perceptron(nn.Module):
    """Layers named `net`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, W]` to `[B, V]`."""
        out: Tensor = self.net(x)
        return out


def projector(width: int) -> Perceptron:
    """The projector of a vector (SimSiam, Chen & He, CVPR 2021)."""
    return Perceptron(nn.Linear(width, width), Norm(width, affine=False))


def predictor(width: int, hidden: int) -> Perceptron:
    """The predictor of the other view's projection."""
    return Perceptron(
        nn.Linear(width, hidden, bias=False), Norm(hidden), nn.ReLU(), nn.Linear(hidden, width)
    )


class Moments(nn.Module):
    """Mean and deviation of one modality's features over the frames of the training split that are
    not padding."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.seen = torch.zeros(1, dtype=torch.float64)
        self.average = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, dtype=torch.float64)

    def add(self, x: Tensor, present: Tensor) -> None:
        """Adds the frames of `x` `[B, T, F]` that are `present` `[B, T]`."""
        frames = x[present > 0].double()
        if len(frames) == 0:
            return
        mean = frames.mean(dim=0)
        squares = (frames - mean).square().sum(dim=0)
        # Two sets of frames as one (Chan et al. 1979).
        total = self.seen + len(frames)
        gap = mean - self.average
        self.average = self.average + gap * len(frames) / total
        self.squares = self.squares + squares + gap.square() * self.seen * len(frames) / total
        self.seen = total
        self.mean.copy_(self.average)
        self.deviation.copy_((self.squares / total).sqrt())

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """`x` `[B, T, F]` standardized where `kept` `[B, T]` is 1, and 0 elsewhere."""
        return (x - self.mean) / (self.deviation + 1e-6) * kept[:, :, None]


@dataclass
class View:
    """What the model makes of one view of a batch."""

    # `[B]`.
    prediction: Tensor
    # BERT's outputs, `[B, L, H]`.
    words: Tensor
    # Audio and vision as the model sees them, `[B, T, F]` each.
    features: list[Tensor]
    # The vectors of `NAMES`, `[B, W]` of their own widths.
    vectors: list[Tensor]
    # The sequences of text, audio and vision after the transformer, `[B, T, D]` each.
    sequences: list[Tensor]


NAMES = ("gmc_tokens", "text", "audio", "video")
"""The vectors of a view: the global context and one per modality."""


class Model(nn.Module):
    """The model: encoders, the transformer, the prediction, and what training compares two views
    by."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        super().__init__()
        width = hyper["d_model"]
        widths = {
            "gmc_tokens": 3 * width,
            "text": encoder.width,
            "audio": hyper["audio_out"],
            "video": hyper["video_out"],
        }
        inputs = {"text": encoder.width, "audio": shape.audio_dim, "video": shape.vision_dim}
        self.text_model = nn.ModuleDict({"model": encoder})
        self.audio_model = Recurrent(
            shape.audio_dim,
            hyper["a_lstm_hidden_size"],
            hyper["audio_out"],
            hyper["a_lstm_dropout"],
        )
        self.video_model = Recurrent(
            shape.vision_dim,
            hyper["v_lstm_hidden_size"],
            hyper["video_out"],
            hyper["v_lstm_dropout"],
        )
        self.standardize: nn.ModuleDict | None = None
        if hyper["standardize"]:
            self.standardize = nn.ModuleDict(
                {"audio": Moments(shape.audio_dim), "video": Moments(shape.vision_dim)}
            )
        steps = max(shape.text_length, shape.audio_length, shape.vision_length)
        self.fusion = Transformer(hyper, steps)
        for name in NAMES[1:]:
            self.add_module(f"proj_{name}", projection(widths[name], width, bias=False))
            self.add_module(f"recon_{name}", nn.Linear(width, inputs[name]))
        for name in NAMES:
            self.add_module(f"{name}_projector", projector(widths[name]))
            hidden = hyper[f"{name}_pred_dim"]
            self.add_module(f"{name}_predictor", predictor(widths[name], hidden))
        hidden = hyper["post_fusion_dim"]
        self.dropout = nn.Dropout(hyper["post_fusion_dropout"])
        self.post_fusion_layer_1 = nn.Linear(sum(widths.values()), hidden)
        self.post_fusion_layer_2 = nn.Linear(hidden, hidden)
        self.post_fusion_layer_3 = nn.Linear(hidden, 1)

    def prepare(self, complete: Inputs, present: PerModality) -> None:
        """Learns the moments of a training batch's complete features."""
        if self.standardize is not None:
            self.standardize["audio"].add(complete.audio, present.audio)  # type: ignore[operator]
            self.standardize["video"].add(complete.vision, present.vision)  # type: ignore[operator]

    def view(self, inputs: Inputs, kept: PerModality) -> View:
        """One view of a batch, of which `kept` is neither padding nor erased."""
        words = self.text_model["model"](inputs.text)
        audio, vision = inputs.audio, inputs.vision
        if self.standardize is not None:
            audio = self.standardize["audio"](audio, kept.audio)
            vision = self.standardize["video"](vision, kept.vision)
        audio_steps, audio_vector = self.audio_model(audio, inputs.audio_lengths)
        vision_steps, vision_vector = self.video_model(vision, inputs.vision_lengths)
        # The first token's state stands for the text; the last token is padding to its sequence.
        vectors = [words[:, 0], audio_vector, vision_vector]
        sequences = [words[:, 1:], audio_steps, vision_steps]
        lengths = [inputs.text[:, 1].sum(dim=1) - 2, inputs.audio_lengths, inputs.vision_lengths]
        # An empty sequence is one step long: attention needs a step.
        masks = [
            torch.arange(x.shape[1], device=x.device) < length.clamp(min=1)[:, None]
            for x, length in zip(sequences, lengths, strict=True)
        ]
        layers = [self.get_submodule(f"proj_{name}") for name in NAMES[1:]]
        context = torch.stack([f(x) for f, x in zip(layers, vectors, strict=True)], dim=1)
        sequences = [f(x) for f, x in zip(layers, sequences, strict=True)]
        context, sequences = self.fusion(context, sequences, masks)
        context = context.flatten(1)
        fused = self.dropout(torch.cat([*vectors, context], dim=1))
        hidden = F.relu(self.post_fusion_layer_1(fused))
        hidden = F.relu(self.post_fusion_layer_2(hidden))
        prediction = self.post_fusion_layer_3(hidden).squeeze(1)
        return View(prediction, words, [audio, vision], [context, *vectors], sequences)

    def attraction(self, complete: View, erased: View) -> Tensor:
        """How far apart the views are: for each vector, the mean of both predictions' negative
        cosine to the other view's projection, summed."""
        total = torch.zeros((), device=complete.prediction.device)
        for i, name in enumerate(NAMES):
            project = self.get_submodule(f"{name}_projector")
            predict = self.get_submodule(f"{name}_predictor")
            targets, predictions = [], []
            # The complete view comes first, which the running statistics depend on.
            for view in (complete, erased):
                projected = project(view.vectors[i])
                targets.append(projected.detach())
                predictions.append(predict(projected))
            from_erased = F.cosine_similarity(predictions[1], targets[0], dim=1).mean()
            from_complete = F.cosine_similarity(predictions[0], targets[1], dim=1).mean()
            total = total - 0.5 * (from_erased + from_complete)
        return total

    def reconstruction(self, batch: Batch, complete: View, erased: View) -> Tensor:
        """How far what is generated from the erased view's sequences is from the complete inputs
        where they were erased: the mean smooth L1, summed over the modalities."""
        layers = [self.get_submodule(f"recon_{name}") for name in NAMES[1:]]
        # The text's sequence starts after the first token.
        truths = [complete.words.detach()[:, 1:], *complete.features]
        missing = [
            (batch.present.text - batch.kept.text)[:, 1:],
            batch.present.audio - batch.kept.audio,
            batch.present.vision - batch.kept.vision,
        ]
        total = torch.zeros((), device=complete.prediction.device)
        for layer, x, truth, mask in zip(layers, erased.sequences, truths, missing, strict=True):
            steps, width = x.shape[1], truth.shape[2]
            mask = mask[:, :steps, None]
            distance = F.smooth_l1_loss(layer(x) * mask, truth[:, :steps] * mask, reduction="sum")
            total = total + distance / (mask.sum() * width + 1e-6)
        return total


class EmtDlfr(Method):
    """The method: gradients of several batches accumulate."""

    rounds_validation = False

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        self.hyper = hyper
        self.model = Model(hyper, shape, encoder)
        self.modules = nn.ModuleDict({"Model": self.model})
        decayed, undecayed, others = encoder_groups(self.modules, "text_model")
        named: dict[str, list[nn.Parameter]] = {"audio": [], "video": [], "other": []}
        for name, parameter in others:
            owner = name.removeprefix("Model.").partition("_model.")[0]
            named[owner if owner in named else "other"].append(parameter)

        def group(parameters: list[nn.Parameter], rates: str) -> dict[str, Any]:
            return {
                "params": parameters,
                "lr": hyper[f"learning_rate_{rates}"],
                "weight_decay": hyper[f"weight_decay_{rates}"],
            }

        groups = [group(decayed, "bert"), {**group(undecayed, "bert"), "weight_decay": 0.0}]
        groups += [group(parameters, owner) for owner, parameters in named.items()]
        self.optimizer = torch.optim.Adam(groups)
        self.accumulation = Accumulation(hyper["update_epochs"])

    def prepare(self, batch: Batch) -> None:
        self.model.prepare(batch.complete_inputs(), batch.present)

    def begin_pass(self, position: Position) -> None:
        self.accumulation.reset()

    def train_step(self, position: Position, batch: Batch) -> float:
        self.modules.train()
        if self.accumulation.begin():
            self.optimizer.zero_grad()
        complete = self.model.view(batch.complete_inputs(), batch.present)
        erased = self.model.view(batch.input, batch.kept)
        task = F.l1_loss(erased.prediction, batch.labels)
        attraction = self.model.attraction(complete, erased)
        attraction = attraction + F.l1_loss(complete.prediction, batch.labels)
        reconstruction = self.model.reconstruction(batch, complete, erased)
        loss = (
            task
            + self.hyper["loss_attra_weight"] * attraction
            + self.hyper["loss_recon_weight"] * reconstruction
        )
        loss.backward()
        if self.accumulation.end():
            self.optimizer.step()
        return self.report(
            erased.prediction, loss, task=task, attraction=attraction, reconstruction=reconstruction
        )

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.modules.eval()
        return self.model.view(batch.input, batch.kept).prediction


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds EMT-DLFR; see `common.build`."""
    return EmtDlfr(hyper, shape, Encoder.load(encoder))
