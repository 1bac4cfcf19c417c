"""The peers compute what the references of their methods compute, and measure what they say.

`python -m unittest discover --start-directory bench/eager`; tests that need PyTorch or the recordings
are skipped where those are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

if importlib.util.find_spec("torch") is None:
    raise unittest.SkipTest("PyTorch is missing: `pip install torch`")

import torch
from torch import Tensor, nn

import check
import measure
from common import (
    METHODS,
    MOSI,
    Accumulation,
    Batch,
    Encoder,
    EncoderConfig,
    Method,
    PerModality,
    Position,
    Shape,
    build,
    hyper,
    random_batch,
    read_safetensors,
    warmup_cosine,
    write_safetensors,
)
from recorded import CASES

# Enough samples that labels of both signs remain in every task of Self-MM and TETFN.
COUNT = 32
SMALL = Shape(15, 20, 5, 25, 7, COUNT)
# Hyper-parameters that fit these sizes: heads divide the lengths.
FITTING: dict[str, dict[str, object]] = {"tfr-net": {"num_temporal_head": 5}}
ENCODER = EncoderConfig(
    vocab_size=160,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
)
HAS_TOML = any(importlib.util.find_spec(name) for name in ("tomllib", "tomli"))


def setUpModule() -> None:
    torch.set_num_threads(1)


def write_encoder(folder: Path, encoder: Encoder) -> None:
    """Writes an encoder's folder."""
    config = {name: value for name, value in vars(encoder.config).items() if name != "roberta"}
    config["model_type"] = "roberta" if encoder.config.roberta else "bert"
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_safetensors(encoder.state_dict(), folder / "model.safetensors")


def small(seed: int = 1) -> Batch:
    return random_batch(COUNT, SMALL, seed, ENCODER.vocab_size)


def rows(batch: Batch, count: int) -> Batch:
    """The first samples of a batch."""

    def cut(value: object) -> object:
        if isinstance(value, Tensor):
            return value[:count]
        if value is None:
            return None
        return type(value)(**{name: cut(part) for name, part in vars(value).items()})

    first = cut(batch)
    assert isinstance(first, Batch)
    return first


class Recordings(unittest.TestCase):
    """A test for each recorded method is added below."""

    def compared(self, method: str) -> None:
        try:
            result = check.check(method)
        except check.NoRecording as missing:
            self.skipTest(str(missing))
        self.assertGreater(result.calls, 10)
        self.assertLessEqual(result.largest, result.allowed)

    def test_changed_weight_is_found(self) -> None:
        def change(recording: check.Recording) -> None:
            recording.weights["Model.post_fusion_layer_3.bias"] += 1e-3

        self.refused(change, check.Difference, "call 0 ")

    def test_changed_order_of_calls_is_found(self) -> None:
        def change(recording: check.Recording) -> None:
            recording.meta["calls"][1] = "eval"

        self.refused(change, check.Difference, "call 1 is of kind train, recorded eval")

    def test_prediction_that_is_not_a_number_is_found(self) -> None:
        def change(recording: check.Recording) -> None:
            recording.tensors["call.003"] = torch.full((6,), math.nan)

        self.refused(change, check.Difference, "call 3 ")

    def test_missing_weight_is_named(self) -> None:
        def change(recording: check.Recording) -> None:
            del recording.weights["Model.audio_model.linear_1.bias"]

        self.refused(change, ValueError, "lacks .*Model.audio_model.linear_1.bias")

    def refused(self, change: object, error: type[Exception], text: str) -> None:
        assert callable(change)
        try:
            with self.assertRaisesRegex(error, text):
                check.check("self-mm", changed=change)
        except check.NoRecording as missing:
            self.skipTest(str(missing))

    def test_folder_without_recordings_fails_the_check(self) -> None:
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out):
            self.assertEqual(check.run(["misa"], Path(folder)), 1)
        self.assertIn("misa: missing recording: ", out.getvalue())


def _test_of(method: str) -> object:
    return lambda self: self.compared(method)


for _method in CASES:
    setattr(Recordings, f"test_{_method.replace('-', '_')}_equals_its_reference", _test_of(_method))


