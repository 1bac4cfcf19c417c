"""The training procedure of Self-MM and TETFN: four predictions (fused, text, audio, vision), and
labels of single modalities, which training generates (ULGM, Yu et al., AAAI 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from common import Accumulation, Batch, Inputs, Method, Position, encoder_groups

# The tasks in the names of heads and hyper-parameters: fused, text, audio and vision.
HEADS = ("fusion", "text", "audio", "video")
EPSILON = 1e-8


class MultiTaskModel(nn.Module):
    """A model with a head per task: three linear layers, the first to the task's representation.
    Subclasses make one vector per task of the inputs."""

    def add_heads(self, hyper: dict[str, Any], widths: tuple[int, int, int, int]) -> None:
        """Adds the heads, with inputs of `widths`, as `post_<name>_layer_1` to `3`."""
        for name, width in zip(HEADS, widths, strict=True):
            hidden = hyper[f"post_{name}_dim"]
            self.add_module(f"post_{name}_dropout", nn.Dropout(hyper[f"post_{name}_dropout"]))
            self.add_module(f"post_{name}_layer_1", nn.Linear(width, hidden))
            self.add_module(f"post_{name}_layer_2", nn.Linear(hidden, hidden))
            self.add_module(f"post_{name}_layer_3", nn.Linear(hidden, 1))

    def head(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, width]` to the prediction `[N]` and the representation `[N, hidden]`."""
        first, second, third = (getattr(self, f"post_{name}_layer_{i}") for i in (1, 2, 3))
        feature = torch.relu(first(getattr(self, f"post_{name}_dropout")(x)))
        prediction: Tensor = third(torch.relu(second(feature))).squeeze(1)
        return prediction, feature

    def vectors(self, inputs: Inputs) -> list[Tensor]:
        """The tasks' vectors, `[N, width]` each."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        """The tasks' predictions `[N]` and their representations `[N, hidden]`."""
        vectors = self.vectors(inputs)
        outputs = [self.head(name, x) for name, x in zip(HEADS, vectors, strict=True)]
        return [prediction for prediction, _ in outputs], [feature for _, feature in outputs]


class UnimodalLabels:
    """The memory of labels and representations over the training split of S samples."""

    def __init__(self, samples: int, widths: list[int], bound: float, exclude_zero: bool) -> None:
        # `[S]` per task.
        self.labels = [torch.zeros(samples) for _ in widths]
        # `[S, width]` per task: the latest representation of each sample.
        self.features = [torch.zeros(samples, width) for width in widths]
        # Positive and negative center per task, `[width]` each.
        self.centers = [(torch.zeros(width), torch.zeros(width)) for width in widths]
        self.bound = bound
        self.exclude_zero = exclude_zero

    def begin(self, index: Tensor, labels: Tensor) -> None:
        """Sets the labels of every task to the multimodal ones; both are `[N]`."""
        for task in self.labels:
            task[index] = labels

    def loss(self, task: int, prediction: Tensor, index: Tensor) -> Tensor:
        """A task's loss for predictions `[N]`: the mean absolute error, weighted for a single
        modality by how far its label is from the multimodal one."""
        labels = self.labels[task][index]
        error = (prediction - labels).abs()
        if task > 0:
            error = (labels - self.labels[0][index]).abs().tanh() * error
        return error.mean()

    @torch.no_grad()
    def update(self, epoch: int, index: Tensor, features: list[Tensor]) -> None:
        """Updates after a step of `epoch` (from 1): the labels from the second epoch on, then the
        representations (`[N, width]` per task) and the centers."""
        if epoch > 1:
            self._update_labels(epoch, index, features)
        for task, feature in enumerate(features):
            memory, labels = self.features[task], self.labels[task]
            memory[index] = feature
            positive = labels > 0 if self.exclude_zero else labels >= 0
            self.centers[task] = (memory[positive].mean(0), memory[labels < 0].mean(0))

    def _lean(self, task: int, features: Tensor) -> Tensor:
        """How much closer representations are to the positive center than to the negative, `[N]`."""
        positive, negative = self.centers[task]
        to_positive = torch.linalg.vector_norm(features - positive, dim=-1)
        to_negative = torch.linalg.vector_norm(features - negative, dim=-1)
        return (to_negative - to_positive) / (to_positive + EPSILON)

    def _update_labels(self, epoch: int, index: Tensor, features: list[Tensor]) -> None:
        label = self.labels[0][index]
        fused = self._lean(0, features[0])
        for task in range(1, len(HEADS)):
            single = self._lean(task, features[task])
            guess = 0.5 * single / (fused + EPSILON) * label + 0.5 * (label + single - fused)
            guess = guess.clamp(-self.bound, self.bound)
            old = self.labels[task][index]
            new = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * guess
            self.labels[task][index] = new


def rate_groups(modules: nn.Module, hyper: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups of parameters by name, with their own rates: `text_model` with weight decay and
    without, `audio_model`, `video_model` and the rest."""
    decayed, undecayed, others = encoder_groups(modules, "text_model")
    groups: dict[str, list[nn.Parameter]] = {"audio": [], "video": [], "other": []}
    for name, parameter in others:
        kind = next((k for k in ("audio", "video") if f"{k}_model" in name), "other")
        groups[kind].append(parameter)
    return [
        {
            "params": decayed,
            "lr": hyper["learning_rate_bert"],
            "weight_decay": hyper["weight_decay_bert"],
        },
        {"params": undecayed, "lr": hyper["learning_rate_bert"], "weight_decay": 0.0},
        *(
            {
                "params": params,
                "lr": hyper[f"learning_rate_{kind}"],
                "weight_decay": hyper[f"weight_decay_{kind}"],
            }
            for kind, params in groups.items()
        ),
    ]


class MultiTask(Method):
    """The training procedure around a model."""

    def __init__(self, model: MultiTaskModel, hyper: dict[str, Any], samples: int) -> None:
        # The reference's trainer holds the model as `Model`.
        self.modules = nn.ModuleDict({"Model": model})
        self.model = model
        self.labels = UnimodalLabels(
            samples,
            [hyper[f"post_{name}_dim"] for name in HEADS],
            hyper["label_bound"],
            hyper["exclude_zero"],
        )
        self.optimizer = torch.optim.Adam(rate_groups(self.modules, hyper))
        self.accumulation = Accumulation(hyper["update_epochs"])

    def prepare(self, batch: Batch) -> None:
        self.labels.begin(batch.index, batch.labels)

    def begin_pass(self, position: Position) -> None:
        self.accumulation.reset()

    def train_step(self, position: Position, batch: Batch) -> float:
        self.modules.train()
        if self.accumulation.begin():
            self.optimizer.zero_grad()
        predictions, features = self.model(batch.input)
        fusion, text, audio, vision = (
            self.labels.loss(task, prediction, batch.index)
            for task, prediction in enumerate(predictions)
        )
        loss = fusion + text + audio + vision
        loss.backward()
        self.labels.update(position.epoch, batch.index, features)
        if self.accumulation.end():
            self.optimizer.step()
        return self.report(
            predictions[0], loss, fusion=fusion, text=text, audio=audio, vision=vision
        )

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        self.modules.eval()
        predictions, _ = self.model(batch.input)
        fused: Tensor = predictions[0]
        return fused
