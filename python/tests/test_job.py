"""Programs that are methods of their own, run as a worker runs them."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

import halfheard
import schema
from halfheard import Job, JobError, Stopped, erase_training, read_tensors
from halfheard import job as make_job
from halfheard.step_seed import step_seed
from halfheard.tensors import write_tensors
from stand_in import DATASET, ROOT, TESTS, Worker, tensors_of

GOLDEN = json.loads((TESTS / "data" / "golden.json").read_text())
EXAMPLES = ROOT / "python" / "examples"

#: A model whose state is all of its randomness: what is drawn depends on how often it was drawn before.
WALK = """
import time
import numpy as np
import halfheard

class Walk:
    def __init__(self, job):
        self.draws = np.random.default_rng(job.epoch_seed(0))
        self.weights = np.zeros(job.dataset.train.audio.shape[2], np.float32)
        self.best = float("inf")

    def fit_epoch(self, job, epoch):
        loss = 0.0
        for batch, labels in job.train_batches(epoch, 2):
            while epoch == job.hyper["wait_in"] and not job.stop_requested:
                time.sleep(0.01)
            self.weights += self.draws.normal(size=len(self.weights)).astype(np.float32)
            loss += float(np.abs(self.predict(batch) - labels).sum())
        return {"loss": loss / len(job.dataset.train), "size": float(np.abs(self.weights).sum())}

    def predict(self, batch):
        return batch.audio.sum(1) @ self.weights

    def is_done(self, job, epoch, predictions):
        self.best = min(self.best, float(np.abs(predictions).sum()))
        return epoch == job.hyper["last"]

    def checkpoint(self):
        return {"weights": self.weights}

    def state(self):
        return {"weights": self.weights, "draws": self.draws.bit_generator.state, "best": self.best}

    def load(self, state):
        self.weights = state["weights"]
        if "draws" in state:
            self.draws.bit_generator.state = state["draws"]
            self.best = state["best"]

halfheard.run(Walk, batch_size=2)
"""


def hyper(wait_in=0, last=0):
    return {"wait_in": wait_in, "last": last}


class Training(unittest.TestCase):
    def test_all_epochs_are_reported_and_saved(self):
        worker = Worker(self, WALK, hyper=hyper()).run()
        self.assertEqual(worker.code, 0, worker.output)
        self.assertEqual(worker.events[-1], {"event": "finished"})
        epochs = worker.of_kind("epoch")
        self.assertEqual([event["epoch"] for event in epochs], [1, 2, 3, 4])
        self.assertEqual(set(epochs[0]["losses"]), {"loss", "size"})
        for event in epochs:
            self.assertEqual(len(event["predictions"]), len(worker.data.valid))
            tensors, _ = read_tensors(worker.taken[event["checkpoint"]])
            self.assertEqual(list(tensors), ["weights"])
        # After the last there is nothing to resume.
        self.assertEqual([event["after_epoch"] for event in worker.of_kind("state")], [1, 2, 3])

    def test_predictions_are_those_of_the_selection_split(self):
        worker = Worker(self, WALK, hyper=hyper(), max_epochs=1).run()
        (event,) = worker.of_kind("epoch")
        tensors, _ = read_tensors(worker.taken[event["checkpoint"]])
        erased = halfheard.erase(worker.data.valid, "r=0.5")
        expected = (erased.audio.sum(1) @ tensors["weights"]).astype(np.float32)
        np.testing.assert_allclose(np.float32(event["predictions"]), expected, 1e-5)

    def test_both_splits_are_predicted_where_both_select(self):
        worker = Worker(self, WALK, hyper=hyper(), max_epochs=1).both().run()
        self.assertEqual(worker.code, 0, worker.output)
        (event,) = worker.of_kind("epoch")
        tensors, _ = read_tensors(worker.taken[event["checkpoint"]])
        self.assertEqual(list(event["predictions"]), ["valid", "test"])
        for name, predictions in event["predictions"].items():
            erased = halfheard.erase(getattr(worker.data, name), "r=0.5")
            expected = (erased.audio.sum(1) @ tensors["weights"]).astype(np.float32)
            np.testing.assert_allclose(np.float32(predictions), expected, 1e-5)

    def test_stopped_training_resumes_with_the_same_events(self):
        whole = Worker(self, WALK, hyper=hyper()).run()
        self.assertEqual(whole.code, 0, whole.output)
        # The third epoch waits for the signal.
        first = Worker(self, WALK, hyper=hyper(wait_in=3)).run(stop_after=2)
        self.assertEqual(first.code, 128 + signal.SIGTERM, first.output)
        self.assertEqual(first.output, "", "it ends without a trace")
        self.assertEqual(first.lines, whole.lines[: len(first.lines)])
        self.assertNotIn({"event": "finished"}, first.events)
        second = Worker(self, WALK, hyper=hyper())
        second.resume(first.taken[first.events[-1]["path"]], first.events[-1]["after_epoch"])
        second.run()
        self.assertEqual(second.code, 0, second.output)
        self.assertEqual(first.lines + second.lines, whole.lines)
        for path, taken in second.taken.items():
            if path.endswith(".checkpoint"):
                self.assertEqual(taken.read_bytes(), whole.taken[path].read_bytes(), path)

    def test_signal_between_epochs_ends_before_the_next(self):
        program = """
