"""Tests of the references' measurement, with programs and folders that stand in for clones.

`python -m unittest discover --start-directory bench/reference`; tests that need PyTorch are skipped where it is
missing, and those of a repository's own code where no variable (`BENCH_MMSA`, …) names a clone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(HERE), str(HERE.parent / "eager")]

import repositories  # noqa: E402
from repositories import METHODS, REPOSITORIES, Unusable, missing_package  # noqa: E402
from splits import PREDICTIONS, UNTIMED, Measured, Training, Validation  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = unittest.skipUnless(HAS_TORCH, "PyTorch is missing: `pip install torch`")

ENCODER = {
    "model_type": "bert",
    "vocab_size": 2000,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
# Stands in for MMSA: its configuration, and a trainer of two epochs that checks what it gets.
MMSA = '''
class Configuration(dict):
    __getattr__ = dict.__getitem__

def get_config_regression(model, dataset):
    assert dataset == "mosi"
    sizes = {"hidden_size": 7, "text_out": 768, "audio_out": 16, "batch_size": 5}
    return Configuration(model_name=model, pretrained="bert-base-uncased", **sizes)
'''
MMSA_MODELS = '''
import torch

class AMIO(torch.nn.Module):
    def __init__(self, args):
        super().__init__()
        assert args.text_out == 12 and args.audio_out == 16 and args.feature_dims == [12, 5, 20], args
        assert args.seq_lens == (50, 375, 500) and args.batch_size == 3, args
        self.Model = torch.nn.Module()
        self.Model.project_t = torch.nn.Sequential()
        self.Model.project_t.add_module("project_t", torch.nn.Linear(768, args.hidden_size))
'''
MMSA_TRAINS = '''
import pathlib, time, torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

class ATIO:
    def getTrain(self, args):
        self.args = args
        return self

    def do_train(self, model, loaders):
        encoder = pathlib.Path(self.args.pretrained)
        assert (encoder / "config.json").is_file() and pathlib.Path("bert-base-uncased/config.json").is_file()
        assert (encoder / "pytorch_model.bin").exists() == (self.args.model_name == "cenet")
        width = model.Model.project_t.project_t.in_features
        assert width == (12 if self.args.model_name == "misa" else 768), width
        optimizer = torch.optim.Adam(model.parameters())
        ReduceLROnPlateau(optimizer, mode="min", patience=2, verbose=True)
        for epoch in range(3):
            assert epoch < 2
            for batch in loaders["train"]:
                assert batch["labels"]["M"].shape == (3, 1)
                print("a step")
                time.sleep(0.02)
            for batch in loaders["valid"]:
                assert batch["labels"]["M"].shape == (5, 1)
                time.sleep(0.001)
'''


def measure(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command without the caller's clones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
    command = [sys.executable, "-B", str(HERE), "measure", *words]
    return subprocess.run(command, env={**kept, **variables}, capture_output=True, text=True, check=False)


class Splits(unittest.TestCase):
    """What is timed."""

    def train(self, training: Training, passes: int, prepare: bool = False) -> Iterator[str]:
        """A trainer with so many passes an epoch; says what it does."""
        validation = Validation(lambda size: f"batch of {size}", training, 64, False)
        if prepare:
            yield from ("prepare" for _ in training)
        # More than are measured, but not for ever if nothing ends them.
        for _ in range(3):
            for pass_ in range(passes):
                for batch in training:
                    self.assertEqual(batch, "batch")
                    time.sleep(0.002)
                    yield f"step of pass {pass_}"
            yield from ("validate" for _ in validation)

    def run_trainer(self, training: Training, passes: int, prepare: bool = False) -> list[str]:
        done = []
        with self.assertRaises(Measured):
            for what in self.train(training, passes, prepare):
                done.append(what)
        return done

    def test_second_epoch_is_timed_but_its_first_round(self) -> None:
        training = Training("batch", 4, 3)
        self.assertEqual(len(training), 16)
        done = self.run_trainer(training, 1)
        first = ["step of pass 0"] * UNTIMED + ["validate"] * UNTIMED
        self.assertEqual(done, first + ["step of pass 0"] * 16)
        self.assertEqual(len(training.seconds), 3)
        self.assertGreaterEqual(min(training.seconds), 0.002)

    def test_every_pass_of_the_second_epoch_is_timed(self) -> None:
        training = Training("batch", 2, 2)
        done = self.run_trainer(training, 2)
        self.assertEqual(done[-12:], ["step of pass 0"] * 6 + ["step of pass 1"] * 6)
        self.assertEqual(len(training.seconds), 4)

    def test_passes_before_training_are_not_timed(self) -> None:
        training = Training("batch", 1, 1)
        done = self.run_trainer(training, 1, prepare=True)
        self.assertEqual(done[:UNTIMED], ["prepare"] * UNTIMED)
        self.assertEqual(len(training.seconds), 1)

    def test_validation_after_the_second_epoch_is_timed_but_its_first_batch(self) -> None:
        for size in (1, 24, 300):
            validation = Validation(lambda size: f"batch of {size}", Training("batch", 1, 1), 64, True)
            # As a trainer sets it.
            validation.size = size
            self.assertEqual(list(validation), [f"batch of {size}"] * UNTIMED)
            self.assertIsNone(validation.rate)
            done = []
            with self.assertRaises(Measured):
                for batch in validation:
                    done.append(batch)
                    time.sleep(0.001)
            timed = len(done) - 1
            self.assertGreaterEqual(timed * size, PREDICTIONS)
            self.assertLess((timed - 1) * size, PREDICTIONS)
            self.assertLess(validation.rate or 0, size / 0.001)
            self.assertGreater(validation.rate or 0, 0)


class Repositories(unittest.TestCase):
    """What a clone is."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def clone(self, option: str) -> repositories.Repository:
        """Makes the folder look like a clone."""
        repository = next(one for one in REPOSITORIES if one.option == option)
        file = self.folder / repository.file
        file.parent.mkdir(parents=True)
        file.touch()
        return repository

    def test_methods_are_those_of_this_project(self) -> None:
        for method in METHODS:
            self.assertTrue((ROOT / "shared/methods" / f"{method}.toml").is_file(), method)
        self.assertEqual([one.variable for one in REPOSITORIES], ["BENCH_MMSA", "BENCH_LNLN", "BENCH_EMT_DLFR"])

    def test_other_commit_is_a_warning(self) -> None:
        repository = self.clone("lnln")
        for commit, says in ((repository.commit, None), ("0" * 40, "0" * 40), (None, "unknown commit")):
            with mock.patch.object(repositories, "commit_of", return_value=commit):
                warning = repository.check(self.folder)
            self.assertEqual(warning is None, says is None)
            self.assertIn(says or "", warning or "")

    @unittest.skipUnless(shutil.which("git"), "git is missing")
    def test_commit_is_what_git_says(self) -> None:
        def git(*words: str) -> str:
            command = ["git", "-C", str(self.folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

        self.assertIsNone(repositories.commit_of(self.folder / "missing"))
        git("init", "--quiet")
        git("commit", "--quiet", "--allow-empty", "--message", "first")
        commit = repositories.commit_of(self.folder) or ""
        self.assertRegex(commit, "^[0-9a-f]{40}$")
        self.assertEqual(commit, git("log", "-1", "--format=%H"))

    def test_other_folder_is_an_error(self) -> None:
        self.clone("lnln")
        mmsa = METHODS["misa"]
        with self.assertRaisesRegex(Unusable, f"not a clone of thuiar/MMSA: .* lacks {mmsa.file}"):
            mmsa.check(self.folder)
        with self.assertRaisesRegex(Unusable, "missing clone of thuiar/MMSA") as error:
            mmsa.check(self.folder / "missing")
        self.assertIn("hint: `git clone https://github.com/thuiar/MMSA`", error.exception.report())

    def test_missing_package_is_named_as_pip_knows_it(self) -> None:
        with mock.patch("importlib.util.find_spec", return_value=None):
            for module, package in (
                ("sklearn.metrics", "scikit-learn"),
                ("einops", "einops"),
                ("pytorch_transformers", "pytorch-transformers"),
            ):
                said = missing_package(ModuleNotFoundError("", name=module))
                self.assertIn(package, str(said))
                self.assertIn(f"`pip install {package}`", said.hint)

    def test_module_that_a_package_lacks_is_no_missing_package(self) -> None:
        with self.assertRaises(ModuleNotFoundError):
            missing_package(ModuleNotFoundError("", name="json.nothing"))


class Commands(unittest.TestCase):
    """The command line."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clone, self.encoder = Path(folder.name) / "clone", Path(folder.name) / "encoder"
        self.encoder.mkdir()
        (self.encoder / "config.json").write_text(json.dumps(ENCODER), encoding="utf-8")
        files = {"": MMSA, "models": MMSA_MODELS, "trains": MMSA_TRAINS}
        for name, text in files.items():
            file = self.clone / "src/MMSA" / name / "__init__.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        (self.clone / METHODS["misa"].file).touch()
        self.words = ["--repository", str(self.clone), "--encoder", str(self.encoder)]
        self.words += ["--steps", "2", "--rounds", "1", "--batch", "3"]

    def fails(self, said: subprocess.CompletedProcess[str], *parts: str) -> None:
        self.assertEqual((said.returncode, said.stdout), (1, ""), said.stderr)
        self.assertNotIn("Traceback", said.stderr)
        for part in parts:
            self.assertIn(part, said.stderr)

    def test_help_says_where_clones_come_from(self) -> None:
        said = measure("--help")
        self.assertEqual(said.returncode, 0)
        for part in ("git clone https://github.com/thuiar/MMSA", "BENCH_EMT_DLFR", "requirements.txt"):
            self.assertIn(part, said.stdout)

    def test_missing_clone_is_said_with_a_hint(self) -> None:
        self.fails(measure("lnln"), "error: missing clone of Haoyu-ha/LNLN", "--repository or BENCH_LNLN")
        other = measure("lnln", BENCH_LNLN=str(self.clone))
        self.fails(other, "error: not a clone of Haoyu-ha/LNLN", "lacks models/lnln.py")

    def test_encoder_is_a_bert(self) -> None:
        missing = measure("misa", *self.words, "--encoder", "/nowhere")
        self.fails(missing, "error: missing encoder: /nowhere", "hint: `make setup`")
        (self.encoder / "config.json").write_text('{"model_type": "roberta"}', encoding="utf-8")
        self.fails(measure("misa", *self.words), "is a roberta")

    @needs_torch
    def test_reference_is_trained_and_measured(self) -> None:
        import torch
        from tensors import write_safetensors

        write_safetensors({"weight": torch.ones(2)}, self.encoder / "model.safetensors")
        for method in ("misa", "self-mm", "cenet"):
            evaluate = ["--evaluate"] if method == "misa" else []
            said = measure(method, *self.words, *evaluate)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertIn("warning: ", said.stderr)
            result = json.loads(said.stdout)
            self.assertEqual(list(result), ["method", "step", "evaluated", "evaluated_batch", "peak", "torch"])
            self.assertEqual((result["method"], result["evaluated_batch"]), (method, 5 if evaluate else None))
            self.assertEqual(result["evaluated"] is not None, bool(evaluate))
            self.assertLess(result["evaluated"] or 0, 5 / 0.001)
            self.assertGreaterEqual(result["step"], 0.02)
        files = [path.name for path in self.clone.rglob("*") if path.is_file()]
        self.assertEqual(sorted(files), ["AMIO.py", "__init__.py", "__init__.py", "__init__.py"])
        self.assertFalse((self.encoder / "pytorch_model.bin").exists())

    @needs_torch
    def test_trainer_that_ends_early_is_an_error(self) -> None:
        trains = self.clone / "src/MMSA/trains/__init__.py"
        trains.write_text(trains.read_text("utf-8").replace("range(3)", "range(1)"), encoding="utf-8")
        self.fails(measure("self-mm", *self.words), "ended before its second epoch", METHODS["self-mm"].commit)

    @needs_torch
    def test_missing_package_is_said(self) -> None:
        (self.clone / "src/MMSA/__init__.py").write_text("import package_of_nobody\n", encoding="utf-8")
        said = measure("misa", *self.words)
        self.fails(said, "error: missing Python package package-of-nobody", "hint: `pip install package-of-nobody`")

    @needs_torch
    def test_samples_have_the_shapes_of_mosi(self) -> None:
        from samples import averaged, samples

        batch = samples(6, 2000)
        shapes = {"text": (6, 3, 50), "audio": (6, 375, 5), "vision": (6, 500, 20)}
        for name, shape in shapes.items():
            self.assertEqual(batch[name].shape, shape)
            self.assertEqual(batch[f"{name}_m"].shape, shape)
            self.assertEqual(batch[f"{name}_missing_mask"].shape, (6, max(shape[1:]) if name != "text" else 50))
        # What is missing is there, and erased.
        erased = batch["audio_mask"] - batch["audio_missing_mask"]
        self.assertTrue((erased.sum(1) > 0).all())
        self.assertTrue((batch["audio"][erased == 1] != 0).any())
        self.assertTrue((batch["audio_m"][erased == 1] == 0).all())
        self.assertEqual({tuple(values.shape) for values in batch["labels"].values()}, {(6, 1)})
        features = averaged(batch, 12)
        self.assertEqual([features[name].shape for name in shapes], [(6, 50, 12), (6, 1, 5), (6, 1, 20)])


class Clones(unittest.TestCase):
    """The references' own code."""

    def test_every_method_of_a_clone_is_measured(self) -> None:
        clones = {one: os.environ[one.variable] for one in REPOSITORIES if os.environ.get(one.variable)}
        if not clones or not HAS_TORCH:
            self.skipTest("no variable names a clone (BENCH_MMSA, BENCH_LNLN, BENCH_EMT_DLFR), or PyTorch is missing")
        for repository, folder in clones.items():
            for method in repository.methods:
                with self.subTest(method):
                    few = ["--evaluate", "--steps", "1", "--rounds", "1", "--batch", "4", "--threads", "1"]
                    said = measure(method, "--repository", folder, *few)
                    if "missing encoder" in said.stderr or "missing Python package" in said.stderr:
                        self.skipTest(said.stderr)
                    self.assertEqual(said.returncode, 0, said.stderr)
                    result = json.loads(said.stdout)
                    self.assertGreater(min(result["step"], result["evaluated"], result["evaluated_batch"]), 0)


if __name__ == "__main__":
    unittest.main()
