"""MMIM in eager PyTorch: hierarchical mutual information maximization (Han et al., EMNLP 2021).

Each epoch has two passes over the data: the first fits lower bounds of the mutual information
between text and the other modalities, the second trains everything else with these fixed. B
samples. The modules have the recording's names.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import Batch, Encoder, Inputs, Method, Position, Shape, pack


class Utterance(nn.Module):
    """An LSTM's final states through a linear layer."""

    def __init__(
        self, features: int, hidden: int, output: int, dropout: float, hyper: dict[str, Any]
    ) -> None:
        super().__init__()
        layers, self.bidirectional = hyper["n_layer"], hyper["bidirectional"]
        # A single layer has no dropout in the reference.
        dropout = dropout if layers > 1 else 0.0
        self.rnn = nn.LSTM(
            features,
            hidden,
            num_layers=layers,
            dropout=dropout,
            bidirectional=self.bidirectional,
            batch_first=True,
        )
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(2 * hidden if self.bidirectional else hidden, output)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """`[B, T, D]` and lengths `[B]` to `[B, output]`."""
        _, (states, _) = self.rnn(pack(x, lengths))
        # Of several layers, the reference reads the first one's states.
        state = torch.cat([states[0], states[1]], dim=1) if self.bidirectional else states[0]
        out: Tensor = self.linear_1(self.dropout(state))
        return out


class Sides(NamedTuple):
    """Projections of the samples with positive and with negative labels, `[n, width / 4]` each."""

    positive: Tensor
    negative: Tensor


class Bound(nn.Module):
    """The lower bound of the mutual information between two representations (equations 4 to 8)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()

        def perceptron() -> nn.Sequential:
            return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))

        self.mlp_mu = perceptron()
        self.mlp_logvar = perceptron()
        self.entropy_prj = nn.Sequential(nn.Linear(width, width // 4), nn.Tanh())

    def likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean log-likelihood of `y` `[B, width]` given `x` `[B, features]`, up to a
        constant."""
        error = (self.mlp_mu(x) - y) ** 2 / 2
        scaled: Tensor = -error / torch.exp(self.mlp_logvar(x))
        return scaled.sum(dim=-1).mean()

    def sides(self, y: Tensor, labels: Tensor) -> Sides:
        """Projects `y` `[B, width]` and separates it by the signs of `labels` `[B]`."""
        projected = self.entropy_prj(y)
        return Sides(projected[labels > 0], projected[labels < 0])


def entropy(memory: list[Sides], now: Sides) -> Tensor:
    """The entropy of Gaussians fitted to both sides, over the memory and the current batch."""

    def log_determinant(*batches: Tensor) -> Tensor:
        rows = torch.cat(batches)
        centered = rows - rows.mean(dim=0)
        return torch.logdet(centered.T @ centered / len(rows))

    positive = log_determinant(*(sides.positive for sides in memory), now.positive)
    negative = log_determinant(*(sides.negative for sides in memory), now.negative)
    return (positive + negative) / 4


class Contrast(nn.Module):
    """Contrastive predictive coding: how well the fusion identifies its own `x` in the batch."""

    def __init__(self, width: int, fusion: int) -> None:
        super().__init__()
        self.net = nn.Linear(fusion, width)

    def forward(self, x: Tensor, fusion: Tensor) -> Tensor:
        """`x` `[B, width]` and the fusion `[B, D]` to a loss."""
        predicted = self.net(fusion)
        predicted = predicted / predicted.norm(dim=1, keepdim=True)
        x = x / x.norm(dim=1, keepdim=True)
        own = (x * predicted).sum(dim=-1)
        every = torch.logsumexp(x @ predicted.T, dim=-1)
        loss: Tensor = -(own - every).mean()
        return loss


class Fusion(nn.Module):
    """Regression of the concatenated vectors."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, width]` to the fusion `[B, hidden]` and predictions `[B]`."""
        hidden = torch.tanh(self.linear_1(self.dropout(x)))
        fusion = torch.tanh(self.linear_2(hidden))
        return fusion, self.linear_3(fusion).squeeze(1)


class Vectors(NamedTuple):
    """A batch's vectors, `[B, width of the modality]`."""

    text: Tensor
    audio: Tensor
    vision: Tensor


class Mmim(nn.Module):
    """The network."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        super().__init__()
        text, vision, audio = encoder.width, hyper["d_vout"], hyper["d_aout"]
        hidden = hyper["d_prjh"]
        self.bertmodel = nn.ModuleDict({"model": encoder})
        self.visual_enc = Utterance(
            shape.vision_dim, hyper["d_vh"], vision, hyper["dropout_v"], hyper
        )
        self.acoustic_enc = Utterance(
            shape.audio_dim, hyper["d_ah"], audio, hyper["dropout_a"], hyper
        )
        self.mi_tv = Bound(text, vision)
        self.mi_ta = Bound(text, audio)
        self.mi_va = Bound(vision, audio) if hyper["add_va"] else None
        self.cpc_zt = Contrast(text, hidden)
        self.cpc_zv = Contrast(vision, hidden)
        self.cpc_za = Contrast(audio, hidden)
        self.fusion_prj = Fusion(text + vision + audio, hidden, hyper["dropout_prj"])
        for name, parameter in self.named_parameters():
            if not name.startswith("bertmodel.") and parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def encode(self, inputs: Inputs) -> Vectors:
        """The vectors of a batch: text's is the encoder's first output."""
        return Vectors(
            self.bertmodel["model"](inputs.text)[:, 0],
            self.acoustic_enc(inputs.audio, inputs.audio_lengths),
            self.visual_enc(inputs.vision, inputs.vision_lengths),
        )

    def fuse(self, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """The fusion `[B, D]` and predictions `[B]`."""
        fusion, prediction = self.fusion_prj(torch.cat(vectors, dim=1))
        return fusion, prediction

    def bounds(self, vectors: Vectors) -> list[tuple[Bound, Tensor, Tensor]]:
        """Each bound with its two representations."""
        bounds = [
            (self.mi_tv, vectors.text, vectors.vision),
            (self.mi_ta, vectors.text, vectors.audio),
        ]
        if self.mi_va is not None:
            bounds.append((self.mi_va, vectors.vision, vectors.audio))
        return bounds

    def likelihood(self, vectors: Vectors) -> Tensor:
        """The sum of the bounds' likelihoods."""
        likelihoods = [bound.likelihood(x, y) for bound, x, y in self.bounds(vectors)]
        return torch.stack(likelihoods).sum()

    def contrast(self, vectors: Vectors, fusion: Tensor) -> Tensor:
        """The sum of the contrastive losses of the fusion `[B, D]`."""
        loss: Tensor = (
            self.cpc_zt(vectors.text, fusion)
            + self.cpc_zv(vectors.vision, fusion)
            + self.cpc_za(vectors.audio, fusion)
        )
        return loss


