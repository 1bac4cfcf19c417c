"""TFR-Net (Yuan et al., ACM MM 2021): erased sequences attend to themselves and to each other,
generators reconstruct what was erased, gated recurrent networks fuse.

N samples, T steps of a modality, D features a step; modalities in the order text, audio, vision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from cross_modal import CrossModalEncoder

LETTERS = ("l", "a", "v")


class Alignment(nn.Module):
    """Attention within and between the modalities, and the reconstruction of their steps."""

    def __init__(self, hyper: dict[str, Any], dims: list[int], lengths: list[int]) -> None:
        super().__init__()
        self.width: int = hyper["dst_feature_dims"]
        self.text_dropout = nn.Dropout(hyper["text_dropout"])
        # Attention's dropout depends on the modality attended to.
        dropouts = [hyper[f"attn_dropout{suffix}"] for suffix in ("", "_a", "_v")]

        def transformer(
            width: int, heads: int, layers: int, attention_dropout: float, positions: bool = True
        ) -> CrossModalEncoder:
            return CrossModalEncoder(
                width,
                heads,
                max(layers, hyper["nlevels"]),
                attention_dropout=attention_dropout,
                relu_dropout=hyper["relu_dropout"],
                residual_dropout=hyper["res_dropout"],
                embedding_dropout=hyper["embed_dropout"],
                positions=positions,
            )

        width, heads = self.width, hyper["nheads"]
        for own, letter in enumerate(LETTERS):
            kernel = hyper[f"conv1d_kernel_size_{letter}"]
            convolution = nn.Conv1d(dims[own], width, kernel, padding=(kernel - 1) // 2, bias=False)
            self.add_module(f"proj_{letter}", convolution)
            self.add_module(f"trans_{letter}_mem", transformer(width, heads, 3, dropouts[0]))
            for other in range(3):
                if other != own:
                    name = f"trans_{letter}_with_{LETTERS[other]}"
                    self.add_module(name, transformer(width, heads, 0, dropouts[other]))
            last = transformer(
                lengths[own], hyper["num_temporal_head"], 3, dropouts[0], positions=False
            )
            self.add_module(f"trans_{letter}_final", last)

    def project(self, modality: int, x: Tensor) -> Tensor:
        """`[N, T, F]` to `[T, N, D]`."""
        x = x.transpose(1, 2)
        if modality == 0:
            x = self.text_dropout(x)
        if x.shape[1] != self.width:
            x = self.get_submodule(f"proj_{LETTERS[modality]}")(x)
        return x.permute(2, 0, 1)

    def forward(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """A modality's features `[N, T, F]` each to the joint ones and the reconstructed ones,
        `[N, T, 3 D]` each."""
        projected = [self.project(modality, x) for modality, x in enumerate(inputs)]
        joint, reconstructed = [], []
        for own, letter in enumerate(LETTERS):
            x = projected[own]
            parts = [self.get_submodule(f"trans_{letter}_mem")(x)]
            for other in range(3):
                if other != own:
                    attention = self.get_submodule(f"trans_{letter}_with_{LETTERS[other]}")
                    parts.append(attention(x, projected[other]))
            joined = torch.cat(parts, dim=2)
            # The reference passes samples as steps, so a sample's reconstruction depends on the
            # samples before it in the batch.
            last = self.get_submodule(f"trans_{letter}_final")(joined.permute(1, 2, 0))
            joint.append(joined.transpose(0, 1))
            reconstructed.append(last.transpose(1, 2))
        return joint, reconstructed


class Gate(nn.Module):
    """A bidirectional GRU, a gate over its steps, the maximum over time."""

    def __init__(self, features: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        gru = nn.GRU(features, hidden, layers, batch_first=True, bidirectional=True)
        self.gru = nn.ModuleDict({"gru": gru})
        self.cnn = nn.Conv1d(2 * hidden, 1, 3, padding=1)
        self.fc = nn.Linear(2 * hidden + features, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """`[N, T, 3 D]`, and where there are steps `[N, T]`, to `[N, hidden]`."""
        # Steps before the first padding.
        lengths = present.cumprod(dim=1).sum(dim=1).long()
        packed, _ = self.gru["gru"](pack(x, lengths))
        steps = unpack(packed, x.shape[1])
        gate = self.cnn(steps.transpose(1, 2)).transpose(1, 2).sigmoid()
        mapped = self.fc(torch.cat([x, steps.tanh() * gate], dim=2)).tanh()
        out: Tensor = self.dropout(mapped.max(dim=1).values)
        return out


class Classifier(nn.Module):
    """A batch norm and two linear layers."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear_trans_norm = nn.BatchNorm1d(width)
        self.linear_trans_hidden = nn.Linear(width, hidden)
        self.linear_trans_final = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, width]` to predictions `[N]`."""
        norm = self.linear_trans_norm
        if len(x) > 1:
            x = norm(x)
        else:
            # A single sample has no variance, so it is normed as in evaluation. The reference fails
            # there.
            x = F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        hidden = self.dropout(F.leaky_relu(self.linear_trans_hidden(x)))
        out: Tensor = self.linear_trans_final(hidden).squeeze(1)
        return out


class Fusion(nn.Module):
    """A gate per modality and the classifier."""

    def __init__(self, hyper: dict[str, Any]) -> None:
        super().__init__()
        features = 3 * hyper["dst_feature_dims"]
        hidden = [hyper[f"fusion_{letter}_hid"] for letter in ("t", "a", "v")]
        self.text_encoder, self.audio_encoder, self.vision_encoder = (
            Gate(features, width, hyper["fusion_gru_layers"], hyper["fusion_drop"])
            for width in hidden
        )
        self.classifier = Classifier(sum(hidden), hyper["cls_hidden_dim"], hyper["cls_dropout"])

    def forward(self, joint: list[Tensor], present: PerModality) -> Tensor:
        """Joint features `[N, T, 3 D]` each to predictions `[N]`."""
        text, audio, vision = joint
        vectors = [
            self.text_encoder(text, present.text),
            self.audio_encoder(audio, present.audio),
            self.vision_encoder(vision, present.vision),
        ]
        out: Tensor = self.classifier(torch.cat(vectors, dim=1))
        return out


class Generator(nn.Module):
    """A linear layer, under the reference's names."""

    def __init__(self, features: int, output: int) -> None:
        super().__init__()
        self.Model = nn.ModuleDict({"linear": nn.Linear(features, output)})

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, 3 D]` to `[N, T, F]`."""
        out: Tensor = self.Model["linear"](x)
        return out


def moment_discrepancy(x: Tensor, y: Tensor, moments: int = 3) -> Tensor:
    """The central moment discrepancy between the rows of `x` and `y`, `[R, F]` both (Zellinger et
    al. 2017)."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        # The tiny number keeps the gradient finite where both are equal.
        return ((a - b).square().sum() + 1e-12).sqrt()

    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    total = distance(mean_x, mean_y)
    if len(x) > 1:
        x, y = x - mean_x, y - mean_y
        for order in range(2, moments + 1):
            total = total + distance((x**order).mean(dim=0), (y**order).mean(dim=0))
    return total


