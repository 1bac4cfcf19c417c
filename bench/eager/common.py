"""What all methods share: batches, the interface of a method, hyper-parameters, training helpers.

N is the number of samples in a batch, L tokens in a text, Ta and Tv steps of audio and vision, Da
and Dv their features.

Modules of this folder import each other by their plain names (`from common import Batch`): the folder
is on Python's path when `python bench/eager` runs.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from encoder import Encoder, EncoderConfig
from tensors import read_safetensors, write_safetensors

__all__ = [
    "METHODS",
    "MOSI",
    "Accumulation",
    "Batch",
    "Encoder",
    "EncoderConfig",
    "Inputs",
    "Method",
    "PerModality",
    "Position",
    "Recurrent",
    "Shape",
    "build",
    "encoder_groups",
    "hyper",
    "pack",
    "random_batch",
    "read_safetensors",
    "root",
    "unpack",
    "warmup_cosine",
    "write_safetensors",
]

METHODS = (
    "misa",
    "self-mm",
    "mmim",
    "cenet",
    "tetfn",
    "tfr-net",
    "almt",
    "lnln",
    "lf-dnn",
    "text-only",
    "emt-dlfr",
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a dataset, which a model is built for."""

    text_length: int
    audio_length: int
    audio_dim: int
    vision_length: int
    vision_dim: int
    # Samples in the training split.
    train_samples: int
    # Whether the dataset has a label per modality.
    unimodal_labels: bool = False


MOSI = Shape(50, 375, 5, 500, 20, 1284)


@dataclass(frozen=True)
class PerModality:
    """One tensor per modality."""

    text: Tensor
    audio: Tensor
    vision: Tensor


@dataclass
class Inputs:
    """The inputs of a batch."""

    # `[N, 3, L]` int64: token ids, attention mask, segments.
    text: Tensor
    # `[N, Ta, Da]` float.
    audio: Tensor
    # `[N, Tv, Dv]` float.
    vision: Tensor
    # Number of steps before padding, `[N]` int64.
    audio_lengths: Tensor
    vision_lengths: Tensor


@dataclass
class Batch:
    """A batch of N samples."""

    # Positions in the split, `[N]` int64.
    index: Tensor
    # The inputs after erasure, which every method predicts from.
    input: Inputs
    # The inputs before erasure.
    complete: Inputs | None
    # 1 where a step is neither padding nor erased, 0 elsewhere: `[N, L]`, `[N, Ta]`, `[N, Tv]` float.
    kept: PerModality
    # 1 where a step is not padding, 0 elsewhere; shapes as `kept`.
    present: PerModality
    # Missing rate of each modality of each sample, `[N]` float each.
    missing_rate: PerModality
    # Sentiment, `[N]` float.
    labels: Tensor
    # Sentiment per modality, `[N]` float each, if the dataset has it.
    unimodal_labels: PerModality | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]

    def complete_inputs(self) -> Inputs:
        """The inputs before erasure, for methods whose training compares with them."""
        if self.complete is None:
            raise ValueError("training needs complete inputs besides the erased ones")
        return self.complete


@dataclass(frozen=True)
class Position:
    """A step of a training run."""

    # The epoch, from 1.
    epoch: int
    # The pass over the training split within the epoch, from 0.
    pass_: int
    # The batch within the pass, from 0.
    step: int
    # Batches per pass.
    steps: int


