"""Evaluates a model in all cases of the benchmark, without a queue."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cases import LNLN_CASES, Case
from .dataset import Dataset
from .erasure import BERT_PADDING, BERT_UNKNOWN, ERASURE_SEED, Batch, erase
from .metrics import measure
from .protocol import Protocol

if TYPE_CHECKING:
    import pandas
    import polars

#: A model: predictions ``[n]`` on the scale of the labels, for a batch of ``n`` samples.
Model = Callable[[Batch], ArrayLike]


@dataclass
class Results:
    """What a model predicted in each case, and the metrics.

    Attributes:
        method: Its id.
        seed: The seed it was trained with.
        dataset: The name of the dataset's protocol.
        predictions: float32 ``[n]`` by case.
        metrics: By case and metric.
    """

    method: str
    seed: int
    dataset: str
    predictions: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each case: method, seed, dataset, case and all metrics."""
        about = {"method": self.method, "seed": self.seed, "dataset": self.dataset}
        return [{**about, "case": case, **metrics} for case, metrics in self.metrics.items()]

    def mean(self, metric: str, kind: str = "r") -> float | None:
        """The mean of a metric over missing rates (``r``) or missing modalities (``missing``), as the paper's
        tables have it; ``None`` if it is undefined in a case.

        Raises:
            KeyError: An unknown metric.
        """
        values = [metrics[metric] for case, metrics in self.metrics.items() if case.startswith(f"{kind}=")]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def to_pandas(self) -> pandas.DataFrame:
        """As a pandas data frame, one row for each case.

        Raises:
            ImportError: pandas is missing.
        """
        import pandas

        return pandas.DataFrame(self.rows())

    def to_polars(self) -> polars.DataFrame:
        """As a polars data frame, one row for each case.

        Raises:
            ImportError: polars is missing.
        """
        import polars

        return polars.DataFrame(self.rows())

    def write_predictions(self, path: str | os.PathLike[str]) -> None:
        """Writes a CSV file for ``coord predictions import``, samples by their places in the test split.

        Raises:
            OSError: It cannot be written.
        """
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sample", "case", "prediction"])
            for case, values in self.predictions.items():
                # The shortest text that reads back as the same single-precision number.
                writer.writerows((place, case, str(value)) for place, value in enumerate(values))


def evaluate(
    model: Model,
    dataset: Dataset,
    protocol: str | Iterable[Case | str] = "lnln",
    *,
    method: str = "model",
    seed: int = 0,
    batch_size: int = 64,
    erasure_seed: int = ERASURE_SEED,
    unknown: int = BERT_UNKNOWN,
    padding: int = BERT_PADDING,
    measured_by: Protocol | None = None,
) -> Results:
    """Lets a model predict the test split in each case, and measures it.

    Args:
        model: Called with a :class:`Batch` of at most ``batch_size`` samples.
        dataset: The dataset.
        protocol: ``lnln`` for the sixteen cases of that paper, or cases.
        method: The model's id.
        seed: The seed it was trained with.
        batch_size: The most samples at once.
        erasure_seed: The protocol's erasure seed.
        unknown: The unknown token of the encoder that the model reads text with.
        padding: Its padding token.
        measured_by: Another protocol than the dataset's.

    Raises:
        ValueError: An unknown case; the model returns another number of values, or one that is not finite.
    """
    if isinstance(protocol, str):
        if protocol != "lnln":
            raise ValueError(f"unknown protocol `{protocol}`: write lnln, or a list of cases")
        cases: Iterable[Case | str] = LNLN_CASES
    else:
        cases = protocol
    rules = measured_by or dataset.protocol
    results = Results(method, seed, rules.name)
    split = dataset.test
    for case in cases:
        case = Case.parse(case) if isinstance(case, str) else case
        erased = erase(split, case, erasure_seed, unknown, padding)
        predictions = np.empty(len(split), np.float32)
        for start in range(0, len(split), batch_size):
            batch = erased[slice(start, start + batch_size)]
            values = np.asarray(model(batch), np.float32).reshape(-1)
            if len(values) != len(batch):
                raise ValueError(f"the model returned {len(values)} values for {len(batch)} samples in case {case}")
            predictions[start : start + len(batch)] = values
        results.predictions[case.name] = predictions
        results.metrics[case.name] = measure(predictions, split.labels, rules)
    return results