class Methods(unittest.TestCase):
    """Methods on small random data, with an encoder that has dropout."""

    def setUp(self) -> None:
        if not HAS_TOML:
            self.skipTest("reading TOML needs Python 3.11 or newer, or the package tomli")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.encoder = Path(folder.name)
        torch.manual_seed(1)
        write_encoder(self.encoder, Encoder(ENCODER))

    def built(self, name: str, **overrides: object) -> Method:
        torch.manual_seed(2)
        values = hyper(name, "mosi", batch_size=COUNT, max_epochs=20, **overrides)
        return build(name, values, SMALL, self.encoder)

    def train(self, method: Method, batch: Batch, steps: int) -> list[float]:
        method.prepare(batch)
        method.begin_pass(Position(1, 0, 0, steps))
        return [method.train_step(Position(1, 0, i, steps), batch) for i in range(steps)]

    def test_every_method_trains_and_predicts(self) -> None:
        batch = small()
        for name in METHODS:
            with self.subTest(name):
                method = self.built(name, **FITTING.get(name, {}))
                method.prepare(batch)
                for epoch in (1, 2):
                    for pass_ in range(method.passes):
                        method.begin_pass(Position(epoch, pass_, 0, 4))
                        for step in range(method.steps_of_pass(pass_, 4)):
                            loss = method.train_step(Position(epoch, pass_, step, 4), batch)
                            self.assertTrue(math.isfinite(loss), loss)
                            self.assertEqual(method.prediction.shape, (COUNT,))
                            self.assertFalse(method.prediction.requires_grad)
                        method.end_pass(Position(epoch, pass_, 4, 4))
                    method.end_epoch(epoch, 1.0)
                prediction = method.predict(batch)
                self.assertEqual(prediction.shape, (COUNT,))
                self.assertFalse(prediction.requires_grad)
                self.assertTrue(torch.equal(prediction, method.predict(batch)), "no dropout")
                # Predictions follow the inputs.
                self.assertGreater(prediction.std().item(), 0.0)

    def test_steps_lower_the_loss(self) -> None:
        # The reference's weight decay keeps LF-DNN from fitting so few samples, its encoder's rates
        # the others from doing so in a few steps.
        for name, overrides in (
            ("lf-dnn", {"weight_decay": 0.0}),
            ("text-only", {"learning_rate_other": 0.01}),
            ("self-mm", {"learning_rate_other": 0.01}),
        ):
            with self.subTest(name):
                losses = self.train(self.built(name, **overrides), small(), 120)
                self.assertLess(sum(losses[-5:]), 0.7 * sum(losses[:5]))

    def test_encoder_of_lf_dnn_is_fixed(self) -> None:
        method = self.built("lf-dnn")
        before = {name: tensor.clone() for name, tensor in method.modules.state_dict().items()}
        self.train(method, small(), 3)
        for name, tensor in method.modules.state_dict().items():
            fixed = name.startswith("bertmodel.")
            self.assertEqual(torch.equal(before[name], tensor), fixed, name)

    def test_lf_dnn_trains_on_a_single_sample(self) -> None:
        method = self.built("lf-dnn")
        one = rows(small(), 1)
        self.assertTrue(all(map(math.isfinite, self.train(method, one, 2))))
        self.assertTrue(method.predict(small()).isfinite().all())

    def test_lf_dnn_averages_over_padding(self) -> None:
        method = self.built("lf-dnn")
        batch = small()
        inputs = batch.input
        longer = replace(inputs, audio=torch.cat([inputs.audio, torch.zeros(COUNT, 20, 5)], 1))
        means = replace(inputs, audio=inputs.audio / 2)
        both = [method.predict(replace(batch, input=part)) for part in (longer, means)]
        torch.testing.assert_close(*both)
        self.assertFalse(torch.allclose(both[0], method.predict(batch)))

    def test_text_only_reads_no_audio_or_vision(self) -> None:
        method = self.built("text-only")
        batch, other = small(1), small(2)
        mixed = replace(batch, input=replace(other.input, text=batch.input.text))
        self.assertTrue(torch.equal(method.predict(batch), method.predict(mixed)))
        mixed = replace(batch, input=replace(batch.input, text=other.input.text))
        self.assertFalse(torch.equal(method.predict(batch), method.predict(mixed)))

    def test_text_only_has_the_rates_of_its_groups(self) -> None:
        method = self.built("text-only", learning_rate_bert=0.0, weight_decay_bert=1.0)
        before = {name: tensor.clone() for name, tensor in method.modules.state_dict().items()}
        self.train(method, small(), 1)
        changed = {
            name
            for name, tensor in method.modules.state_dict().items()
            if not torch.equal(before[name], tensor)
        }
        self.assertEqual(changed, {"Model.head.weight", "Model.head.bias"})

    def test_measured_steps_are_counted(self) -> None:
        class Counting(Method):
            passes = 2

            def __init__(self) -> None:
                self.modules = nn.Identity()
                self.steps: list[Position] = []
                self.texts: list[Tensor] = []

            def train_step(self, position: Position, batch: Batch) -> float:
                self.steps.append(position)
                return 0.0

            def predict(self, batch: Batch) -> Tensor:
                self.texts.append(batch.input.text)
                return torch.zeros(len(batch))

        method, batch = Counting(), small()
        self.assertGreater(measure.seconds_per_step(method, batch, steps=4, rounds=3), 0.0)
        passes = [(position.pass_, position.step) for position in method.steps]
        self.assertEqual(passes, [(pass_, step) for pass_ in (0, 1) for step in range(16)])
        self.assertGreater(measure.predictions_per_second(method, batch), 0.0)
        texts = method.texts[1:]
        self.assertEqual(len(texts), 16)
        self.assertEqual(len({tuple(text.flatten().tolist()) for text in texts}), 11)
        for text in texts:
            self.assertTrue(torch.equal(text[:, 1:], batch.input.text[:, 1:]), "equal lengths")
            self.assertTrue(((text[:, 0] > 0) == (text[:, 1] > 0)).all(), "padding stays 0")

    def test_measurement_is_a_line_of_json(self) -> None:
        arguments = argparse.Namespace(
            method="text-only",
            steps=1,
            rounds=1,
            batch=2,
            threads=1,
            device="cpu",
            evaluate=True,
            encoder=self.encoder,
        )
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(measure.run(arguments), 0)
        result = json.loads(out.getvalue())
        self.assertEqual(list(result), ["method", "step", "evaluated", "peak", "torch"])
        self.assertGreater(result["step"], 0.0)
        self.assertGreater(result["evaluated"], 0.0)
        self.assertGreater(result["peak"] or 1e9, 1e7)