class Method(ABC):
    """A model with its training procedure, with the faults of its reference.

    `prepare` is called once for every training batch; then, for every epoch and pass, `begin_pass`,
    `train_step` for every batch, and `end_pass`; after the last pass of an epoch, `end_epoch`.
    """

    # Passes over the training split per epoch.
    passes: int = 1
    # Whether the validation loss is rounded to four digits, as MMSA's trainers do.
    rounds_validation: bool = True
    # The modules, whose state has the names of the reference's (and of the recordings).
    modules: nn.Module
    # The predictions of the latest training step before its update, `[N]`, detached.
    prediction: Tensor
    # The losses of the latest training step by the names of the worker's method; `loss` is the total.
    losses: dict[str, float]

    def prepare(self, batch: Batch) -> None:
        """Reads one training batch before the first epoch, for methods that generate labels."""

    def steps_of_pass(self, pass_: int, steps: int) -> int:
        """How many of the `steps` batches of a pass are trained on."""
        return steps

    def begin_pass(self, position: Position) -> None:
        """Begins a pass; `step` of the position is 0."""

    @abstractmethod
    def train_step(self, position: Position, batch: Batch) -> float:
        """Runs forward, backward and update for one batch, in training mode. Returns the loss, and
        calls `report` to leave the predictions and the losses."""

    def end_pass(self, position: Position) -> None:
        """Ends a pass."""

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Predicts `[N]` in evaluation mode, without gradients."""

    def validation_loss(self, prediction: Tensor, labels: Tensor) -> float:
        """The validation loss, which schedules use, of predictions against labels, both `[N]`."""
        return (prediction - labels).abs().mean().item()

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        """Ends an epoch; schedules step here."""

    def report(self, prediction: Tensor, loss: Tensor, **parts: Tensor) -> float:
        """Keeps a training step's predictions `[N]` and its losses; returns the total loss."""
        self.prediction = prediction.detach()
        self.losses = {name: part.item() for name, part in {"loss": loss, **parts}.items()}
        return self.losses["loss"]

    def load(self, weights: dict[str, Tensor]) -> None:
        """Loads all weights by the names of the recordings (without `weights.`).

        Raises ValueError unless the names and shapes are those of `modules`.
        """
        state = self.modules.state_dict(keep_vars=True)
        loaded: dict[str, Tensor] = {}
        for recorded, tensor in weights.items():
            name = recorded if recorded in state else stored_as(recorded)
            if name is None:
                continue
            if name not in state:
                raise ValueError(f"the model has no weight `{recorded}`")
            if name in loaded:
                if not torch.equal(loaded[name], tensor):
                    raise ValueError(f"`{recorded}` is not `{name}`, which the model uses for it")
                continue
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"`{recorded}` has shape {list(tensor.shape)}, not {list(state[name].shape)}"
                )
            loaded[name] = tensor
            with torch.no_grad():
                state[name].copy_(tensor)
        missing = sorted(state.keys() - loaded.keys())
        if missing:
            raise ValueError(f"the recording lacks weights of the model: {', '.join(missing)}")


def stored_as(name: str) -> str | None:
    """The first name of a recorded weight: EMT-DLFR's modules are recorded under every name that they
    have. None for constants."""
    if name.endswith(("position_ids", "pos_embed.pe")):
        return None
    parts = name.split(".")
    for module, indices in (("mpus", 3), ("attn_pools", 1)):
        if module in parts:
            at = parts.index(module)
            parts[at + 1 : at + 1 + indices] = ["0"] * indices
    return ".".join(parts)


def root() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parents[2]


def hyper(method: str, dataset: str = "mosi", **overrides: Any) -> dict[str, Any]:
    """A method's hyper-parameters for a dataset, from its file in `shared/methods`."""
    try:
        toml: ModuleType = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        try:
            toml = importlib.import_module("tomli")
        except ModuleNotFoundError:
            raise SystemExit(
                "reading TOML needs Python 3.11 or newer, or the package tomli"
            ) from None
    file = root() / "shared" / "methods" / f"{method}.toml"
    read: dict[str, Any] = toml.loads(file.read_text(encoding="utf-8"))
    own = read.get("hyper_by_dataset", {}).get(dataset, {})
    return {**read.get("hyper", {}), **own, **overrides}


