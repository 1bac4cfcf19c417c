"""The package computes what the Rust programs compute: the golden files are written by a test of theirs."""

import csv
import doctest
import hashlib
import json
import os
import tempfile
import unittest
from pathlib import Path

import numpy as np

import halfheard
from halfheard import (
    BUILT_IN_PROTOCOLS,
    LNLN_CASES,
    MOSI,
    SIMS,
    Case,
    Dataset,
    Rates,
    Visits,
    erase,
    erase_training,
    measure,
    training_rates,
)
from halfheard import cases as cases_module
from halfheard import metrics as metrics_module
from halfheard.erasure import block, bursts, random_modality
from halfheard.tensors import read_tensors

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "golden.json").read_text())
SHARED = Path(os.environ.get("HALFHEARD_SHARED", Path(__file__).parents[2] / ".." / "shared"))


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Erasure(unittest.TestCase):
    def setUp(self):
        self.data = Dataset(DATA / "aligned.safetensors")

    def test_erased_splits_equal_those_of_workers(self):
        for case, expected in GOLDEN["cases"].items():
            with self.subTest(case):
                erased = erase(self.data.test, case)
                self.assertEqual(erased.masks_sha256(), expected["masks"])
                for what in ("text", "audio", "vision"):
                    self.assertEqual(sha256(getattr(erased, what)), expected[what], what)

    def test_training_rates_equal_those_of_workers(self):
        for golden in GOLDEN["training"]:
            rates = Rates.of_training(golden["samples"], golden["seed"], golden["epoch"])
            for modality in ("text", "audio", "vision"):
                self.assertEqual(getattr(rates, modality).tolist(), golden[modality])

    def test_rates_of_each_regime_equal_those_of_workers(self):
        for golden in GOLDEN["regimes"]:
            with self.subTest(golden["regime"], epoch=golden["epoch"], number=golden["pass"]):
                visits = Visits(golden["order"], golden["batch_size"], golden["pass"])
                samples = len(golden["order"])
                rates = training_rates(golden["regime"], samples, golden["seed"], golden["epoch"], visits)
                for modality in ("text", "audio", "vision"):
                    self.assertEqual(getattr(rates, modality).tolist(), golden[modality])
        with self.assertRaisesRegex(ValueError, "give `visits`"):
            training_rates("lnln-loader", 7, 1, 1)

    def test_training_erasure_changes_with_epochs_and_keeps_the_ends_of_texts(self):
        split = self.data.train
        first, second = erase_training(split, 1, 1), erase_training(split, 1, 2)
        self.assertNotEqual(first.masks_sha256(), second.masks_sha256())
        self.assertEqual(first.masks_sha256(), erase_training(split, 1, 1).masks_sha256())
        present = split.text[:, 1].sum(1)
        rows = np.flatnonzero(present > 0)
        self.assertTrue((first.text_kept[rows, 0] == 1).all())

    def test_masks_of_the_real_dataset_equal_the_recorded_ones(self):
        masks = SHARED / "parity" / "masks.json"
        if not masks.exists():
            self.skipTest(f"{masks} is missing")
        recorded = json.loads(masks.read_text())
        draws = np.random.RandomState(1111).uniform(size=len(recorded["first_uniforms_seed_1111"]))
        self.assertEqual(draws.tolist(), recorded["first_uniforms_seed_1111"])

    def test_blocks_bursts_and_random_modalities_equal_those_of_workers(self):
        golden = json.loads((DATA / "protocols.json").read_text())
        present = (np.arange(golden["steps"]) < np.array(golden["lengths"])[:, None]).astype(np.uint8)

        def rows(mask):
            return ["".join(map(str, row)) for row in mask.tolist()]

        for run in golden["runs"]:
            with self.subTest(run["kind"], rate=run["rate"]):
                kept = {"block": block, "bursts": bursts}[run["kind"]](present, run["rate"], run["seed"])
                self.assertEqual(rows(kept), run["kept"])
        for one in golden["random_modality"]:
            with self.subTest("mr", rate=one["rate"], samples=one["samples"]):
                self.assertEqual(rows(random_modality(one["samples"], one["rate"], one["seed"])), one["kept"])

    def test_random_modalities_are_those_of_gcnet(self):
        recorded = SHARED / "parity" / "random_modality.json"
        if not recorded.exists():
            self.skipTest(f"{recorded} is missing")
        cases = json.loads(recorded.read_text())["cases"]
        self.assertEqual(len(cases), 32)
        for case in cases:
            mask = random_modality(case["samples"], case["rate"], case["seed"])
            self.assertEqual(sha256(mask), case["sha256"], case["rate"])

    def test_other_protocols_erase_their_share(self):
        split = self.data.test
        for name, share in (("block=0.5", 0.5), ("bursts=0.5@7", 0.5)):
            batch = erase(split, name)
            present = np.arange(split.audio.shape[1]) < split.audio_lengths[:, None]
            self.assertTrue((batch.audio_kept <= present).all())
            self.assertTrue((batch.rates.text == share).all())
            self.assertNotEqual(batch.masks_sha256(), erase(split, "r=0").masks_sha256())
        random = erase(split, "mr=0.5")
        rates = np.stack([random.rates.text, random.rates.audio, random.rates.vision])
        self.assertTrue((rates.min(0) == 0).all())
        self.assertTrue((random.audio_kept[random.rates.audio == 1] == 0).all())
        self.assertEqual(erase(split, "r=0.5").masks_sha256(), erase(split, "l=0.5,a=0.5,v=0.5").masks_sha256())
        self.assertEqual(erase(split, "r=0.5@1112").masks_sha256(), erase(split, "r=0.5", 1112).masks_sha256())
        for name in ("asr=0.3", "noise=0.5", "permuted=a", "averaged=a"):
            with self.assertRaisesRegex(ValueError, "coord cases export"):
                erase(split, name)
            self.assertEqual(Rates.of_case(Case.parse(name), 2).text.tolist(), [0, 0])

    def test_ids_and_texts_are_read(self):
        self.assertEqual(self.data.test.ids, GOLDEN["ids"])
        self.assertEqual(len(self.data.test.raw_text), len(self.data.test))

    def test_parts_of_a_batch_are_rows_of_the_whole(self):
        whole = erase(self.data.test, "r=0.5")
        part = whole[slice(1, 3)]
        self.assertEqual(len(part), 2)
        np.testing.assert_array_equal(part.audio, whole.audio[1:3])
        np.testing.assert_array_equal(part.rates.text, whole.rates.text[1:3])