import os, signal, halfheard
job = halfheard.job()
for epoch in job.epochs():
    job.report(epoch, 0.0, [0.0] * len(job.selection), b"weights")
    job.save({"epoch": epoch})
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGTERM)
job.finish()
"""
        worker = Worker(self, program).run()
        self.assertEqual(worker.code, 128 + signal.SIGTERM, worker.output)
        self.assertEqual(worker.events[-1]["after_epoch"], 2)

    def test_model_that_is_done_stops_before_max_epochs(self):
        worker = Worker(self, WALK, hyper=hyper(last=2)).run()
        self.assertEqual([event["epoch"] for event in worker.of_kind("epoch")], [1, 2])
        self.assertEqual((worker.code, worker.events[-1]), (0, {"event": "finished"}))

    def test_progress_is_rare(self):
        with mock.patch.object(Job, "_say") as said:
            job = Job(Worker(self).path, -1)
            for _ in job.train_batches(1, 1):
                pass
            job.progress(1, 1, 2, loss=float("nan"))
        self.assertEqual(said.call_count, 1)


class Evaluation(unittest.TestCase):
    def test_each_case_is_predicted_with_each_checkpoint(self):
        trained = Worker(self, WALK, hyper=hyper()).run()
        epochs = trained.of_kind("epoch")[:2]
        paths = [trained.taken[event["checkpoint"]] for event in epochs]
        worker = Worker(self, WALK, hyper=hyper())
        worker.evaluate([path.read_bytes() for path in paths])
        worker.run()
        self.assertEqual(worker.code, 0, worker.output)
        self.assertEqual(len(worker.of_kind("predictions")), 6)
        self.assertEqual(worker.events[-1], {"event": "finished"})
        for event in worker.of_kind("predictions"):
            weights = read_tensors(paths[int(event["checkpoint"][-1])])[0]["weights"]
            erased = halfheard.erase(worker.data.test, event["case"])
            np.testing.assert_allclose(np.float32(event["predictions"]), erased.audio.sum(1) @ weights, 1e-4, 1e-5)

    def test_incomplete_evaluation_cannot_finish(self):
        worker = Worker(self)
        worker.evaluate([b"weights"])
        with open(worker.folder / "events", "wb") as events:
            job = Job(worker.path, events.fileno())
            case = next(job.cases())
            self.assertEqual(job.load(case.checkpoints[0]), b"weights")
            job.predict(case, case.checkpoints[0], np.zeros(case.samples))
            with self.assertRaisesRegex(ValueError, "case r=0.7 was not predicted"):
                job.finish()
            with self.assertRaisesRegex(ValueError, "does not ask for case r=0.9"):
                job.predict("r=0.9", case.checkpoints[0], np.zeros(case.samples))
            with self.assertRaisesRegex(ValueError, "case r=0 has"):
                job.predict(case, case.checkpoints[0], np.zeros(case.samples + 1))
            with self.assertRaisesRegex(JobError, "the task of this job is `evaluate`"):
                job.selection
            with self.assertRaisesRegex(JobError, "no epoch can be reported"):
                job.report(1, 0.0, [], b"")


class Stream(unittest.TestCase):
    def test_prints_do_not_disturb_events(self):
        program = """
