"""MISA in eager PyTorch: modality-invariant and -specific representations (Hazarika et al., ACM MM
2020).

B samples, W features of a representation. The modules have the recording's names.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import Accumulation, Batch, Encoder, Inputs, Method, Position, Shape, pack, unpack

# The highest moment that the similarity loss compares.
MOMENTS = 5


class Split(NamedTuple):
    """One modality's representation and its parts, `[B, W]` each."""

    original: Tensor
    private: Tensor
    shared: Tensor
    reconstructed: Tensor


def projection(name: str, width: int, hidden: int) -> nn.Sequential:
    """`[B, width]` to the common width, `[B, hidden]`."""
    return nn.Sequential(
        OrderedDict(
            [
                (name, nn.Linear(width, hidden)),
                (f"{name}_activation", nn.ReLU()),
                (f"{name}_layer_norm", nn.LayerNorm(hidden)),
            ]
        )
    )


def sigmoid(name: str, hidden: int) -> nn.Sequential:
    """A linear layer and a sigmoid, `[B, hidden]` to `[B, hidden]`."""
    layers = [(name, nn.Linear(hidden, hidden)), (f"{name}_activation", nn.Sigmoid())]
    return nn.Sequential(OrderedDict(layers))


def single(name: str, width: int, output: int) -> nn.Sequential:
    """A linear layer, `[B, width]` to `[B, output]`."""
    return nn.Sequential(OrderedDict([(name, nn.Linear(width, output))]))


class Misa(nn.Module):
    """The network."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        super().__init__()
        hidden, vision, audio = hyper["hidden_size"], shape.vision_dim, shape.audio_dim
        self.bertmodel = nn.ModuleDict({"model": encoder})
        self.vrnn1 = nn.LSTM(vision, vision, bidirectional=True, batch_first=True)
        self.vlayer_norm = nn.LayerNorm(2 * vision)
        self.vrnn2 = nn.LSTM(2 * vision, vision, bidirectional=True, batch_first=True)
        self.arnn1 = nn.LSTM(audio, audio, bidirectional=True, batch_first=True)
        self.alayer_norm = nn.LayerNorm(2 * audio)
        self.arnn2 = nn.LSTM(2 * audio, audio, bidirectional=True, batch_first=True)
        self.project_t = projection("project_t", encoder.width, hidden)
        self.project_v = projection("project_v", 4 * vision, hidden)
        self.project_a = projection("project_a", 4 * audio, hidden)
        self.private_t = sigmoid("private_t_1", hidden)
        self.private_v = sigmoid("private_v_1", hidden)
        self.private_a = sigmoid("private_a_3", hidden)
        self.shared = sigmoid("shared_1", hidden)
        self.recon_t = single("recon_t_1", hidden, hidden)
        self.recon_v = single("recon_v_1", hidden, hidden)
        self.recon_a = single("recon_a_1", hidden, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, 2, hyper["transformer_feedforward"], hyper["transformer_dropout"]
        )
        self.transformer_encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fusion = nn.Sequential(
            OrderedDict[str, nn.Module](
                [
                    ("fusion_layer_1", nn.Linear(6 * hidden, 3 * hidden)),
                    ("fusion_layer_1_dropout", nn.Dropout(hyper["dropout"])),
                    ("fusion_layer_1_activation", nn.ReLU()),
                    ("fusion_layer_3", nn.Linear(3 * hidden, 1)),
                ]
            )
        )
        # The reference has them and uses them in no loss; here because weights load by name.
        self.sp_discriminator = single("sp_discriminator_layer_1", hidden, 4)
        self.tlayer_norm = nn.LayerNorm(2 * encoder.width)

    @staticmethod
    def utterance(
        first: nn.LSTM, norm: nn.LayerNorm, second: nn.LSTM, x: Tensor, lengths: Tensor
    ) -> Tensor:
        """Both LSTMs' last states in both directions: `[B, T, D]`, lengths `[B]` to `[B, 4 D]`."""
        packed, (state_1, _) = first(pack(x, lengths))
        _, (state_2, _) = second(pack(norm(unpack(packed)), lengths))
        # Each direction's states of the first and the second LSTM side by side.
        return torch.cat([state_1, state_2], dim=2).transpose(0, 1).flatten(1)

    def split(
        self, x: Tensor, project: nn.Module, private: nn.Module, reconstruct: nn.Module
    ) -> Split:
        """Splits a modality's vector `[B, D]` into its parts."""
        original = project(x)
        own, shared = private(original), self.shared(original)
        return Split(original, own, shared, reconstruct(own + shared))

    def forward(self, inputs: Inputs) -> tuple[Tensor, tuple[Split, Split, Split]]:
        """Predictions `[B]` and the split of text, vision and audio."""
        mask = inputs.text[:, 1].float()
        tokens = mask.sum(dim=1)
        # The mean of the encoder's outputs over the real tokens.
        words = self.bertmodel["model"](inputs.text)
        text = (words * mask[:, :, None]).sum(dim=1) / tokens[:, None]
        # As in the reference, audio and vision are cut to the text's length.
        lengths = tokens.long()
        vision = self.utterance(
            self.vrnn1,
            self.vlayer_norm,
            self.vrnn2,
            inputs.vision,
            lengths.clamp(max=inputs.vision.shape[1]),
        )
        audio = self.utterance(
            self.arnn1,
            self.alayer_norm,
            self.arnn2,
            inputs.audio,
            lengths.clamp(max=inputs.audio.shape[1]),
        )
        t = self.split(text, self.project_t, self.private_t, self.recon_t)
        v = self.split(vision, self.project_v, self.private_v, self.recon_v)
        a = self.split(audio, self.project_a, self.private_a, self.recon_a)
        # Six "words" through one transformer layer: [6, B, W].
        six = torch.stack([t.private, v.private, a.private, t.shared, v.shared, a.shared])
        fused = self.transformer_encoder(six).transpose(0, 1).flatten(1)
        return self.fusion(fused).squeeze(1), (t, v, a)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """The Euclidean distance of two vectors."""
    # A power rather than a root, as in the reference: their gradients round differently.
    squares: Tensor = (x - y).square().sum()
    return squares.pow(0.5)