class TfrNet(nn.Module):
    """The model."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Path | None) -> None:
        super().__init__()
        bert = Encoder.load(encoder)
        self.text_model = nn.ModuleDict({"model": bert})
        dims = [bert.width, shape.audio_dim, shape.vision_dim]
        lengths = [shape.text_length, shape.audio_length, shape.vision_length]
        self.align_subnet = nn.ModuleDict({"Model": Alignment(hyper, dims, lengths)})
        joint = 3 * hyper["dst_feature_dims"]
        self.generator_t, self.generator_a, self.generator_v = (
            Generator(joint, output) for output in dims
        )
        self.fusion_subnet = nn.ModuleDict({"Model": Fusion(hyper)})
        self.generation_weights: list[float] = hyper["weight_gen_loss"]
        self.similarity_weight: float = hyper["weight_sim_loss"]

    def align(self, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        """Joint and reconstructed features, `[N, T, 3 D]` for each modality."""
        words = self.text_model["model"](inputs.text)
        aligned: tuple[list[Tensor], list[Tensor]] = self.align_subnet["Model"](
            [words, inputs.audio, inputs.vision]
        )
        return aligned

    def forward(self, batch: Batch) -> Tensor:
        """Predictions `[N]`."""
        joint, _ = self.align(batch.input)
        out: Tensor = self.fusion_subnet["Model"](joint, batch.present)
        return out

    def reconstruct(self, batch: Batch, complete: Inputs) -> tuple[Tensor, Tensor]:
        """Predictions `[N]` and the reconstruction's loss."""
        joint, reconstructed = self.align(batch.input)
        truth = [self.text_model["model"](complete.text), complete.audio, complete.vision]
        missing = [
            batch.present.text - batch.kept.text,
            batch.present.audio - batch.kept.audio,
            batch.present.vision - batch.kept.vision,
        ]
        generated = [
            self.generator_t(reconstructed[0]),
            self.generator_a(reconstructed[1]),
            self.generator_v(reconstructed[2]),
        ]
        text, audio, vision = (
            weight * self.reconstruction_loss(*tensors)
            for weight, *tensors in zip(
                self.generation_weights, generated, truth, missing, strict=True
            )
        )
        return self.fusion_subnet["Model"](joint, batch.present), text + audio + vision

    def reconstruction_loss(self, generated: Tensor, truth: Tensor, missing: Tensor) -> Tensor:
        """How far `generated` is from `truth`, `[N, T, F]` both, where `missing` `[N, T]` is 1."""
        count = missing.sum() * generated.shape[2] + 1e-4
        mask = missing.unsqueeze(2)
        generated, truth = generated * mask, truth * mask
        loss = F.smooth_l1_loss(generated, truth, reduction="sum") / count
        if self.similarity_weight != 0:
            discrepancy = moment_discrepancy(generated.flatten(0, 1), truth.flatten(0, 1))
            loss = loss + self.similarity_weight * discrepancy / count
        return loss