class Metrics(unittest.TestCase):
    def test_metrics_equal_those_of_workers_to_the_bit(self):
        for golden in GOLDEN["metrics"]:
            protocol = BUILT_IN_PROTOCOLS[golden["protocol"]]
            measured = measure(golden["predictions"], golden["labels"], protocol)
            self.assertEqual(measured, golden["metrics"], golden["protocol"])

    def test_metrics_equal_the_reference_code(self):
        recorded = SHARED / "parity" / "metrics.json"
        if not recorded.exists():
            self.skipTest(f"{recorded} is missing")
        names = {
            "Has0_acc_2": "acc2_nonneg",
            "Has0_F1_score": "f1_nonneg",
            "Non0_acc_2": "acc2_nonzero",
            "Non0_F1_score": "f1_nonzero",
            "Mult_acc_2": "acc2",
            "F1_score": "f1",
            "Mult_acc_3": "acc3",
            "Mult_acc_5": "acc5",
            "Mult_acc_7": "acc7",
            "MAE": "mae",
            "Corr": "corr",
        }
        # The reference calls F1 with truth and prediction swapped.
        swapped = {"Has0_F1_score", "Non0_F1_score", "F1_score"}
        compared = 0
        for case in json.loads(recorded.read_text()):
            measured = measure(case["pred"], case["truth"], BUILT_IN_PROTOCOLS[case["dataset"]])
            for theirs, expected in case["expected"].items():
                if theirs not in names or expected is None or not np.isfinite(expected):
                    continue
                ours = measured[names[theirs]]
                either = [ours]
                if theirs in swapped:
                    either.append(measured[names[theirs] + "_swapped"])
                close = any(value is not None and abs(value - expected) <= 1.01e-4 for value in either)
                self.assertTrue(close, f"{case['note']}: {theirs} is {expected}, ours {either}")
                compared += 1
        self.assertGreater(compared, 20)

    def test_undefined_metrics_are_none(self):
        measured = measure([0.5, 0.1], [0.0, 0.0], MOSI)
        self.assertIsNone(measured["acc2_nonzero"])
        self.assertIsNone(measured["corr"])
        self.assertEqual(measured["acc2_nonneg"], 1.0)

    def test_what_cannot_be_measured_is_refused(self):
        for predictions, labels, message in (
            ([1.0], [1.0, 2.0], "1 predictions for 2 labels"),
            ([], [], "no predictions"),
            ([1.0, float("nan")], [0.0, 0.0], "prediction of sample 1"),
            ([1.0], [float("inf")], "label of sample 0"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                measure(predictions, labels, SIMS)


class Cases(unittest.TestCase):
    def test_the_sixteen_cases_of_the_paper(self):
        names = [case.name for case in LNLN_CASES]
        self.assertEqual(len(set(names)), 16)
        self.assertEqual(names[:2] + names[-1:], ["r=0", "r=0.1", "missing=av"])

    def test_other_notations_and_other_texts(self):
        self.assertEqual(Case.parse("r=0.50").name, "r=0.5")
        self.assertEqual(Case.parse("missing=al").name, "missing=la")
        for text, name in (
            ("r=0.30+missing=al", "r=0.3+missing=la"),
            ("r=0+missing=v", "missing=v"),
            ("r=1+missing=v", "r=1"),
            ("l=0.7,a=0.10,v=0.3", "l=0.7,a=0.1,v=0.3"),
            ("l=1,a=0,v=0", "missing=l"),
            ("l=1,a=0.5,v=1", "r=0.5+missing=lv"),
            ("l=1,a=1,v=1", "r=1"),
            ("block=0", "r=0"),
            ("block=0.50@7", "block=0.5@7"),
            ("missing=v@7", "missing=v"),
            ("r=0@7", "r=0"),
            ("noise=10", "noise=10"),
            ("permuted=va", "permuted=av"),
        ):
            self.assertEqual(Case.parse(text).name, name)
            self.assertEqual(Case.parse(name).name, name)
        joint = Case.parse("r=0.3+missing=la")
        self.assertEqual([joint.rate_of(m) for m in ("text", "audio", "vision")], [1.0, 1.0, 0.3])
        self.assertEqual(joint.kind, "r+missing")
        each = Case.parse("l=0.7,a=0.1,v=0.3")
        self.assertEqual([each.rate_of(m) for m in ("text", "audio", "vision")], [0.7, 0.1, 0.3])
        self.assertEqual((each.kind, each.is_rate, Case.parse("r=0.3@7").is_rate), ("l,a,v", False, True))
        refused = ["", "r=", "r=1.1", "r=0.0005", "r=nan", "missing=", "missing=lav", "missing=x", "missing=ll", "x=1"]
        refused += ["r=0.3+missing=", "r=0.3+block=1", "l=0.7,a=0.1", "l=0.7,v=0.1,a=0.3", "l=0.7,a=0.1,v=0.3,v=0.3"]
        refused += ["averaged=l", "noise=10.1", "block=0.3@", "block=0.3@-1", "block=0.3@4294967296", "mr=x"]
        for text in refused:
            with self.assertRaisesRegex(ValueError, "is not a case", msg=text):
                Case.parse(text)

    def test_examples_in_the_documentation(self):
        for module in (cases_module, metrics_module):
            self.assertEqual(doctest.testmod(module).failed, 0, module.__name__)


class Evaluation(unittest.TestCase):
    def setUp(self):
        self.data = Dataset(DATA / "aligned.safetensors")

    def test_all_cases_are_predicted_in_batches_and_measured(self):
        sizes = []

        def model(batch):
            sizes.append(len(batch))
            return batch.audio.mean((1, 2)) + batch.vision.mean((1, 2))

        results = halfheard.evaluate(model, self.data, method="means", seed=7, batch_size=2)
        self.assertEqual([row["case"] for row in results.rows()], [case.name for case in LNLN_CASES])
        self.assertLessEqual(max(sizes), 2)
        self.assertEqual(sum(sizes), 16 * len(self.data.test))
        again = measure(results.predictions["r=0.5"], self.data.test.labels, MOSI)
        self.assertEqual(results.metrics["r=0.5"], again)
        mean = sum(results.metrics[f"r={tenth / 10:g}"]["mae"] for tenth in range(10)) / 10
        self.assertAlmostEqual(results.mean("mae"), mean, 12)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mine.csv"
            results.write_predictions(path)
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), 16 * len(self.data.test))
        first = rows[0]
        self.assertEqual((first["sample"], first["case"]), ("0", "r=0"))
        self.assertEqual(np.float32(first["prediction"]), results.predictions["r=0"][0])

    def test_models_that_return_something_else_are_refused(self):
        with self.assertRaisesRegex(ValueError, "values for"):
            halfheard.evaluate(lambda batch: np.zeros(len(batch) + 1), self.data)
        with self.assertRaisesRegex(ValueError, "not finite"):
            halfheard.evaluate(lambda batch: np.full(len(batch), np.nan), self.data)
        with self.assertRaisesRegex(ValueError, "unknown protocol"):
            halfheard.evaluate(lambda batch: np.zeros(len(batch)), self.data, "gcnet")