def similarity_loss(x: Tensor, y: Tensor) -> Tensor:
    """Central moment discrepancy (Zellinger et al. 2017) of the rows of `x` and `y`, `[B, W]` both:
    the distances of the means and of the central moments."""
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    loss = distance(mean_x, mean_y)
    if len(x) < 2:
        # The central moments of one sample are zero, where the root has no finite gradient.
        return loss
    x, y = x - mean_x, y - mean_y
    for order in range(2, MOMENTS + 1):
        loss = loss + distance(x.pow(order).mean(dim=0), y.pow(order).mean(dim=0))
    return loss


def difference_loss(x: Tensor, y: Tensor) -> Tensor:
    """Soft orthogonality of `x` and `y`, `[B, W]` both (MISA, equation 9)."""

    def normalized(t: Tensor) -> Tensor:
        t = t - t.mean(dim=0, keepdim=True)
        # As in the reference, the norms take no part in the gradient.
        norms: Tensor = t.norm(dim=1, keepdim=True).detach()
        return t / (norms + 1e-6)

    correlation: Tensor = normalized(x).T @ normalized(y)
    return correlation.square().mean()


class MisaMethod(Method):
    """The training procedure."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        self.hyper = hyper
        self.model = Misa(hyper, shape, encoder)
        self.modules = nn.ModuleDict({"Model": self.model})
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=hyper["learning_rate"], weight_decay=hyper["weight_decay"]
        )
        self.accumulation = Accumulation(hyper["update_epochs"])

    def begin_pass(self, position: Position) -> None:
        self.accumulation.reset()

    def train_step(self, position: Position, batch: Batch) -> float:
        self.model.train()
        if self.accumulation.begin():
            self.optimizer.zero_grad()
        prediction, (text, vision, audio) = self.model(batch.input)
        task = F.mse_loss(prediction, batch.labels)
        # Equation 10: each private part with its shared one, and the private ones in pairs.
        difference = (
            difference_loss(text.private, text.shared)
            + difference_loss(vision.private, vision.shared)
            + difference_loss(audio.private, audio.shared)
            + difference_loss(audio.private, text.private)
            + difference_loss(audio.private, vision.private)
            + difference_loss(text.private, vision.private)
        )
        # Equation 8, over the three pairs of shared parts.
        similarity = (
            similarity_loss(text.shared, vision.shared)
            + similarity_loss(text.shared, audio.shared)
            + similarity_loss(audio.shared, vision.shared)
        ) / 3
        # Equation 11.
        reconstruction = (
            F.mse_loss(text.reconstructed, text.original)
            + F.mse_loss(vision.reconstructed, vision.original)
            + F.mse_loss(audio.reconstructed, audio.original)
        ) / 3
        loss = (
            task
            + self.hyper["diff_weight"] * difference
            + self.hyper["sim_weight"] * similarity
            + self.hyper["recon_weight"] * reconstruction
        )
        loss.backward()
        if self.hyper["grad_clip"] >= 0:
            nn.utils.clip_grad_value_(self.model.parameters(), self.hyper["grad_clip"])
        if self.accumulation.end():
            self.optimizer.step()
        return self.report(
            prediction,
            loss,
            task=task,
            difference=difference,
            similarity=similarity,
            reconstruction=reconstruction,
        )

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.model.eval()
        prediction: Tensor = self.model(batch.input)[0]
        return prediction

    def validation_loss(self, prediction: Tensor, labels: Tensor) -> float:
        return F.mse_loss(prediction, labels).item()


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds the method; see `common.build`."""
    return MisaMethod(hyper, shape, Encoder.load(encoder))
