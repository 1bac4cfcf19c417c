"""Writes the feature pickles in this folder, which tests read: as Python itself writes them, with
objects of other classes than NumPy's arrays.

They are kept as files because the project's tests run without NumPy and pandas. Made with Python
3.11, NumPy 2 and pandas:

    python make_forms.py .

`aligned-masks.json` holds what is erased of the aligned file, computed here by the rule that
MMSA's loader (`generate_m`) follows: lengths of aligned audio and vision are the sum of the text's
mask; a step stays where a uniform number of NumPy's legacy generator, seeded anew for each modality,
exceeds the rate and the step is no padding; the first and the last token always stay.
"""

import argparse
import collections
import datetime
import decimal
import json
import os
import pathlib
import pickle
import sys
import uuid

import numpy as np
import pandas as pd

out = sys.argv[1]
SAMPLES = {"train": 7, "valid": 4, "test": 5}
LENGTH = 9


def split(n, start, steps=(LENGTH, LENGTH)):
    rng = np.random.RandomState(start)
    lengths = rng.randint(3, LENGTH + 1, n)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    ids = rng.randint(1000, 2000, (n, LENGTH))
    ids[:, 0] = 101
    ids[np.arange(n), lengths - 1] = 102
    text = np.stack([ids * mask, mask, 0 * mask], 1)
    audio = rng.randn(n, steps[0], 4).astype(np.float32)
    vision = rng.randn(n, steps[1], 3).astype(np.float32)
    return dict(
        raw_text=np.array([f"text {start + i}" for i in range(n)]),
        audio=audio,
        vision=vision,
        id=[f"v{start}$_${i}" for i in range(n)],
        text_bert=text,
        annotations=np.array(["Positive"] * n, dtype=object),
        regression_labels=rng.uniform(-3, 3, n).astype(np.float32),
    )


def splits(steps=(LENGTH, LENGTH)):
    return {s: split(n, i * 10, steps) for i, (s, n) in enumerate(SAMPLES.items())}


def dump(name, content, protocol=4):
    with open(os.path.join(out, name + ".pkl"), "wb") as file:
        pickle.dump(content, file, protocol=protocol)


aligned = splits()
dump("aligned", aligned)


def kept(present, rate, seed):
    drawn = np.random.RandomState(seed).uniform(size=present.shape)
    return ((drawn > rate) & (present == 1)).astype(int)


masks = {}
for s, fields in aligned.items():
    text = fields["text_bert"][:, 1, :]
    lengths = text.sum(axis=1)
    steps = (np.arange(LENGTH) < lengths[:, None]).astype(int)
    for rate in (0.3, 0.7):
        features = kept(steps, rate, 1111)
        words = kept(text, rate, 1111)
        for row, n in zip(words, lengths):
            row[0] = row[n - 1] = 1
        rows = lambda mask: ["".join(map(str, row)) for row in mask]
        masks[f"{s} {rate}"] = {"lengths": lengths.tolist(), "features": rows(features), "text": rows(words)}
with open(os.path.join(out, "aligned-masks.json"), "w") as file:
    json.dump(masks, file, indent=1)
    file.write("\n")

# Everything that people keep beside the data, in a dict of another class.
foreign = collections.defaultdict(dict, aligned)
foreign["config"] = {
    "path": pathlib.Path("/data/mosi"),
    "args": argparse.Namespace(padding="end", when=datetime.datetime(2024, 1, 2)),
    "table": pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "t": pd.to_datetime(["2024-01-01", "2024-01-02"])}),
    "series": pd.Series([1, 2, 3]),
    "id": uuid.UUID(int=2**127 + 5),
    "names": {"a", "b"},
    "frozen": frozenset([1]),
    "complex": 1 + 2j,
    "decimal": decimal.Decimal("0.1"),
    "range": range(3),
    "type": np.float32,
    "counter": collections.Counter("abca"),
    "deque": collections.deque([1, 2]),
    "random": np.random.RandomState(3),
    "generator": np.random.default_rng(3),
    "records": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
    "times": np.array(["2024-01-01"], dtype="M8[ns]"),
    "complexes": np.zeros(2, dtype=complex),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "scalar": np.complex64(1j),
    "error": ValueError("no face"),
    "big": 10**40,
}
foreign["train"]["annotations"] = pd.Series(["Positive"] * SAMPLES["train"])
for protocol in (0, 2, 4, 5):
    dump(f"foreign-protocol{protocol}", foreign, protocol)

# Needed fields of other classes.
labels = splits()
for fields in labels.values():
    fields["regression_labels"] = pd.Series(fields["regression_labels"])
dump("series", labels)
table = splits()
for fields in table.values():
    # As somebody does who keeps everything in one table.
    fields["audio"] = np.ma.masked_invalid(fields["audio"])
dump("masked", table)
mapped = splits()
memory = np.memmap("/tmp/halfheard-memmap.bin", dtype=np.float32, mode="w+", shape=(SAMPLES["train"], LENGTH, 3))
memory[:] = mapped["train"]["vision"]
mapped["train"]["vision"] = memory
dump("memmap", mapped)
os.remove("/tmp/halfheard-memmap.bin")
frames = splits()
frames["valid"] = pd.DataFrame({k: list(v) for k, v in frames["valid"].items()})
dump("frame", frames)

# As MMSA-FET writes it with padding_location=start: floats throughout, everything padded in front,
# lengths as an array, its configuration beside the splits.
fet = splits(steps=(12, 6))
for fields in fet.values():
    n = len(fields["id"])
    for name in ("audio", "vision"):
        steps = fields[name].shape[1]
        lengths = np.random.RandomState(n).randint(1, steps + 1, n)
        padded = np.zeros(fields[name].shape)
        for i, length in enumerate(lengths):
            padded[i, steps - length :] = fields[name][i, :length]
        fields[name], fields[name + "_lengths"] = padded, lengths
    text = np.zeros(fields["text_bert"].shape)
    for i, row in enumerate(fields["text_bert"]):
        length = int(row[1].sum())
        text[i, :, LENGTH - length :] = row[:, :length]
    fields["text_bert"] = text
    fields["id"] = np.array(fields["id"])
    fields["regression_labels"] = fields["regression_labels"].astype(float)
fet["config"] = {"path": pathlib.Path("/data"), "audio": {"tool": "librosa"}}
dump("fet-start", fet, 5)
