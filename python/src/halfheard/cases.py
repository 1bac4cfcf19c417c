"""Cases: what is done to a test split."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

#: The letters of the modalities, in the order of names.
MODALITIES = {"l": "text", "a": "audio", "v": "vision"}


#: Kinds of which one number says how much.
_AMOUNTS = ("r", "mr", "block", "bursts", "asr", "noise")
#: Kinds of which a set of modalities says where.
_SETS = ("missing", "permuted", "averaged")


@dataclass(frozen=True)
class Case:
    """One case: what is done to a test split. Steps are erased with a probability, ``r=0.5``, or whole
    modalities are missing, ``missing=la`` (``l`` is text, ``a`` audio, ``v`` vision), or both,
    ``r=0.5+missing=la``; the other kinds are ``mr=0.3``, ``l=0.7,a=0.1,v=0.3``, ``block=0.3``, ``bursts=0.3``,
    ``asr=0.3``, ``noise=0.5``, ``permuted=a`` and ``averaged=a``. ``@1112`` after it names the erasure seed.

    >>> Case.parse("missing=la").rate_of("audio"), Case.parse("r=0.30")
    (1.0, Case(name='r=0.3'))
    >>> Case.parse("block=0.5@1112").seed(1111), Case.parse("block=0.5").seed(1111)
    (1112, 1111)
    """

    name: str

    @classmethod
    def parse(cls, text: str) -> Case:
        """Reads a name, in any notation of the numbers and in any order of a set's letters.

        Raises:
            ValueError: It is not the name of a case.
        """
        damage, at, mask = text.partition("@")
        name = _damage(damage, text)
        if at:
            if not (mask.isascii() and mask.isdigit()) or int(mask) > 0xFFFFFFFF:
                raise ValueError(f"`{text}` is not a case: `{mask}` is not an erasure seed")
            if name not in ("r=0", "r=1") and not name.startswith(("missing=", "averaged=")):
                name = f"{name}@{int(mask)}"
        return cls(name)

    @property
    def damage(self) -> str:
        """The name without its erasure seed."""
        return self.name.partition("@")[0]

    @property
    def kind(self) -> str:
        """``r``, ``missing``, ``r+missing``, ``mr``, ``l,a,v``, ``block``, ``bursts``, ``asr``, ``noise``,
        ``permuted`` or ``averaged``."""
        return "+".join(",".join(_keys(part)) for part in self.damage.split("+"))

    def seed(self, erasure_seed: int) -> int:
        """The seed that decides where the damage is: its own, or else the protocol's."""
        _, at, mask = self.name.partition("@")
        return int(mask) if at else erasure_seed

    @property
    def amount(self) -> float:
        """How much of it there is, for kinds of which one number says so.

        Raises:
            ValueError: It is of another kind.
        """
        if self.kind not in _AMOUNTS:
            raise ValueError(f"`{self}` has no amount")
        # As NumPy reads the number of the reference's settings.
        return float(self.damage.partition("=")[2])

    @property
    def is_rate(self) -> bool:
        """Whether it is a missing rate, not a set of missing modalities or damage of another kind."""
        return self.kind == "r"

    def rate_of(self, modality: str) -> float:
        """The probability that a step of ``text``, ``audio`` or ``vision`` is missing.

        Raises:
            ValueError: Its steps are not erased each on its own.
        """
        if self.kind not in ("r", "missing", "r+missing", "l,a,v"):
            raise ValueError(f"`{self}` has no rate of its steps")
        letter = next(letter for letter, name in MODALITIES.items() if name == modality)
        values = dict(part.split("=") for part in self.damage.replace("+", ",").split(","))
        if letter in values.get("missing", ""):
            return 1.0
        return float(values.get(letter, values.get("r", 0)))

    def __str__(self) -> str:
        return self.name


def _keys(part: str) -> list[str]:
    return [one.partition("=")[0] for one in part.split(",")]


def _damage(damage: str, text: str) -> str:
    """The only name of what ``damage`` says. ``text`` is the whole, for messages."""
    kind, _, what = damage.partition("=")
    if kind == "r" and "+" in what:
        rate, _, missing = what.partition("+")
        if not missing.startswith("missing="):
            raise ValueError(f"`{text}` is not a case: write r=0.3+missing=la")
        return _joint(_number(rate, text), _letters(missing.removeprefix("missing="), text))
    if kind == "l":
        keys = dict(part.partition("=")[::2] for part in damage.split(","))
        if "".join(keys) != "lav" or damage.count(",") != 2:
            raise ValueError(f"`{text}` is not a case: write l=0.7,a=0.1,v=0.3")
        rates = {letter: _number(rate, text) for letter, rate in keys.items()}
        others = {rate for rate in rates.values() if rate != "1"}
        whole = "".join(letter for letter, rate in rates.items() if rate == "1")
        if len(others) > 1:
            return ",".join(f"{letter}={rate}" for letter, rate in rates.items())
        return _joint(others.pop(), whole) if others else "r=1"
    if kind in _AMOUNTS:
        number = _number(what, text, 10 if kind == "noise" else 1)
        return f"{kind}={number}" if number != "0" else "r=0"
    if kind in _SETS:
        letters = _letters(what, text)
        if kind == "averaged" and "l" in letters:
            raise ValueError(f"`{text}` is not a case: tokens have no mean")
        return f"{kind}={letters}"
    raise ValueError(
        f"`{text}` is not a case: write r=0.5, missing= with one or two of l, a and v, r=0.3+missing=la, mr=0.3, "
        "l=0.7,a=0.1,v=0.3, block=0.3, bursts=0.3, asr=0.3, noise=0.5, permuted=a or averaged=a"
    )


def _joint(rate: str, letters: str) -> str:
    if not letters or rate == "1":
        return f"r={rate}"
    return f"missing={letters}" if rate == "0" else f"r={rate}+missing={letters}"


def _number(what: str, text: str, highest: int = 1) -> str:
    try:
        number = Decimal(what)
    except InvalidOperation:
        raise ValueError(f"`{text}` is not a case: `{what}` is not a number") from None
    fits = number.is_finite() and 0 <= number <= highest
    if not fits or number * 1000 != (number * 1000).to_integral_value():
        raise ValueError(f"`{text}` is not a case: `{what}` is not a multiple of 0.001 from 0 to {highest}")
    short = f"{abs(number):f}"
    return short.rstrip("0").rstrip(".") if "." in short else short


def _letters(what: str, text: str) -> str:
    letters = "".join(letter for letter in MODALITIES if letter in what)
    if not 0 < len(letters) < 3 or sorted(letters) != sorted(what):
        raise ValueError(f"`{text}` is not a case: `{what}` is not one or two of l, a and v")
    return letters


#: The sixteen cases of the LNLN paper: rates from 0 to 0.9, and each set of missing modalities.
LNLN_CASES: tuple[Case, ...] = tuple(
    Case.parse(text)
    for text in [f"r={tenth / 10}" for tenth in range(10)]
    + [f"missing={letters}" for letters in ("l", "a", "v", "la", "lv", "av")]
)