import os, subprocess, sys, halfheard
job = halfheard.job()
print("printed")
sys.stdout.write("written")
os.write(1, b"raw ")
subprocess.run(["echo", "of a child"], check=True)
assert halfheard.job() is job
for epoch in job.epochs():
    print("epoch", epoch)
    job.report(epoch, 0.5, [0.0] * len(job.selection), b"weights")
job.finish()
print("after")
"""
        worker = Worker(self, program).run()
        self.assertEqual(worker.code, 0, worker.output)
        self.assertEqual(len(worker.events), 5)
        for text in ("printed", "written", "raw ", "of a child", "epoch 3", "after"):
            self.assertIn(text, worker.output)

    def test_what_is_buffered_before_the_job_goes_to_standard_error(self):
        worker = Worker(self)
        code = "print('early'); import halfheard; job = halfheard.job(); job._say('finished')"
        environment = {**worker.environment(), "PYTHONUNBUFFERED": ""}
        ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        self.assertEqual((ended.stdout, ended.stderr), ('{"event":"finished"}\n', "early\n"))

    def test_forked_processes_end_when_they_are_told_to(self):
        program = """
import os, signal, time, halfheard
job = halfheard.job()
ready, is_ready = os.pipe()
child = os.fork()
if child == 0:
    os.write(is_ready, b"!")
    time.sleep(60)
    os._exit(0)
