"""Cases: what is missing from a test split."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

#: The letters of the modalities, in the order of names.
MODALITIES = {"l": "text", "a": "audio", "v": "vision"}


@dataclass(frozen=True)
class Case:
    """One case. Steps are erased with a probability, ``r=0.5``, or whole modalities are missing,
    ``missing=la`` (``l`` is text, ``a`` audio, ``v`` vision).

    >>> Case.parse("missing=la").rate_of("audio"), Case.parse("r=0.30")
    (1.0, Case(name='r=0.3'))
    """

    name: str

    @classmethod
    def parse(cls, text: str) -> Case:
        """Reads a name, in any notation of the rate.

        Raises:
            ValueError: It is not the name of a case.
        """
        kind, _, what = text.partition("=")
        if kind == "r":
            try:
                rate = Decimal(what)
            except InvalidOperation:
                raise ValueError(f"`{text}` is not a case: `{what}` is not a number") from None
            thousandths = rate * 1000
            if not (rate.is_finite() and 0 <= rate <= 1) or thousandths != thousandths.to_integral_value():
                raise ValueError(f"`{text}` is not a case: the rate must be a multiple of 0.001 from 0 to 1")
            short = f"{rate:f}"
            if "." in short:
                short = short.rstrip("0").rstrip(".")
            return cls(f"r={short}")
        letters = "".join(letter for letter in MODALITIES if letter in what)
        if kind == "missing" and 0 < len(letters) < 3 and sorted(letters) == sorted(what):
            return cls(f"missing={letters}")
        raise ValueError(f"`{text}` is not a case: write r=0.5, or missing= with one or two of l, a and v")

    @property
    def is_rate(self) -> bool:
        """Whether it is a missing rate, not a set of missing modalities."""
        return self.name.startswith("r=")

    def rate_of(self, modality: str) -> float:
        """The probability that a step of ``text``, ``audio`` or ``vision`` is missing."""
        kind, _, what = self.name.partition("=")
        if kind == "r":
            # As NumPy reads the number of the reference's settings.
            return float(what)
        return float(any(MODALITIES[letter] == modality for letter in what))

    def __str__(self) -> str:
        return self.name


#: The sixteen cases of the LNLN paper: rates from 0 to 0.9, and each set of missing modalities.
LNLN_CASES: tuple[Case, ...] = tuple(
    Case.parse(text)
    for text in [f"r={tenth / 10}" for tenth in range(10)]
    + [f"missing={letters}" for letters in ("l", "a", "v", "la", "lv", "av")]
)