class TfrNetMethod(Method):
    """The training procedure."""

    def __init__(self, model: TfrNet, hyper: dict[str, Any]) -> None:
        # The reference's trainer holds the model as `Model`.
        self.modules = nn.ModuleDict({"Model": model})
        self.model = model
        decayed, undecayed, rest = encoder_groups(self.modules, "text_model")
        bert, other = hyper["learning_rate_bert"], hyper["learning_rate_other"]
        self.optimizer = torch.optim.Adam(
            [
                {"params": decayed, "lr": bert, "weight_decay": hyper["weight_decay_bert"]},
                {"params": undecayed, "lr": bert, "weight_decay": 0.0},
                {
                    "params": [parameter for _, parameter in rest],
                    "lr": other,
                    "weight_decay": hyper["weight_decay_other"],
                },
            ]
        )
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=0.1, patience=hyper["patience"]
        )
        self.accumulation = Accumulation(hyper["update_epochs"])
        self.grad_clip: float = hyper["grad_clip"]

    def begin_pass(self, position: Position) -> None:
        self.accumulation.reset()

    def train_step(self, position: Position, batch: Batch) -> float:
        complete = batch.complete_inputs()
        self.modules.train()
        if self.accumulation.begin():
            self.optimizer.zero_grad()
        prediction, reconstruction = self.model.reconstruct(batch, complete)
        task = F.l1_loss(prediction, batch.labels)
        # The generators are trained from the second epoch on.
        loss = task + reconstruction if position.epoch > 1 else task
        loss.backward()
        if self.grad_clip >= 0:
            nn.utils.clip_grad_value_(self.modules.parameters(), self.grad_clip)
        # The reference updates after every batch, while gradients accumulate, and once more after a
        # complete group.
        self.optimizer.step()
        if self.accumulation.end():
            self.optimizer.step()
        return self.report(prediction, loss, task=task, reconstruction=reconstruction)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.modules.eval()
        prediction: Tensor = self.model(batch)
        return prediction

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self.schedule.step(validation_loss)


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds TFR-Net (see `common.build`)."""
    return TfrNetMethod(TfrNet(hyper, shape, encoder), hyper)
