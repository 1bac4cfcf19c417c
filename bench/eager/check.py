"""Compares the peers with recordings of the methods' references, as the worker's own tests do
(`worker/models/tests/parity`): the initial weights, then the predictions of every forward pass in
several epochs of the reference's trainer."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import (
    Batch,
    Inputs,
    Method,
    PerModality,
    Position,
    Shape,
    build,
    read_safetensors,
    root,
    write_safetensors,
)
from recorded import CASES, Case

Hyper = dict[str, Any]


class Difference(Exception):
    """A peer does not compute what its reference computed."""


class NoRecording(Exception):
    """A recording is not there."""


@dataclass(frozen=True)
class Result:
    """The outcome of a comparison without a difference."""

    method: str
    calls: int
    largest: float
    allowed: float


def shared_folder(given: Path | None = None) -> Path:
    """The folder that holds `parity`: the given one, else `HALFHEARD_SHARED`, else `../shared`."""
    if given is not None:
        return given
    named = os.environ.get("HALFHEARD_SHARED")
    return Path(named) if named else root().parent / "shared"


class Recording:
    """A recording: its metadata, and its tensors by name."""

    def __init__(self, name: str, shared: Path) -> None:
        folder = shared / "parity"
        tensors = folder / f"{name}.safetensors"
        if not tensors.is_file():
            raise NoRecording(
                f"missing recording: {tensors}; name the folder that holds parity/ with "
                "--shared or HALFHEARD_SHARED"
            )
        self.meta: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
        self.limits: dict[str, float] = json.loads((folder / "tolerances.json").read_text("utf-8"))[
            name
        ]
        self.tensors = read_safetensors(tensors)
        self.weights = {
            key.removeprefix("weights."): tensor
            for key, tensor in self.tensors.items()
            if key.startswith("weights.")
        }

    def shape(self) -> Shape:
        """The sizes of the recorded data."""
        text, audio, vision = (
            self.tensors[f"train.{name}"].shape for name in ("text", "audio", "vision")
        )
        return Shape(text[2], audio[1], audio[2], vision[1], vision[2], text[0])

    def write_encoder(self, folder: Path) -> None:
        """Writes an encoder folder with the recorded configuration and weights."""
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = {**self.meta["bert"], **dropout, "hidden_act": "gelu"}
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        weights: dict[str, Tensor] = {}
        for name, tensor in self.weights.items():
            # The names of the encoder's weights end in Hugging Face's names.
            starts = (name.find(part) for part in ("embeddings.", "encoder.layer.", "pooler."))
            found = [at for at in starts if at >= 0]
            if found:
                weights[name[min(found) :]] = tensor
        write_safetensors(weights, folder / "model.safetensors")

    def batches(self, split: str, erased: bool) -> list[Batch]:
        """The batches of a split, in order."""
        size, samples = self.meta["batch_size"], self.tensors[f"{split}.y"].shape[0]
        return [
            self._batch(split, erased, at, min(at + size, samples))
            for at in range(0, samples, size)
        ]

    def _batch(self, split: str, erased: bool, begin: int, end: int) -> Batch:
        def rows(name: str) -> Tensor:
            return self.tensors[f"{split}.{name}"][begin:end]

        def inputs(suffix: str) -> Inputs:
            return Inputs(
                text=rows(f"text{suffix}").long(),
                audio=rows(f"audio{suffix}"),
                vision=rows(f"vision{suffix}"),
                audio_lengths=rows("audio_lengths"),
                vision_lengths=rows("vision_lengths"),
            )

        recorded = self.tensors.get(f"{split}.missing_rate_l")
        rate = torch.zeros(end - begin) if recorded is None else recorded[begin:end].reshape(-1)
        names = ("text", "audio", "vision")
        return Batch(
            index=torch.arange(begin, end),
            input=inputs("_m" if erased else ""),
            complete=inputs(""),
            kept=PerModality(*(rows(f"{name}_missing_mask") for name in names)),
            present=PerModality(rows("text")[:, 1], rows("audio_mask"), rows("vision_mask")),
            missing_rate=PerModality(rate, rate, rate),
            labels=rows("y"),
        )


class Comparison:
    """Compares predictions with the recorded calls, in order."""

    def __init__(self, case: Case, recording: Recording) -> None:
        self.case = case
        self.recording = recording
        self.kinds: list[str] = recording.meta["calls"]
        self.calls = 0
        self.steps = 0
        self.largest = 0.0

    def prediction(self, kind: str, prediction: Tensor) -> None:
        """Compares the predictions `[N]` of the next call, of kind `train` or `eval`."""
        call = self.calls
        if call >= len(self.kinds) or self.kinds[call] != kind:
            recorded = "none" if call >= len(self.kinds) else self.kinds[call]
            raise Difference(f"call {call} is of kind {kind}, recorded {recorded}")
        expected = self.recording.tensors[f"call.{call:03}"].reshape(-1)
        if prediction.numel() != expected.numel():
            raise Difference(
                f"call {call} ({kind}) has {prediction.numel()} predictions, "
                f"recorded {expected.numel()}"
            )
        gap = (prediction.reshape(-1) - expected).abs().max().item()
        allowed = self.recording.limits["every_call" if call else "first_call"]
        # Not `gap > allowed`: a gap that is not a number is a difference, too.
        if not gap <= allowed:
            raise Difference(f"call {call} ({kind}) differs by {gap:.2e}, allowed {allowed:.0e}")
        self.largest = max(self.largest, gap)
        self.calls += 1

    def losses(self, losses: dict[str, float]) -> None:
        """Compares the parts of the next training step's loss, if they are recorded."""
        recorded = self.recording.tensors.get("losses")
        if recorded is None:
            return
        allowed = max(self.recording.limits["every_call"], 1e-4)
        names = self.recording.meta["hyper"]["losses"].split(",")
        for name, expected in zip(names, recorded[self.steps].tolist(), strict=True):
            if name not in losses:
                raise Difference(f"step {self.steps} does not report the loss `{name}`")
            if not abs(losses[name] - expected) <= allowed * max(1.0, abs(expected)):
                raise Difference(
                    f"step {self.steps}: {name} is {losses[name]}, recorded {expected}"
                )
        self.steps += 1

    def predictions(self, method: Method, batches: Iterable[Batch]) -> None:
        """Predicts batches and compares."""
        for batch in batches:
            self.prediction("eval", method.predict(batch))


