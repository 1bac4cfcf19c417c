"""How a dataset's labels fall into classes, and which metrics follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """What the metrics of a dataset are computed by.

    Attributes:
        name: ``mosi``, ``mosei``, ``sims`` or ``own``.
        label_range: The smallest and the largest label.
        rule: ``rounded`` (as MOSI's) or ``intervals`` (as SIMS').
        classes: For each accuracy the number of classes and the edges between them; no edges where the
            rule rounds.
    """

    name: str
    label_range: tuple[float, float]
    rule: str
    classes: tuple[tuple[int, tuple[float, ...]], ...]

    @property
    def neutral(self) -> float:
        """The middle of the range: neither positive nor negative."""
        low, high = self.label_range
        return (low + high) / 2

    @classmethod
    def of_definition(cls, definition: dict[str, Any]) -> Protocol:
        """The protocol of an own dataset, from its file.

        Raises:
            KeyError: Something is missing.
        """
        low, high = definition["label_range"]
        classes = tuple((entry["count"], tuple(entry["edges"])) for entry in definition["classes"])
        return cls("own", (float(low), float(high)), definition["rule"], classes)

    @classmethod
    def of_file(cls, metadata: dict[str, str]) -> Protocol:
        """The protocol of a dataset file.

        Raises:
            ValueError: An unknown one.
        """
        kind = metadata.get("kind", "")
        if kind in BUILT_IN:
            return BUILT_IN[kind]
        if kind == "own" and "protocol" in metadata:
            return cls.of_definition(json.loads(metadata["protocol"]))
        raise ValueError(f"unknown protocol `{kind}`")


#: CMU-MOSI: labels from -3 to 3, rounded to classes.
MOSI = Protocol("mosi", (-3.0, 3.0), "rounded", ((2, ()), (5, ()), (7, ())))
#: CMU-MOSEI: as MOSI.
MOSEI = Protocol("mosei", (-3.0, 3.0), "rounded", ((2, ()), (5, ()), (7, ())))
#: CH-SIMS: labels from -1 to 1, with edges between the classes.
SIMS = Protocol(
    "sims",
    (-1.0, 1.0),
    "intervals",
    ((2, (0.0,)), (3, (-0.1, 0.1)), (5, (-0.7, -0.1, 0.1, 0.7))),
)

BUILT_IN = {protocol.name: protocol for protocol in (MOSI, MOSEI, SIMS)}
