"""`python bench/reference measure`: the references' own training steps and predictions."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Options, random data, the reader of encoders and of peak memory are those of the eager peers.
sys.path.append(str(ROOT / "bench" / "eager"))

from options import add_measuring
from repositories import METHODS, REPOSITORIES, Unusable, missing_package
from splits import Measured, Training, Validation

EPILOG = """\
examples:
  git clone https://github.com/thuiar/MMSA ../MMSA
  pip install --requirement bench/reference/requirements.txt
  python bench/reference measure self-mm --repository ../MMSA --threads 2
  BENCH_MMSA=../MMSA python bench/reference measure tfr-net --batch 16

methods, their repositories, and the variables that name clones:
""" + "\n".join(
    f"  {one.name} ({one.variable}): {', '.join(one.methods)}" for one in REPOSITORIES
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        prog="python bench/reference",
        description="Measure the references' own training steps and predictions, from clones of their repositories.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    measure = commands.add_parser(
        "measure",
        help="measure a method's training step, predictions and peak memory, on the CPU",
        description="Run a reference's own trainer on random data in the shapes of MOSI, with its own "
        "hyper-parameters, and print a line of JSON: method, step (seconds per training step, the median of the "
        "rounds after a first one that is not counted, in the second epoch), evaluated (predictions per second when it "
        "evaluates the validation split, or null), evaluated_batch (the batches in which the reference evaluates, or "
        "null), peak (bytes of resident memory), torch (PyTorch's version). Runs on the CPU and downloads nothing.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    measure.add_argument("method", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    measure.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        help="the clone of the method's repository (else the repository's variable, below)",
    )
    measure.add_argument(
        "--evaluate", action="store_true", help="also measure predictions, in the batches in which the reference evaluates"
    )
    add_measuring(measure, "the text encoder's folder, a BERT in Hugging Face's format")
    return main


def clone_of(arguments: argparse.Namespace) -> Path:
    """The clone that the command line or the environment names. Warns if it is not at the tested commit."""
    repository = METHODS[arguments.method]
    named = arguments.repository or os.environ.get(repository.variable)
    if not named:
        raise Unusable(
            f"missing clone of {repository.name}",
            f"{repository.download}, and name its folder with --repository or {repository.variable}",
        )
    folder = Path(named).resolve()
    warning = repository.check(folder)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return folder


def encoder_of(arguments: argparse.Namespace) -> Path:
    """The encoder's folder."""
    folder: Path = arguments.encoder.resolve()
    file = folder / "config.json"
    if not file.is_file():
        raise Unusable(f"missing encoder: {folder}", "`make setup` installs it, or name a folder with --encoder")
    kind = json.loads(file.read_text("utf-8")).get("model_type", "bert")
    if kind != "bert":
        raise Unusable(f"{folder} is a {kind}; the references are measured with a BERT", "name one with --encoder")
    return folder


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measures the method of the command line."""
    clone, encoder = clone_of(arguments), encoder_of(arguments)
    # The clone stays as it is; progress bars, downloads and GPUs stay out of the measurement.
    sys.dont_write_bytecode = True
    os.environ.update(
        CUDA_VISIBLE_DEVICES="", TQDM_DISABLE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error"
    )
    try:
        import torch

        from common import EncoderConfig
        from measure import peak_bytes
        from samples import Samples, averaged, samples
        from trainers import TRAINERS, Setting, link_encoder

        torch.set_num_threads(arguments.threads)
        torch.manual_seed(1)
        config = EncoderConfig.read(encoder)

        def of_size(size: int) -> Samples:
            batch = samples(size, min(20_000, config.vocab_size))
            return averaged(batch, config.hidden_size) if arguments.method == "lf-dnn" else batch

        batch = of_size(arguments.batch)
        training = Training(batch, arguments.steps, arguments.rounds)
        validation = Validation(of_size, training, arguments.batch, arguments.evaluate)
        # LNLN's program tests after each epoch, too.
        loaders = {"train": training, "valid": validation, "test": [batch]}
        # References write weights where they run.
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.chdir(folder)
            linked = link_encoder(encoder, Path(folder))
            setting = Setting(arguments.method, clone, linked, config.hidden_size, arguments.batch)
            # What PyTorch would have the references change is not for who measures them.
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(nowhere), contextlib.suppress(Measured):
                TRAINERS[METHODS[arguments.method].option](setting, loaders)
            os.chdir(ROOT)
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    if not training.seconds:
        repository = METHODS[arguments.method]
        raise Unusable(
            f"the trainer of {arguments.method} ended before its second epoch",
            f"measure {repository.name} at the tested commit: `git -C {clone} checkout {repository.commit}`",
        )
    return {
        "method": arguments.method,
        # The upper one of two, as in the worker's benchmark.
        "step": statistics.median_high(training.seconds),
        "evaluated": validation.rate,
        "evaluated_batch": validation.size if validation.rate else None,
        "peak": peak_bytes(),
        "torch": torch.__version__,
    }


def main() -> int:
    """Runs the command line."""
    try:
        print(json.dumps(run(parser().parse_args())))
    except Unusable as error:
        print(error.report(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