class EncoderTests(unittest.TestCase):
    def test_written_encoder_is_loaded_and_a_wrong_one_refused(self) -> None:
        torch.manual_seed(3)
        encoder = Encoder(ENCODER).eval()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_encoder(folder, encoder)
            text = small().input.text
            loaded = Encoder.load(folder).eval()
            self.assertTrue(torch.equal(encoder(text), loaded(text)))
            state = encoder.state_dict()
            prefixed = {f"bert.{key}": value for key, value in state.items()}
            write_safetensors(prefixed, folder / "model.safetensors")
            self.assertTrue(torch.equal(encoder(text), Encoder.load(folder).eval()(text)))
            del state["encoder.layer.1.output.dense.bias"]
            write_safetensors(state, folder / "model.safetensors")
            with self.assertRaisesRegex(ValueError, "encoder.layer.1.output.dense.bias"):
                Encoder.load(folder)
            (folder / "config.json").write_text('{"model_type": "t5"}', "utf-8")
            with self.assertRaisesRegex(ValueError, "`t5`"):
                Encoder.load(folder)

    def test_padding_changes_no_token(self) -> None:
        torch.manual_seed(4)
        for config in (ENCODER, replace(ENCODER, roberta=True, pad_token_id=1)):
            encoder = Encoder(config).eval()
            text = small().input.text[:1]
            present = int(text[0, 1].sum())
            self.assertLess(present, text.shape[2])
            alone = encoder(text[:, :, :present])
            torch.testing.assert_close(encoder(text)[:, :present], alone)

    def test_roberta_counts_positions_after_that_of_padding(self) -> None:
        torch.manual_seed(5)
        config = replace(ENCODER, roberta=True, pad_token_id=1)
        roberta, bert = Encoder(config).eval(), Encoder(replace(ENCODER, pad_token_id=None)).eval()
        state = roberta.state_dict()
        positions = "embeddings.position_embeddings.weight"
        # Positions of BERT start at 0, those of RoBERTa at 2.
        state[positions] = state[positions].roll(-2, 0)
        bert.load_state_dict(state)
        text = small().input.text
        mask = text[:, 1, :, None]
        torch.testing.assert_close(roberta(text) * mask, bert(text) * mask)