def build(
    method: str,
    hyper: dict[str, Any],
    shape: Shape,
    encoder: Path | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Method:
    """Builds the method named `method`. Its module's `build` takes the other arguments but the last:

    `hyper`: the hyper-parameters; a schedule over all epochs takes their number from `max_epochs`.
    `encoder`: the text encoder's folder; None stands for BERT base with random weights.
    `weights`: all weights by the recordings' names; None leaves the initial ones.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method `{method}`: choose from {', '.join(METHODS)}")
    module = importlib.import_module(method.replace("-", "_"))
    built: Method = module.build(hyper, shape, encoder)
    if weights is not None:
        built.load(weights)
    return built


def random_batch(count: int, shape: Shape = MOSI, seed: int = 1, vocabulary: int = 20_000) -> Batch:
    """`count` random samples of random lengths, 30 % of their audio and vision erased; tokens are
    below `vocabulary`."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=random)

    def present(steps: int, shortest: float, longest: float) -> tuple[Tensor, Tensor]:
        low, high = (max(1, round(share * steps)) for share in (shortest, longest))
        lengths = torch.randint(low, high + 1, (count,), generator=random)
        return lengths, (torch.arange(steps)[None] < lengths[:, None]).float()

    # For MOSI, 6 to 40 tokens, 40 to 375 steps of audio, 40 to 500 steps of vision.
    _, text = present(shape.text_length, 6 / 50, 40 / 50)
    audio_lengths, audio = present(shape.audio_length, 40 / 375, 1)
    vision_lengths, vision = present(shape.vision_length, 40 / 500, 1)
    kept = PerModality(
        *((uniform(*there.shape) > 0.3).float() * there for there in (text, audio, vision))
    )
    mask = text.long()
    first = min(1000, vocabulary // 2)
    ids = torch.randint(first, vocabulary, mask.shape, generator=random) * mask
    complete = Inputs(
        text=torch.stack([ids, mask, torch.zeros_like(mask)], 1),
        audio=uniform(count, shape.audio_length, shape.audio_dim) * audio[:, :, None],
        vision=uniform(count, shape.vision_length, shape.vision_dim) * vision[:, :, None],
        audio_lengths=audio_lengths,
        vision_lengths=vision_lengths,
    )

    def labels() -> Tensor:
        return uniform(count) * 6 - 3

    return Batch(
        index=torch.arange(count),
        input=Inputs(
            text=complete.text,
            audio=complete.audio * kept.audio[:, :, None],
            vision=complete.vision * kept.vision[:, :, None],
            audio_lengths=audio_lengths,
            vision_lengths=vision_lengths,
        ),
        complete=complete,
        kept=kept,
        present=PerModality(text, audio, vision),
        missing_rate=PerModality(*(torch.full((count,), 0.3) for _ in range(3))),
        labels=labels(),
        unimodal_labels=PerModality(labels(), labels(), labels())
        if shape.unimodal_labels
        else None,
    )


class Accumulation:
    """Gradient accumulation over several batches. An incomplete group at the end of a pass is
    dropped, as in the references: `begin_pass` calls `reset`."""

    def __init__(self, every: int) -> None:
        self.every = max(1, every)
        self.reset()

    def reset(self) -> None:
        """Starts over."""
        self.left = self.every

    def begin(self) -> bool:
        """Begins a batch. Returns whether it is the first of its group: zero the gradients."""
        first = self.left == self.every
        self.left -= 1
        return first

    def end(self) -> bool:
        """Ends a batch. Returns whether its group is complete: update the weights."""
        complete = self.left == 0
        if complete:
            self.reset()
        return complete


NamedParameters = list[tuple[str, nn.Parameter]]


def encoder_groups(
    modules: nn.Module, encoder: str
) -> tuple[list[nn.Parameter], list[nn.Parameter], NamedParameters]:
    """Splits the trainable parameters into those of the text encoder with weight decay, those
    without it (biases and layer norms), and, with their names, the rest. Names of the text encoder
    contain `encoder`."""
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    rest: NamedParameters = []
    for name, parameter in modules.named_parameters():
        if not parameter.requires_grad:
            continue
        if encoder not in name:
            rest.append((name, parameter))
        elif "bias" in name or "LayerNorm.weight" in name:
            undecayed.append(parameter)
        else:
            decayed.append(parameter)
    return decayed, undecayed, rest


def warmup_cosine(
    optimizer: torch.optim.Optimizer, epochs: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up over a tenth of the epochs, from 0, then cosine annealing over the rest, for one
    `step()` at the end of every epoch: the schedule of LNLN and ALMT. The first epoch changes no
    weight, and the cosine starts one epoch after the warm-up has reached 1."""
    epochs = max(1, epochs)
    warmup, period = 0.1 * epochs, 0.9 * epochs

    def factor(done: int) -> float:
        if done <= warmup:
            return done / warmup
        return 0.5 * (1.0 + math.cos(math.pi * (done - (math.floor(warmup) + 1)) / period))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def pack(x: Tensor, lengths: Tensor) -> PackedSequence:
    """Packs `x` `[N, T, D]` by `lengths` `[N]`; an empty sequence counts as one of one step."""
    lengths = lengths.clamp(min=1).cpu()
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def unpack(packed: PackedSequence, steps: int | None = None) -> Tensor:
    """The sequences as a batch `[N, T, D]` padded with zeros, T being the longest or `steps`."""
    padded, _ = pad_packed_sequence(packed, batch_first=True, total_length=steps)
    return padded


class Recurrent(nn.Module):
    """An LSTM's last state, with dropout and a linear layer (of Self-MM and EMT-DLFR)."""

    def __init__(self, width: int, hidden: int, output: int, dropout: float) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear_1 = nn.Linear(hidden, output)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """`[N, T, D]` with `lengths` `[N]` to `[N, output]`."""
        _, (last, _) = self.rnn(pack(x, lengths))
        out: Tensor = self.linear_1(self.dropout(last.squeeze(0)))
        return out
