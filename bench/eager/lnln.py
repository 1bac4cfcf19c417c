"""LNLN (Zhang et al., NeurIPS 2024): the language-dominated noise-resistant learning network.

B is the number of samples, K of tokens that a modality is condensed into, D their width. Complete
inputs are encoded in a forward pass of their own, and every layer computes all its outputs, also
where only the first K are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import Batch, Encoder, Inputs, Method, Position, Shape, warmup_cosine
from token_transformer import CrossTransformer, HyperModality, Transformer


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient changes its sign."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """`x` of any shape."""
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """The gradient of the input."""
        return -gradient


def perceptron(width: int, hidden: int, output: int) -> nn.Sequential:
    """Two linear layers with a leaky ReLU between them."""
    return nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, output))


@dataclass
class Comparison:
    """The inputs of the losses."""

    # `[B]`.
    prediction: Tensor
    # Of the language, `[B, 1]`.
    completeness: Tensor
    # Logits of the dominant tokens, then of the complete language's, `[2 B K, 2]`.
    effectiveness: Tensor
    # What was rebuilt, and the features of the complete inputs, of all modalities: `[B, 3 K, D]`.
    rebuilt: Tensor
    truth: Tensor


class Model(nn.Module):
    """The network: embeddings of the modalities, correction, learning and reconstruction."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        super().__init__()
        width, tokens, heads = hyper["width"], hyper["tokens"], hyper["heads"]

        def transformer(length: int, learned: int, depth: str) -> Transformer:
            return Transformer(length, learned, width, hyper[depth], heads, width)

        def condense(features: int, length: int) -> nn.Sequential:
            layers = transformer(length, tokens, "embedding_depth")
            return nn.Sequential(nn.Linear(features, width), layers)

        self.tokens = tokens
        self.bertmodel = nn.ModuleDict({"model": encoder})
        self.proj_l = condense(encoder.width, shape.text_length)
        self.proj_a = condense(shape.audio_dim, shape.audio_length)
        self.proj_v = condense(shape.vision_dim, shape.vision_length)
        self.completeness_check = nn.Sequential(
            transformer(tokens, 1, "completeness_depth"), perceptron(width, width // 2, 1)
        )
        self.h_p = nn.Parameter(torch.ones(1, tokens, width))
        self.proxy_dominate_modality_generator = transformer(3 * tokens, tokens, "proxy_depth")
        self.effective_discriminator = perceptron(width, hyper["discriminator_hidden"], 2)
        # Of audio, vision and language.
        self.reconstructor = nn.ModuleList(
            transformer(tokens, 0, "reconstructor_depth") for _ in range(3)
        )
        self.h_hyper = nn.Parameter(torch.ones(1, tokens, width))
        depth = hyper["fusion_depth"]
        self.dmml = nn.ModuleList(
            [
                transformer(tokens, 0, "language_depth"),
                HyperModality(width, hyper["hyper_depth"], heads),
                CrossTransformer(tokens, tokens, width, depth, heads, width),
                nn.Linear(width, 1),
            ]
        )

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """The features of language, audio and vision, `[B, K, D]` each. Padding is attended to."""
        language = self.proj_l(self.bertmodel["model"](inputs.text))
        audio, vision = self.proj_a(inputs.audio), self.proj_v(inputs.vision)
        return language[:, : self.tokens], audio[:, : self.tokens], vision[:, : self.tokens]

    def correct(self, language: Tensor, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, K, D]` to the dominant one `[B, K, D]` and the completeness `[B, 1]`."""
        encoder, score = self.completeness_check
        completeness = torch.sigmoid(score(encoder(language)[:, 0]))
        start = self.h_p.expand(len(language), -1, -1)
        proxy = self.proxy_dominate_modality_generator(torch.cat([start, audio, vision], dim=1))
        # The reference reverses every gradient that reaches the proxy, the sentiment loss's too.
        proxy = ReverseGradient.apply(proxy[:, : self.tokens])  # type: ignore[no-untyped-call]
        weight = completeness[:, :, None]
        return proxy * (1 - weight) + language * weight, completeness

    def regress(self, dominant: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Features `[B, K, D]` to predictions `[B]`."""
        language_encoder, hyper_learning, fusion, regression = self.dmml
        scales = language_encoder.states(dominant)  # type: ignore[operator]
        hyper = self.h_hyper.expand(len(dominant), -1, -1)
        hyper = hyper_learning(scales, audio, vision, hyper)
        fused = fusion(hyper, scales[-1])
        prediction: Tensor = regression(fused[:, 1:].mean(dim=1)).squeeze(1)
        return prediction

    def forward(self, inputs: Inputs) -> Tensor:
        """Predictions `[B]`."""
        language, audio, vision = self.embed(inputs)
        dominant, _ = self.correct(language, audio, vision)
        return self.regress(dominant, audio, vision)

    def compare(self, inputs: Inputs, complete: Inputs) -> Comparison:
        """Predicts from erased inputs, and compares their features with those of complete ones."""
        language, audio, vision = self.embed(inputs)
        truth = self.embed(complete)
        dominant, completeness = self.correct(language, audio, vision)
        judged = torch.cat([dominant, truth[0]]).flatten(0, 1)
        of_audio, of_vision, of_language = self.reconstructor
        rebuilt = [of_language(language), of_audio(audio), of_vision(vision)]
        return Comparison(
            prediction=self.regress(dominant, audio, vision),
            completeness=completeness,
            effectiveness=self.effective_discriminator(judged),
            rebuilt=torch.cat(rebuilt, dim=1),
            # The truth is trained toward the reconstruction, too, as in the reference.
            truth=torch.cat(truth, dim=1),
        )


class Lnln(Method):
    """The method."""

    def __init__(self, hyper: dict[str, Any], shape: Shape, encoder: Encoder) -> None:
        self.hyper = hyper
        self.model = Model(hyper, shape, encoder)
        self.modules = self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=hyper["learning_rate"], weight_decay=hyper["weight_decay"]
        )
        self.schedule = warmup_cosine(self.optimizer, hyper["max_epochs"])

    def train_step(self, position: Position, batch: Batch) -> float:
        complete = batch.complete_inputs()
        self.model.train()
        self.optimizer.zero_grad()
        compared = self.model.compare(batch.input, complete)
        sentiment = F.mse_loss(compared.prediction, batch.labels)
        completeness = F.mse_loss(compared.completeness, 1 - batch.missing_rate.text[:, None])
        # The discriminator's classes: 1 for dominant tokens, 0 for complete language.
        half = len(compared.effectiveness) // 2
        classes = torch.tensor([1, 0], device=batch.labels.device).repeat_interleave(half)
        adversarial = F.cross_entropy(compared.effectiveness, classes)
        reconstruction = F.mse_loss(compared.rebuilt, compared.truth)
        loss = (
            self.hyper["sigma"] * sentiment
            + self.hyper["alpha"] * completeness
            + self.hyper["beta"] * adversarial
            + self.hyper["gamma"] * reconstruction
        )
        loss.backward()
        self.optimizer.step()
        return self.report(
            compared.prediction,
            loss,
            l_sp=sentiment,
            l_cc=completeness,
            l_adv=adversarial,
            l_rec=reconstruction,
        )

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.model.eval()
        prediction: Tensor = self.model(batch.input)
        return prediction

    def validation_loss(self, prediction: Tensor, labels: Tensor) -> float:
        return F.mse_loss(prediction, labels).item()

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self.schedule.step()


def build(
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
) -> Method:
    """Builds LNLN without ablations; see `common.build`."""
    parts = ("dmc", "reconstructor", "dmml", "train_missing", "language", "audio", "vision")
    for name in (*parts, "alpha", "beta", "gamma"):
        if not hyper[name]:
            raise ValueError(f"`{name}` is off: only LNLN without ablations is written in PyTorch")
    return Lnln(hyper, shape, Encoder.load(encoder))