class Parts(unittest.TestCase):
    def test_random_batch_has_the_lengths_of_mosi(self) -> None:
        batch = random_batch(200, MOSI, 7)
        text = batch.input.text
        self.assertEqual(text.shape, (200, 3, 50))
        self.assertEqual(batch.input.audio.shape, (200, 375, 5))
        self.assertEqual(batch.input.vision.shape, (200, 500, 20))
        tokens = text[:, 1].sum(1)
        for lengths, low, high in (
            (tokens, 6, 40),
            (batch.input.audio_lengths, 40, 375),
            (batch.input.vision_lengths, 40, 500),
        ):
            self.assertGreaterEqual(int(lengths.min()), low)
            self.assertLess(int(lengths.min()), low + 0.1 * high)
            self.assertLessEqual(int(lengths.max()), high)
            self.assertGreater(int(lengths.max()), 0.9 * high)
        self.assertTrue(((text[:, 0] >= 1000) == (text[:, 1] == 1)).all())
        assert batch.complete is not None
        for name in ("text", "audio", "vision"):
            kept, present = getattr(batch.kept, name), getattr(batch.present, name)
            self.assertTrue((kept <= present).all())
            self.assertAlmostEqual((kept.sum() / present.sum()).item(), 0.7, delta=0.02)
            if name != "text":
                complete, erased = getattr(batch.complete, name), getattr(batch.input, name)
                self.assertTrue(torch.equal(complete * kept[:, :, None], erased))
                self.assertTrue(((complete.sum(2) != 0) == (present != 0)).all())
        again = random_batch(200, MOSI, 7)
        self.assertTrue(torch.equal(batch.input.vision, again.input.vision))
        self.assertIsNone(batch.unimodal_labels)
        own = random_batch(3, replace(SMALL, unimodal_labels=True)).unimodal_labels
        self.assertIsInstance(own, PerModality)

    @unittest.skipUnless(HAS_TOML, "reading TOML needs Python 3.11 or newer, or the package tomli")
    def test_hyper_parameters_are_those_of_the_dataset(self) -> None:
        self.assertEqual(hyper("lf-dnn", "mosi")["batch_size"], 128)
        self.assertEqual(hyper("lf-dnn", "mosei")["batch_size"], 64)
        self.assertEqual(hyper("lf-dnn", "mosei", batch_size=3)["batch_size"], 3)

    def test_warm_up_starts_at_zero_and_anneals_after_one(self) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = warmup_cosine(optimizer, 20)
        rates = []
        for _ in range(5):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        cosine = 0.5 * (1 + math.cos(math.pi / 18))
        for rate, expected in zip(rates, (0.0, 0.5, 1.0, 1.0, cosine), strict=True):
            self.assertAlmostEqual(rate, 2.0 * expected)

    def test_groups_are_complete_after_their_batches(self) -> None:
        groups = Accumulation(2)
        self.assertEqual(
            [(groups.begin(), groups.end()) for _ in range(3)],
            [(True, False), (False, True), (True, False)],
        )
        groups.reset()
        self.assertTrue(groups.begin())

    def test_safetensors_are_read_as_written(self) -> None:
        tensors = {
            "odd": torch.tensor([True, False, True]),
            "matrix": torch.arange(6.0).reshape(2, 3).T,
            "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
            "number": torch.tensor(7),
            "empty": torch.zeros(0, 4),
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "file.safetensors"
            write_safetensors(tensors, file)
            read = read_safetensors(file)
            self.assertEqual(read.keys(), tensors.keys())
            for name, tensor in tensors.items():
                self.assertEqual((read[name].dtype, read[name].shape), (tensor.dtype, tensor.shape))
                self.assertTrue(torch.equal(read[name], tensor), name)
            whole = file.read_bytes()
            for end in (0, 5, 40, len(whole) - 1):
                file.write_bytes(whole[:end])
                with self.assertRaisesRegex(ValueError, "safetensors file"):
                    read_safetensors(file)
            for header in (
                b"[]",
                b"{",
                b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}',
                b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
                b'{"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
            ):
                file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
                with self.assertRaisesRegex(ValueError, "safetensors file"):
                    read_safetensors(file)


if __name__ == "__main__":
    unittest.main()
