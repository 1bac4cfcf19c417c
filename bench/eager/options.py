"""Options of a measurement, which the peers and the references share. Needs no PyTorch."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def positive(text: str) -> int:
    """A positive integer of the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def add_measuring(parser: argparse.ArgumentParser, encoder: str) -> None:
    """Adds how much is measured, with how many threads, and the folder of the text encoder, which `encoder` describes."""
    for name, default, says in (
        ("steps", 4, "steps in a round"),
        ("rounds", 3, "rounds, besides the first, of every pass over the data"),
        ("batch", 64, "samples in a batch"),
        ("threads", 2, "threads"),
    ):
        says = f"{says} (%(default)s)"
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=says)
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="FOLDER",
        default=Path(os.environ.get("HALFHEARD_ENCODER_EN") or ROOT / ".deps" / "encoder"),
        help=f"{encoder} (HALFHEARD_ENCODER_EN, or .deps/encoder)",
    )
