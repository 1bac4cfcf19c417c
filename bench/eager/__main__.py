"""`python bench/eager check` and `python bench/eager measure`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    from common import METHODS
except ModuleNotFoundError as missing:
    if missing.name != "torch":
        raise
    sys.exit("error: missing PyTorch\nhint: `pip install torch`, or run a Python that has it")
from options import add_measuring
from recorded import CASES

EPILOG = """\
examples:
  python bench/eager check self-mm lnln --shared ../shared
  python bench/eager measure lnln --steps 4 --rounds 3 --batch 64 --threads 2 --evaluate
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        prog="python bench/eager",
        description="Check and measure eager PyTorch peers of the worker's methods.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="compare methods with the recordings of their references",
        description="Compare methods with recordings of their references: train each method as "
        "recorded, compare every prediction within the tolerances of the worker's own tests, and "
        "print a line per method. Exits with 1 on a difference or a missing recording.",
    )
    check.add_argument(
        "methods",
        nargs="*",
        metavar="METHOD",
        help=f"the methods to check (all that are recorded): {', '.join(CASES)}",
    )
    check.add_argument(
        "--shared",
        type=Path,
        metavar="FOLDER",
        help="the folder that holds parity/ (HALFHEARD_SHARED, or ../shared)",
    )
    measure = commands.add_parser(
        "measure",
        help="measure a method's training step, evaluation and peak memory",
        description="Measure a method and print a line of JSON: method, step (seconds per "
        "training step, the median of the rounds after a first one that is not counted), evaluated "
        "(predictions per second over sixteen cases, in batches of the training's size; null "
        "without --evaluate), peak (bytes of resident memory), torch (PyTorch's version). The data "
        "are random, in the shapes of MOSI.",
    )
    measure.add_argument("method", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    measure.add_argument(
        "--device", default="cpu", metavar="DEVICE", help="cpu, or cuda:0 (%(default)s)"
    )
    measure.add_argument("--evaluate", action="store_true", help="measure the evaluation, too")
    add_measuring(measure, "the text encoder's folder")
    return main


def main() -> int:
    """Runs the command line."""
    arguments = parser().parse_args()
    if arguments.command == "check":
        import check

        unknown = [name for name in arguments.methods if name not in CASES]
        if unknown:
            parser().error(f"not recorded: {', '.join(unknown)}; choose from {', '.join(CASES)}")
        return check.run(arguments.methods or list(CASES), arguments.shared)
    import measure

    if not (arguments.encoder / "config.json").is_file():
        parser().error(
            f"missing encoder: {arguments.encoder}; `make setup` installs it, or name a folder with "
            "--encoder"
        )
    return measure.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
