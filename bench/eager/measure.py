"""Measures a method: seconds per training step, predictions per second, peak memory."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import MOSI, Batch, EncoderConfig, Method, Position, build, hyper, random_batch

# Cases of the benchmark's protocol, and how many of them have a text of their own: ten missing rates,
# no language, and five that share a text with one of these.
CASES = 16
TEXTS = 11
EPOCHS = 200


def peak_bytes() -> int | None:
    """The most resident memory of this process so far, if the system tells it."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) * 1024 for words in lines), None)


def on_device(value: Any, device: str) -> Any:
    """A batch, or a part of one, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if not is_dataclass(value):
        return value
    parts = {part.name: on_device(getattr(value, part.name), device) for part in fields(value)}
    return replace(value, **parts)


def seconds_per_step(method: Method, batch: Batch, steps: int, rounds: int) -> float:
    """The median over all passes and rounds; the first round of a pass, which allocates, is not
    counted."""
    seconds = []
    for pass_ in range(method.passes):
        total = steps * (rounds + 1)
        # The second epoch: TFR-Net trains its generators from there on.
        method.begin_pass(Position(2, pass_, 0, total))
        for round_ in range(rounds + 1):
            start = time.perf_counter()
            for step in range(round_ * steps, (round_ + 1) * steps):
                loss = method.train_step(Position(2, pass_, step, total), batch)
                if not math.isfinite(loss):
                    raise SystemExit(f"error: the loss is {loss} in step {step} of pass {pass_}")
            if round_ > 0:
                seconds.append((time.perf_counter() - start) / steps)
    # The upper one of two, as in the worker's benchmark.
    return statistics.median_high(seconds)


def cases(text: Tensor) -> Iterator[Tensor]:
    """The texts `[N, 3, L]` of the cases: other tokens of the same lengths."""
    tokens = torch.zeros_like(text)
    tokens[:, 0] = text[:, 1]
    for case in range(CASES):
        yield text - tokens * (case if case < TEXTS else 0)


def predictions_per_second(method: Method, batch: Batch) -> float:
    """Predictions per second over all cases, after one prediction that is not counted."""
    batches = [
        replace(batch, input=replace(batch.input, text=text)) for text in cases(batch.input.text)
    ]
    method.predict(batches[0])
    start = time.perf_counter()
    for case in batches:
        prediction = method.predict(case)
    # Waits until all is computed.
    prediction.cpu()
    return CASES * len(batch) / (time.perf_counter() - start)


def run(arguments: argparse.Namespace) -> int:
    """Measures the method of the command line and prints the result."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    values = hyper(arguments.method, "mosi", batch_size=arguments.batch, max_epochs=EPOCHS)
    with torch.device(arguments.device):
        method = build(arguments.method, values, MOSI, arguments.encoder)
    vocabulary = min(20_000, EncoderConfig.read(arguments.encoder).vocab_size)

    def samples(seed: int) -> Batch:
        batch = random_batch(arguments.batch, MOSI, seed=seed, vocabulary=vocabulary)
        return on_device(batch, arguments.device)

    # A step reads its loss, so it has ended on the device, too.
    batch = samples(1)
    method.prepare(batch)
    step = seconds_per_step(method, batch, arguments.steps, arguments.rounds)
    evaluated = None
    if arguments.evaluate:
        evaluated = predictions_per_second(method, samples(2))
    result = {
        "method": arguments.method,
        "step": step,
        "evaluated": evaluated,
        "peak": peak_bytes(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))
    return 0
