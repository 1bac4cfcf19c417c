"""The metrics of the field's reference code (MMSA's ``metricsTop.py``), as the benchmark computes them.

Values are clipped first, rounding is half to even, F1 is weighted by support, and comparisons happen in
single precision.
"""

from __future__ import annotations

import math
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .protocol import MOSI, Protocol

Floats = NDArray[np.float32]
Classes = NDArray[np.int64]


def measure(predictions: ArrayLike, labels: ArrayLike, protocol: Protocol = MOSI) -> dict[str, float | None]:
    """All metrics of the predictions and labels of a split, both ``[n]``, by id. Accuracies, F1 and laziness
    are fractions, nothing is rounded, and what is undefined is ``None``.

    >>> from halfheard import MOSI, measure
    >>> measure([-0.5, 1.2, 2.6], [-1.0, 0.0, 3.0], MOSI)["acc2_nonzero"]
    1.0

    Raises:
        ValueError: There are no samples, the numbers differ, or a value is not finite.
    """
    predicted = np.asarray(predictions, np.float32).reshape(-1)
    truth = np.asarray(labels, np.float32).reshape(-1)
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} labels")
    if not len(truth):
        raise ValueError("there are no predictions to measure")
    for what, values in (("prediction", predicted), ("label", truth)):
        if not np.isfinite(values).all():
            sample = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"the {what} of sample {sample} is not finite")
    if protocol.rule == "intervals":
        low, high = (np.float32(edge) for edge in protocol.label_range)
        predicted, truth = predicted.clip(low, high), truth.clip(low, high)

    values: dict[str, float | None] = {}
    fine: tuple[Classes, Classes] | None = None
    for count, edges in reversed(protocol.classes):
        if count > 2:
            pair = _classes(predicted, protocol, count, edges), _classes(truth, protocol, count, edges)
            values[f"acc{count}"] = _accuracy(*pair)
            fine = fine or pair
    binaries = _binaries(predicted, truth, protocol)
    for name, pair in binaries:
        suffix = name.removeprefix("acc2")
        values[name] = _accuracy(*pair)
        values[f"f1{suffix}"] = _weighted_f1(*pair)
        values[f"f1{suffix}_swapped"] = _weighted_f1(*reversed(pair))
    if fine is None and binaries:
        fine = binaries[-1][1]
    if fine is not None:
        values["laziness"] = _laziness(*fine)
    values["mae"] = _sum(np.abs(predicted - truth).astype(np.float64)) / len(truth)
    values["corr"] = _correlation(predicted, truth)
    return values


def _classes(values: Floats, protocol: Protocol, count: int, edges: tuple[float, ...]) -> Classes:
    if protocol.rule == "rounded":
        first = protocol.neutral - (count - 1) / 2
        clipped = values.clip(np.float32(first), np.float32(first + count - 1))
        return (np.rint(clipped) - np.float32(first)).astype(np.int64)
    sorted_edges = np.asarray(edges, np.float32)
    # An edge belongs to the class below it.
    return np.searchsorted(sorted_edges, values, side="left").astype(np.int64)


def _binaries(predicted: Floats, truth: Floats, protocol: Protocol) -> list[tuple[str, tuple[Classes, Classes]]]:
    two = [edges for count, edges in protocol.classes if count == 2]
    if not two:
        return []
    if protocol.rule == "intervals":
        edge = np.float32(two[0][0] if two[0] else protocol.neutral)
        return [("acc2", ((predicted > edge).astype(np.int64), (truth > edge).astype(np.int64)))]
    edge = np.float32(protocol.neutral)
    counts = truth != edge
    return [
        (
            "acc2_nonzero",
            ((predicted[counts] > edge).astype(np.int64), (truth[counts] > edge).astype(np.int64)),
        ),
        ("acc2_nonneg", ((predicted >= edge).astype(np.int64), (truth >= edge).astype(np.int64))),
    ]


def _accuracy(predicted: Classes, truth: Classes) -> float | None:
    if not len(truth):
        return None
    return int((predicted == truth).sum()) / len(truth)


def _weighted_f1(predicted: Classes, truth: Classes) -> float | None:
    """The F1 of each class, weighted by how many samples truly are of it."""
    if not len(truth):
        return None
    total = 0.0
    for of_class in np.union1d(predicted, truth):
        said, true = predicted == of_class, truth == of_class
        support = int(true.sum())
        right = int((said & true).sum())
        total += support * 2.0 * right / (int(said.sum()) + support)
    return total / len(truth)


def _laziness(predicted: Classes, truth: Classes) -> float | None:
    """The total variation distance between the predicted and the true distribution of classes."""
    if not len(truth):
        return None
    moved = sum(abs(int((predicted == c).sum()) - int((truth == c).sum())) for c in np.union1d(predicted, truth))
    return moved / 2.0 / len(truth)


def _correlation(predicted: Floats, truth: Floats) -> float | None:
    """Pearson's; undefined where either side does not vary."""
    if (predicted == predicted[0]).all() or (truth == truth[0]).all():
        return None
    p, l = predicted.astype(np.float64), truth.astype(np.float64)
    p, l = p - _sum(p) / len(p), l - _sum(l) / len(l)
    scale = math.sqrt(_sum(p * p)) * math.sqrt(_sum(l * l))
    if scale == 0.0 or not math.isfinite(value := _sum(p * l) / scale):
        return None
    return min(1.0, max(-1.0, value))


def _sum(values: NDArray[np.float64]) -> float:
    """From the first to the last: NumPy's own sum goes in pairs, which changes the last bits."""
    return float(np.cumsum(values)[-1])
