"""Runs the references' own trainers: their models, losses and optimizers with their own hyper-parameters.

Nothing of a reference is in this file: modules are imported from the user's clone while it runs.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import MOSI, read_safetensors

Loaders = dict[str, Any]
# Lengths as the references' datasets give them: text, audio, vision.
LENGTHS = (MOSI.text_length, MOSI.audio_length, MOSI.vision_length)
# The features of BERT base, where a configuration names its text encoder's.
BERT_WIDTH = 768
# The encoder's name in the configurations, and in code that ignores them.
ENCODER = "bert-base-uncased"


@dataclass(frozen=True)
class Setting:
    """What is trained, and on what."""

    method: str
    clone: Path
    encoder: Path
    # Features per token of the encoder.
    width: int
    batch: int


def link_encoder(encoder: Path, folder: Path) -> Path:
    """Puts the encoder under the name of BERT base into `folder`, where the references run: Transformers prefers a
    folder of that name to a download."""
    links = folder / ENCODER
    links.mkdir()
    for file in encoder.resolve().iterdir():
        (links / file.name).symlink_to(file)
    return links


def accept_verbose() -> None:
    """Lets MMSA's trainers build a scheduler with the argument `verbose`, which PyTorch removed in 2.7."""
    schedulers: Any = torch.optim.lr_scheduler
    plateau = schedulers.ReduceLROnPlateau
    if "verbose" in inspect.signature(plateau).parameters:
        return

    class ReduceLROnPlateau(plateau):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, verbose: bool = False, **named: Any) -> None:
            super().__init__(*arguments, **named)

    schedulers.ReduceLROnPlateau = ReduceLROnPlateau


def widths(configuration: dict[str, Any], width: int) -> dict[str, Any]:
    """What a configuration says about the width of its text encoder, for another encoder."""
    own = {name: width for name, value in configuration.items() if value == BERT_WIDTH}
    return {**own, "feature_dims": [width, MOSI.audio_dim, MOSI.vision_dim]}


def train_mmsa(setting: Setting, loaders: Loaders) -> None:
    """Trains a method of MMSA as its function `_run` does."""
    accept_verbose()
    sys.path.insert(0, str(setting.clone / "src"))
    package = importlib.import_module("MMSA")
    arguments = package.get_config_regression(setting.method.replace("-", "_"), "mosi")
    loaders["valid"].size = arguments["batch_size"]
    changed = {
        **widths(arguments, setting.width),
        # What MMSA's dataset and MMSA's function `MMSA_run` set.
        "seq_lens": LENGTHS,
        "device": torch.device("cpu"),
        "train_mode": "regression",
        "cur_seed": 1,
        "model_save_path": "weights.pth",
        # Ours.
        "batch_size": setting.batch,
        "pretrained": str(setting.encoder),
    }
    arguments.update(changed)
    if setting.method == "cenet":
        # CENet reads its encoder with pytorch-transformers, which does not know safetensors.
        weights = setting.encoder / "pytorch_model.bin"
        if not weights.exists():
            torch.save(read_safetensors(setting.encoder / "model.safetensors"), weights)
    model = importlib.import_module("MMSA.models").AMIO(arguments)
    if setting.method == "misa":
        # MISA's projection reads 768 features, whatever the configuration says.
        model.Model.project_t.project_t = nn.Linear(setting.width, arguments.hidden_size)
    importlib.import_module("MMSA.trains").ATIO().getTrain(arguments).do_train(model, loaders)


def train_lnln(setting: Setting, loaders: Loaders) -> None:
    """Runs LNLN's program `train.py` with its configuration of MOSI."""
    yaml = importlib.import_module("yaml")
    configuration = yaml.safe_load((setting.clone / "configs/train_mosi.yaml").read_text("utf-8"))
    configuration["base"]["batch_size"] = setting.batch
    # Its program `robust_evaluation.py` evaluates every missing rate with these.
    evaluation = yaml.safe_load((setting.clone / "configs/eval_mosi.yaml").read_text("utf-8"))
    loaders["valid"].size = evaluation["base"]["batch_size"]
    extractor = configuration["model"]["feature_extractor"]
    extractor["bert_pretrained"] = str(setting.encoder)
    extractor["input_dims"][0] = setting.width
    file = Path("train_mosi.yaml").resolve()
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    sys.path.insert(0, str(setting.clone))
    # The program reads its command line when it is imported.
    sys.argv = ["train.py", "--config_file", str(file)]
    program: Any = importlib.import_module("train")
    program.MMDataLoader = lambda _: loaders
    program.main()


def train_emt_dlfr(setting: Setting, loaders: Loaders) -> None:
    """Trains EMT-DLFR as its program `run.py` does."""
    sys.path.insert(0, str(setting.clone))
    root: Any = importlib.import_module("config.get_data_root")
    # The folder that holds datasets and encoders, which users are told to set.
    root.data_root = str(Path.cwd())
    encoders = Path("pretrained_berts")
    encoders.mkdir()
    (encoders / "bert_en").symlink_to(setting.encoder)
    program = importlib.import_module("run")
    sys.argv = ["run.py", "--modelName", setting.method, "--datasetName", "mosi"]
    asked = program.parse_args()
    asked.missing_rate, asked.seeds, asked.num_seeds = (0.3, 0.3, 0.3), [asked.seed], 1
    arguments = program.ConfigRegression(asked).get_config()
    loaders["valid"].size = arguments["batch_size"]
    changed = {
        **widths(arguments, setting.width),
        # What EMT-DLFR's dataset and its function `run` set.
        "seq_lens": LENGTHS,
        "device": torch.device("cpu"),
        "model_save_path": "weights.pth",
        # Ours.
        "batch_size": setting.batch,
    }
    arguments.update(changed)
    model = program.AMIO(arguments)
    program.ATIO().getTrain(arguments).do_train(model, loaders)


# By the repository's option.
TRAINERS: dict[str, Callable[[Setting, Loaders], None]] = {
    "mmsa": train_mmsa,
    "lnln": train_lnln,
    "emt-dlfr": train_emt_dlfr,
}