class MmimMethod(Method):
    """The training procedure."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        self.hyper = hyper
        self.passes = 2 if hyper["contrast"] else 1
        self.model = Mmim(hyper, shape, encoder)
        self.modules = nn.ModuleDict({"Model": self.model})
        bert: list[nn.Parameter] = []
        bounds: list[nn.Parameter] = []
        main: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if name.startswith("bertmodel."):
                bert.append(parameter)
            elif not name.startswith("mi_"):
                main.append(parameter)
            elif ".entropy_prj." not in name:
                # The reference never updates the entropy's projection: its optimizer steps in the
                # first pass, and the projection has a gradient in the second.
                bounds.append(parameter)
        self.bound_optimizer = torch.optim.Adam(
            bounds, lr=hyper["lr_mmilb"], weight_decay=hyper["weight_decay_mmilb"]
        )
        self.main_optimizer = torch.optim.Adam(
            [
                {
                    "params": bert,
                    "lr": hyper["lr_bert"],
                    "weight_decay": hyper["weight_decay_bert"],
                },
                {
                    "params": main,
                    "lr": hyper["lr_main"],
                    "weight_decay": hyper["weight_decay_main"],
                },
            ]
        )
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.main_optimizer, mode="min", factor=0.5, patience=hyper["when"]
        )
        # For the latest batches of a pass, the sides of each bound.
        self.memory: list[list[Sides]] = []

    def fits_bounds(self, pass_: int) -> bool:
        """Whether a pass fits the bounds."""
        return self.passes == 2 and pass_ == 0

    def steps_of_pass(self, pass_: int, steps: int) -> int:
        if not self.fits_bounds(pass_):
            return steps
        share: float = self.hyper["bound_share"]
        return min(steps, max(1, math.ceil(steps * share)))

    def begin_pass(self, position: Position) -> None:
        self.memory.clear()

    def train_step(self, position: Position, batch: Batch) -> float:
        self.model.train()
        self.model.zero_grad()
        if self.fits_bounds(position.pass_):
            return self.fit_bounds(batch)
        return self.fit_main(position, batch)

    def update(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Backward pass, clipping over all gradients, and the optimizer's step."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.hyper["grad_clip"])
        optimizer.step()

    def fit_bounds(self, batch: Batch) -> float:
        """First pass: the bounds alone."""
        vectors = self.model.encode(batch.input)
        with torch.no_grad():
            _, prediction = self.model.fuse(vectors)
        loss = -self.model.likelihood(vectors)
        self.update(loss, self.bound_optimizer)
        return self.report(prediction, loss, bound=loss)

    def fit_main(self, position: Position, batch: Batch) -> float:
        """Second pass: everything else."""
        vectors = self.model.encode(batch.input)
        fusion, prediction = self.model.fuse(vectors)
        task = F.l1_loss(prediction, batch.labels)
        loss, parts = task, {"task": task}
        if self.hyper["contrast"]:
            parts["nce"] = self.model.contrast(vectors, fusion)
            parts["likelihood"] = self.model.likelihood(vectors)
            loss = loss + self.hyper["alpha"] * parts["nce"]
            loss = loss - self.hyper["beta"] * parts["likelihood"]
        sides = [bound.sides(y, batch.labels) for bound, _, y in self.model.bounds(vectors)]
        # The reference uses the entropy from one batch after the memory is full.
        if position.step > self.hyper["mem_size"]:
            parts["entropy"] = torch.stack(
                [
                    entropy([batch_sides[i] for batch_sides in self.memory], now)
                    for i, now in enumerate(sides)
                ]
            ).sum()
            loss = loss - self.hyper["beta"] * parts["entropy"]
        self.remember(position.step, sides)
        self.update(loss, self.main_optimizer)
        return self.report(prediction, loss, **parts)

    def remember(self, step: int, sides: list[Sides]) -> None:
        """Keeps the sides of a batch, in place of the oldest."""
        size = self.hyper["mem_size"]
        detached = [Sides(s.positive.detach(), s.negative.detach()) for s in sides]
        if len(self.memory) < size:
            self.memory.append(detached)
        elif size > 0:
            self.memory[step % size] = detached

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.model.eval()
        return self.model.fuse(self.model.encode(batch.input))[1]

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self.schedule.step(validation_loss)


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds the method; see `common.build`."""
    return MmimMethod(hyper, shape, Encoder.load(encoder))