# Python drops signals that arrive while it forks.
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
print("child", os.WTERMSIG(status), job.stop_requested)
"""
        self.assertIn("child 15 False", Worker(self, program).run().output)

    def test_without_a_worker_it_says_what_to_do(self):
        with mock.patch.dict(os.environ):
            os.environ.pop("HALFHEARD_JOB", None)
            with self.assertRaisesRegex(JobError, "halfheard.evaluate"):
                make_job()

    def test_other_versions_and_damaged_job_files_are_refused(self):
        worker = Worker(self, version=1)
        with self.assertRaisesRegex(JobError, "has version 1, and this package knows 2"):
            Job(worker.path, -1)
        for content in ("", "[]", "{}", '{"version": 2}'):
            worker.path.write_text(content)
            with self.subTest(content), self.assertRaises(JobError):
                Job(worker.path, -1)
        with self.assertRaisesRegex(JobError, "cannot read"):
            Job(worker.folder / "none", -1)


class Reports(unittest.TestCase):
    def setUp(self):
        self.worker = Worker(self)
        events = open(self.worker.folder / "events", "wb")
        self.addCleanup(events.close)
        self.job = Job(self.worker.path, events.fileno())
        self.zeros = np.zeros(len(self.worker.data.valid))

    def said(self):
        return [json.loads(line) for line in (self.worker.folder / "events").read_bytes().splitlines()]

    def test_what_a_worker_would_refuse_is_refused_here(self):
        samples = len(self.zeros)
        for losses, predictions, message in (
            (0.0, np.zeros(samples - 1), rf"has {samples} samples, .* the shape \[{samples - 1}\]"),
            (0.0, np.zeros((samples, 2)), rf"the shape \[{samples}, 2\]"),
            (0.0, 1.0, r"the shape \[\]"),
            (0.0, np.full(samples, np.inf), "the prediction of sample 0 of the selection split after epoch 1 is inf"),
            (float("nan"), self.zeros, "`loss` of epoch 1 is nan"),
            ({"loss": 0, "extra": float("inf")}, self.zeros, "`extra` of epoch 1 is inf"),
        ):
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                self.job.report(1, losses, predictions, b"")
        with self.assertRaisesRegex(ValueError, "epoch 1 is next"):
            self.job.report(2, 0.0, self.zeros, b"")
        with self.assertRaisesRegex(ValueError, "no epoch was reported yet"):
            self.job.save({})
        with self.assertRaisesRegex(ValueError, "no epoch was reported"):
            self.job.finish()
        with self.assertRaisesRegex(ValueError, "is a folder"):
            self.job.report(1, 0.0, self.zeros, self.worker.folder / "inputs")
        self.assertEqual(self.said(), [])

    def test_where_both_splits_select_both_are_reported(self):
        worker = Worker(self).both()
        valid, test = (np.zeros(len(getattr(worker.data, name))) for name in ("valid", "test"))
        with open(worker.folder / "events", "wb") as events:
            job = Job(worker.path, events.fileno())
            self.assertEqual(job.selection.ids, job.dataset.valid.ids)
            self.assertEqual(job.selections["test"].ids, job.dataset.test.ids)
            for predictions, message in (
                (valid, "predictions of valid were reported for epoch 1, and valid and test are expected"),
                ({"valid": valid, "test": test, "train": test}, "predictions of valid and test and train were"),
                ({"valid": valid, "test": test[1:]}, "the test split after epoch 1 has"),
            ):
                with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                    job.report(1, 0.0, predictions, b"")
            job.report(1, 0.0, {"test": test, "valid": valid}, b"")
        (event,) = map(json.loads, (worker.folder / "events").read_bytes().splitlines())
        self.assertEqual([len(values) for values in event["predictions"].values()], [len(valid), len(test)])

    def test_epochs_end_at_the_maximum(self):
        for epoch in self.job.epochs():
            self.job.report(epoch, 0.0, self.zeros[:, None], b"weights")
        self.assertEqual(epoch, 4)
        with self.assertRaisesRegex(ValueError, "at most 4"):
            self.job.report(5, 0.0, self.zeros, b"")

    def test_many_predictions_go_into_a_file(self):
        predictions = np.linspace(-1, 1, len(self.zeros))
        # The module's name is also that of its function.
        with mock.patch.object(sys.modules["halfheard.job"], "_MAX_INLINE", 1):
            self.job.report(1, 0.0, predictions, b"")
        tensors, _ = read_tensors(self.worker.folder / self.said()[0]["predictions"])
        np.testing.assert_array_equal(tensors["predictions"], predictions.astype(np.float32))

    def test_numbers_are_read_back_as_they_were(self):
        predictions = np.random.RandomState(1).normal(size=len(self.zeros)).astype(np.float32)
        self.job.report(1, 0.0, predictions, b"")
        np.testing.assert_array_equal(np.float32(self.said()[0]["predictions"]), predictions)

    def test_dicts_come_back_as_they_were(self):
        values = {
            "weights": np.arange(6, dtype=np.float64).reshape(2, 3),
            "half": np.float16([0.5]),
            "flags": np.array([True, False]),
            "empty": np.zeros((0, 3), np.int64),
            "scalar": np.float32(1.5),
            "turned": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
            "big": np.array([1, 2], ">i4"),
            "epoch": 3,
            "best": float("inf"),
            "names": ["ä", None, {"deep": True}],
        }
        self.job.report(1, 0.0, self.zeros, values)
        loaded = self.job.load(self.said()[0]["checkpoint"])
        self.assertEqual(loaded.keys(), values.keys())
        for name, value in values.items():
            if isinstance(value, (np.ndarray, np.generic)):
                np.testing.assert_array_equal(loaded[name], value)
                self.assertEqual((loaded[name].shape, loaded[name].dtype), (value.shape, value.dtype.newbyteorder("<")))
            else:
                self.assertEqual(loaded[name], value)
        loaded["weights"][0] = 7
        with self.assertRaisesRegex(TypeError, "`optimizer` is a dict, neither an array nor a value that JSON"):
            self.job.save({"optimizer": {"moments": np.zeros(2)}})
        with self.assertRaisesRegex(ValueError, "complex"):
            self.job.save({"phase": np.zeros(2, complex)})

    def test_states_come_back_as_they_were(self):
        own = self.worker.folder / "tmp" / "mine.pt"
        tree = self.worker.folder / "tmp" / "tree" / "deep"
        elsewhere = tempfile.TemporaryDirectory()
        self.addCleanup(elsewhere.cleanup)
        outside = Path(elsewhere.name) / "outside.pt"
        outside.write_bytes(b"outside")
        for epoch, state in enumerate([{"a": np.ones(2), "b": [1]}, b"bytes", own, tree.parent], 1):
            own.write_bytes(b"file")
            tree.mkdir(parents=True, exist_ok=True)
            (tree / "leaf").write_bytes(b"leaf")
            self.job.report(epoch, 0.0, self.zeros, b"")
            self.job.save(state)
        self.job.save(outside)
        self.assertTrue(outside.exists(), "what is not in the job's folder is copied")
        self.assertFalse((self.worker.folder / "tmp" / "tree").exists(), "what is in it is moved")
        restored = []
        for event in self.said():
            if event["event"] == "state":
                worker = Worker(self)
                worker.resume(self.worker.folder / event["path"], event["after_epoch"])
                job = Job(worker.path, -1)
                self.assertEqual(next(job.epochs(), 5), event["after_epoch"] + 1)
                restored.append(job.restore())
        np.testing.assert_array_equal(restored[0]["a"], [1, 1])
        self.assertEqual((restored[0]["b"], restored[1]), ([1], b"bytes"))
        self.assertEqual((restored[2].name, restored[2].read_bytes()), ("mine.pt", b"file"))
        self.assertEqual((restored[3] / "deep" / "leaf").read_bytes(), b"leaf")
        self.assertEqual((restored[4].name, restored[4].read_bytes()), ("outside.pt", b"outside"))
        self.assertIsNone(Job(Worker(self).path, -1).restore())

    def test_file_of_a_checkpoint_is_moved_and_its_name_can_be_used_again(self):
        path = self.worker.folder / "tmp" / "weights.pt"
        for epoch in (1, 2):
            path.write_text(f"epoch {epoch}")
            self.job.report(epoch, 0.0, self.zeros, path)
        self.assertFalse(path.exists())
        first, second = (event["checkpoint"] for event in self.said())
        self.assertEqual((self.job.load(first), self.job.load(second)), (b"epoch 1", b"epoch 2"))


class Erasure(unittest.TestCase):
    def job(self, **regime):
        worker = Worker(self, seed=GOLDEN["training"][0]["seed"])
        worker.job["regime"].update(regime)
        worker.write()
        return Job(worker.path, -1)

    def test_training_split_is_erased_as_workers_erase_it(self):
        job, golden = self.job(), GOLDEN["training"][0]
        split = job.dataset.train
        batch = job.train_split(golden["epoch"])
        self.assertEqual(len(split), golden["samples"])
        for modality in ("text", "audio", "vision"):
            self.assertEqual(getattr(batch.rates, modality).tolist(), golden[modality])
        erased = erase_training(split, golden["seed"], golden["epoch"])
        self.assertEqual(batch.masks_sha256(), erased.masks_sha256())
        np.testing.assert_array_equal(batch.audio, erased.audio)
        self.assertEqual(batch.ids, split.ids)

    def test_tokens_are_those_of_the_encoder(self):
        worker = Worker(self)
        worker.job["encoder"]["tokens"].update(unknown=3, padding=1)
        worker.write()
        batch = Job(worker.path, -1).train_split(2)
        present = batch.text[:, 1] == 1
        self.assertTrue((batch.text[:, 0][present & (batch.text_kept == 0)] == 3).all())
        self.assertTrue((batch.text[:, 0][~present] == 1).all())
        self.assertGreater((batch.text_kept[present] == 0).sum(), 0)

    def test_complete_training_loses_nothing(self):
        job = self.job(train_missing="complete")
        batch, split = job.train_split(1), job.dataset.train
        np.testing.assert_array_equal(batch.text, split.text)
        np.testing.assert_array_equal(batch.text_kept, split.text[:, 1])
        np.testing.assert_array_equal(batch.audio_kept.sum(1), split.audio_lengths)

    def test_corrected_training_draws_new_numbers_from_the_seed_of_the_worker(self):
        # Those of the worker's own test.
        self.assertEqual(step_seed(1111, 1, 0, 0), -4_010_826_707_315_943_644 & 0xFFFFFFFF)
        self.assertEqual(step_seed(1113, 200, 1, 640), -4_059_174_140_920_185_452 & 0xFFFFFFFF)
        job = self.job(repeated_numbers=False)
        seed = step_seed(1111, 3, 2**64 - 1, 0)
        expected = erase_training(job.dataset.train, 1111, 3, seed)
        self.assertEqual(job.train_split(3).masks_sha256(), expected.masks_sha256())
        self.assertNotEqual(job.train_split(3).masks_sha256(), self.job().train_split(3).masks_sha256())

    def test_each_regime_erases_what_it_says(self):
        def rates(epoch, **regime):
            batch = self.job(**regime).train_split(epoch, batch_size=2)
            return np.stack([batch.rates.text, batch.rates.audio, batch.rates.vision])

        np.testing.assert_array_equal(rates(1, train_missing="fixed:0.2"), 0.2)
        once = rates(1, train_missing="drawn-once")
        np.testing.assert_array_equal(rates(2, train_missing="drawn-once"), once)
        self.assertFalse((rates(1, train_missing="redrawn") == rates(2, train_missing="redrawn")).all())
        for epoch in (1, 2):
            loaded = rates(epoch, train_missing="lnln-loader")
            order = list(self.job()._order(epoch))
            first = order.index(0)
            # Fewer than eight batches: each process has one.
            redrawn = order[first : first // 2 * 2 + 2]
            others = np.setdiff1d(np.arange(len(order)), redrawn)
            np.testing.assert_array_equal(loaded[:, others], once[:, others])
        with self.assertRaisesRegex(ValueError, "`sometimes` is not a training regime"):
            rates(1, train_missing="sometimes")

    def test_batches_are_those_that_the_loader_erases(self):
        with mock.patch.object(Job, "_say"):
            job = self.job(train_missing="lnln-loader")
            whole = job.train_split(2, batch_size=3)
            place = {sample: at for at, sample in enumerate(job.dataset.train.ids)}
            for batch, _ in job.train_batches(2, 3):
                rows = [place[sample] for sample in batch.ids]
                np.testing.assert_array_equal(batch.audio_kept, whole.audio_kept[rows])
                np.testing.assert_array_equal(batch.rates.vision, whole.rates.vision[rows])

    def test_batches_are_the_split_in_an_order_of_seed_and_epoch(self):
        with mock.patch.object(Job, "_say"):
            job = self.job()
            split, whole = job.dataset.train, job.train_split(2)
            place = {sample: at for at, sample in enumerate(split.ids)}
            order = []
            for batch, labels in job.train_batches(2, 3):
                self.assertLessEqual(len(batch), 3)
                rows = [place[sample] for sample in batch.ids]
                for name in ("text", "audio", "vision", "text_kept", "audio_kept", "vision_lengths"):
                    np.testing.assert_array_equal(getattr(batch, name), getattr(whole, name)[rows])
                np.testing.assert_array_equal(batch.rates.audio, whole.rates.audio[rows])
                np.testing.assert_array_equal(labels, split.labels[rows])
                order += rows
            self.assertEqual(sorted(order), list(range(len(split))))
            again = [sample for batch, _ in self.job().train_batches(2, 3) for sample in batch.ids]
            self.assertEqual([place[sample] for sample in again], order)
            other = [place[sample] for batch, _ in job.train_batches(3, 3) for sample in batch.ids]
            self.assertNotEqual(other, order)
        self.assertNotEqual(job.epoch_seed(1), job.epoch_seed(2))
        self.assertEqual(job.epoch_seed(1), self.job().epoch_seed(1))

    def test_stop_ends_an_epoch_within(self):
        with mock.patch.object(Job, "_say"):
            job = self.job()
            batches = job.train_batches(1, 1)
            next(batches)
            job._stop.set()
            with self.assertRaises(Stopped):
                next(batches)

    def test_inputs_are_read_as_they_were_erased(self):
        job = self.job()
        erased = halfheard.erase(job.dataset.valid, "r=0.5")
        self.assertEqual(job.selection.masks_sha256(), erased.masks_sha256())
        np.testing.assert_array_equal(job.selection.text, erased.text)
        np.testing.assert_array_equal(job.selection.rates.text, erased.rates.text)
        self.assertEqual(job.selection.ids, job.dataset.valid.ids)
        with self.assertRaisesRegex(ValueError, "is not an erased split"):
            halfheard.read_inputs(DATASET, "r=0.5")

    def test_rates_follow_the_seed_that_the_file_names(self):
        split = self.job().dataset.valid
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "inputs.safetensors"
        for seed in (1111, 1112):
            erased = halfheard.erase(split, "mr=0.3", seed=seed)
            about = {"ids": json.dumps(split.ids), "erasure_seed": str(seed)}
            write_tensors(path, tensors_of(erased), about)
            np.testing.assert_array_equal(halfheard.read_inputs(path, "mr=0.3").rates.text, erased.rates.text)


class Schemas(unittest.TestCase):
    """What is written and read here fits the schemas that the Rust programs write."""

    def load(self, name):
        path = ROOT / "schemas" / name
        if not path.exists():
            self.skipTest(f"{path} is missing")
        return json.loads(path.read_text())

    def test_events_fit(self):
        events = self.load("event.schema.json")
        trained = Worker(self, WALK, hyper=hyper(), max_epochs=2).run()
        evaluated = Worker(self, WALK, hyper=hyper())
        evaluated.evaluate([trained.taken[trained.of_kind("epoch")[0]["checkpoint"]].read_bytes()])
        evaluated.run()
        kinds = set()
        for event in trained.events + evaluated.events:
            schema.check(event, events)
            kinds.add(event["event"])
        self.assertEqual(kinds, {"epoch", "state", "predictions", "finished"})
        schema.check({"event": "progress", "epoch": 1, "step": 0, "steps": 2, "loss": None}, events)
        for wrong in ({"event": "finished", "mae": 0}, {"event": "metrics"}, {"event": "state", "after_epoch": 1}):
            with self.assertRaises(schema.Misfit):
                schema.check(wrong, events)

    def test_job_files_of_these_tests_fit(self):
        jobs = self.load("job.schema.json")
        worker = Worker(self)
        schema.check(worker.job, jobs)
        worker.evaluate([b""])
        schema.check(worker.job, jobs)
        with self.assertRaises(schema.Misfit):
            schema.check({**worker.job, "task": "rest"}, jobs)


class Examples(unittest.TestCase):
    def trained_and_evaluated(self, program, **job):
        """Trains, stopped and resumed on the way, and evaluates; returns both."""
        whole = Worker(self, program, **job).run()
        self.assertEqual(whole.code, 0, whole.output)
        part = Worker(self, program, **job).run(stop_after=1)
        states = part.of_kind("state")
        resumed = Worker(self, program, **job)
        resumed.resume(part.taken[states[-1]["path"]], states[-1]["after_epoch"])
        resumed.run()
        self.assertEqual(resumed.code, 0, resumed.output)
        # The predictions and losses: what a state holds beside arrays may be written in another order.
        self.assertEqual(resumed.of_kind("epoch"), whole.of_kind("epoch")[states[-1]["after_epoch"] :])
        evaluated = Worker(self, program, **job)
        evaluated.evaluate([whole.taken[event["checkpoint"]].read_bytes() for event in whole.of_kind("epoch")])
        evaluated.run()
        self.assertEqual(evaluated.code, 0, evaluated.output)
        self.assertEqual(len(evaluated.of_kind("predictions")), 3 * len(whole.of_kind("epoch")))
        return whole, evaluated

    def test_ridge_learns(self):
        whole, _ = self.trained_and_evaluated(EXAMPLES / "ridge", hyper={"penalty": 1.0, "buckets": 8})
        labels = whole.data.train.labels
        for event in whole.of_kind("epoch"):
            self.assertLess(event["losses"]["loss"], np.square(labels - labels.mean()).mean())

    def test_example_of_the_manual_is_ridge(self):
        manual = (ROOT / "docs" / "guide" / "own-program.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
        self.assertIn((EXAMPLES / "ridge" / "train.py").read_text(), blocks)

    def test_late_fusion_trains_as_the_built_in_method(self):
        try:
            import torch  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            self.skipTest(f"the example needs PyTorch and transformers: {error}")
        encoder = Path(os.environ.get("HALFHEARD_DEPS", ROOT / ".deps")) / "encoder"
        if not (encoder / "config.json").exists():
            self.skipTest(f"there is no encoder in {encoder}: run `make setup`")
        sizes = {"text_hidden": 8, "text_out": 8, "audio_hidden": 4, "vision_hidden": 4, "post_fusion_dim": 8}
        dropouts = dict.fromkeys(("text_dropout", "audio_dropout", "vision_dropout", "post_fusion_dropout"), 0.1)
        settings = {"batch_size": 3, "early_stop": 8, "learning_rate": 0.01, "weight_decay": 0.0}
        tokens = {"unknown": 100, "mask": 103, "start": 101, "end": 102, "padding": 0}
        for fidelity in ("reference", "corrected"):
            with self.subTest(fidelity):
                regime = {**Worker(self).job["regime"], "fidelity": fidelity}
                self.trained_and_evaluated(
                    EXAMPLES / "late_fusion",
                    max_epochs=3,
                    hyper={**sizes, **dropouts, **settings},
                    encoder={"path": str(encoder), "tokens": tokens},
                    regime=regime,
                )


if __name__ == "__main__":
    unittest.main()