class Files(unittest.TestCase):
    def test_damaged_files_are_refused(self):
        whole = (DATA / "aligned.safetensors").read_bytes()
        size = int.from_bytes(whole[:8], "little")
        damaged = [b"", b"x" * 7, b"\xff" * 40, whole[:100], (5).to_bytes(8, "little") + b"[1,2]" + b"0" * 9]
        damaged.append(whole[: 8 + size + 10])
        damaged.append(whole[:8] + whole[8 : 8 + size].replace(b'"I32"', b'"XYZ"') + whole[8 + size :])
        with tempfile.TemporaryDirectory() as folder:
            for number, content in enumerate(damaged):
                path = Path(folder) / f"{number}.safetensors"
                path.write_bytes(content)
                with self.subTest(number), self.assertRaises(ValueError):
                    Dataset(path)

    def test_tensors_are_views_that_cannot_be_written(self):
        tensors, metadata = read_tensors(DATA / "aligned.safetensors")
        self.assertEqual(metadata["kind"], "mosi")
        with self.assertRaises(ValueError):
            tensors["test.labels"][0] = 1


class Database(unittest.TestCase):
    def test_unknown_views_are_refused(self):
        sweep = halfheard.Sweep("id", "name", None)
        with self.assertRaisesRegex(ValueError, "unknown view"):
            sweep.rows("job; DROP TABLE job")


if __name__ == "__main__":
    unittest.main()