def _train(method: Method, epoch: int, batches: list[Batch], comparison: Comparison) -> None:
    for pass_ in range(method.passes):

        def at(step: int, pass_: int = pass_) -> Position:
            return Position(epoch, pass_, step, len(batches))

        method.begin_pass(at(0))
        taken = method.steps_of_pass(pass_, len(batches))
        for step, batch in enumerate(batches[:taken]):
            method.train_step(at(step), batch)
            comparison.losses(method.losses)
            comparison.prediction("train", method.prediction)
        method.end_pass(at(taken))


def _validate(method: Method, batches: list[Batch], comparison: Comparison) -> float:
    """The mean of the batches' losses, by which the recorded schedules go."""
    losses = []
    for batch in batches:
        prediction = method.predict(batch)
        comparison.prediction("eval", prediction)
        losses.append(method.validation_loss(prediction, batch.labels))
    mean = sum(losses) / max(1, len(losses))
    return round(mean, 4) if method.rounds_validation else mean


def _built(case: Case, recording: Recording) -> Method:
    recorded = recording.meta["hyper"]
    epochs = recorded.get("n_epochs") or recorded.get("max_epochs") or recording.meta["epochs"]
    reserved = {"max_epochs": epochs, "early_stop": 0, "batch_size": recording.meta["batch_size"]}
    with tempfile.TemporaryDirectory() as folder:
        recording.write_encoder(Path(folder))
        torch.manual_seed(1)
        return build(
            case.method,
            {**case.hyper(recorded), **reserved},
            recording.shape(),
            Path(folder),
            recording.weights,
        )


def check(
    name: str,
    shared: Path | None = None,
    changed: Callable[[Recording], None] | None = None,
) -> Result:
    """Compares the method `name` with its recording; `changed` may change the recording first, so
    that tests can see that a difference is found.

    Raises Difference, or NoRecording if there is none.
    """
    case = CASES[name]
    recording = Recording(case.recording, shared_folder(shared))
    if changed is not None:
        changed(recording)
    method = _built(case, recording)
    comparison = Comparison(case, recording)
    train = recording.batches("train", case.erased)
    for batch in train:
        method.prepare(batch)
    validates = recording.meta["hyper"].get("do_validation", True)
    valid = recording.batches("valid", case.erased) if validates else []
    test = recording.batches("test", case.erased)
    for epoch in range(1, recording.meta["epochs"] + 1):
        _train(method, epoch, train, comparison)
        loss = _validate(method, valid, comparison)
        if case.test_each_epoch:
            comparison.predictions(method, test)
        method.end_epoch(epoch, loss)
    if not case.test_each_epoch:
        comparison.predictions(method, test)
    if comparison.calls != len(comparison.kinds):
        raise Difference(f"{comparison.calls} calls, recorded {len(comparison.kinds)}")
    allowed = recording.limits["every_call"]
    return Result(name, comparison.calls, comparison.largest, allowed)


def run(methods: list[str], shared: Path | None) -> int:
    """Checks methods and prints a line for each. Returns the exit status: 1 on a difference or a
    missing recording."""
    torch.set_num_threads(1)
    status = 0
    for name in methods:
        try:
            result = check(name, shared)
        except (Difference, NoRecording, OSError, ValueError) as error:
            print(f"{name}: {error}")
            status = 1
        except KeyError as error:
            print(f"{name}: missing key in the recording or its hyper-parameters: {error}")
            status = 1
        else:
            print(
                f"{name}: {result.calls} calls, largest difference {result.largest:.2e}, "
                f"allowed {result.allowed:.0e}"
            )
    return status
