"""Writes the small feature pickles in this folder, which tests read.

They are kept as files because the project's tests run without NumPy. Made with Python 3.11 and
NumPy 1.26.4 and 2.2.6, once for each:

    python make_goldens.py .

All of them hold the same content, written by protocols 0 to 5 and in other types and layouts
(Fortran order, big-endian, half precision, object arrays, NumPy scalars in lists). The expected
content stands in ../pickles.rs.
"""

import collections
import os
import pickle
import sys

import numpy as np

out = sys.argv[1]
tag = "numpy" + np.__version__.split(".")[0]


def split(n, start):
    length, audio_steps, audio_dim, vision_steps, vision_dim = 6, 4, 3, 3, 2
    ids = np.zeros((n, 3, length), dtype=np.int64)
    for i in range(n):
        k = 3 + i % 3
        ids[i, 0, :k] = [101] + [1000 + start + i] * (k - 2) + [102]
        ids[i, 1, :k] = 1
    audio = np.arange(n * audio_steps * audio_dim).reshape(n, audio_steps, audio_dim)
    audio = (audio / 8.0 - start).astype(np.float32)
    vision = np.arange(n * vision_steps * vision_dim).reshape(n, vision_steps, vision_dim)
    vision = (vision / 4.0 + start).astype(np.float32)
    audio[0, 1, 2] = -np.inf
    labels = np.array([((i * 7) % 13 - 6) / 2.0 for i in range(n)], dtype=np.float32)
    return dict(
        raw_text=np.array([f"GÜT {start + i}" for i in range(n)]),
        audio=audio,
        vision=vision,
        id=[f"v{start}$_${i}" for i in range(n)],
        text=np.zeros((n, length, 2), dtype=np.float32),
        text_bert=ids,
        audio_lengths=[1 + i % 4 for i in range(n)],
        vision_lengths=[1 + i % 3 for i in range(n)],
        annotations=np.array(["Positive"] * n, dtype=object),
        classification_labels=labels.copy(),
        regression_labels=labels,
    )


def layouts(s):
    s = dict(s)
    s["text_bert"] = s["text_bert"].astype(np.float64)
    s["audio"] = np.asfortranarray(s["audio"])
    s["vision"] = s["vision"].astype(">f8")
    s["regression_labels"] = s["regression_labels"].astype(np.float64).reshape(-1, 1)
    s["audio_lengths"] = np.array(s["audio_lengths"], dtype=np.int16)
    s["vision_lengths"] = [np.int64(x) for x in s["vision_lengths"]]
    s["id"] = np.array(s["id"], dtype=object)
    s["raw_text"] = list(s["raw_text"])
    return collections.OrderedDict(s)


def narrow(s):
    s = dict(s)
    s["text_bert"] = s["text_bert"].astype(">i4")
    s["audio"] = s["audio"].astype(np.float16)
    s["vision"] = np.asfortranarray(s["vision"].astype(np.float16))
    s["raw_text"] = np.array([text.encode() for text in s["raw_text"]])
    s["regression_labels"] = list(s["regression_labels"])
    s["audio_lengths"] = np.array(s["audio_lengths"], dtype=np.uint8).reshape(-1, 1)
    return s


def dump(name, content, protocol):
    with open(os.path.join(out, f"{tag}-{name}.pkl"), "wb") as file:
        pickle.dump(content, file, protocol=protocol)


data = {"train": split(5, 0), "valid": split(2, 10), "test": split(3, 20)}
for protocol in range(6):
    dump(f"protocol{protocol}", data, protocol)
for protocol in (2, 4, 5):
    dump(f"layouts-protocol{protocol}", {k: layouts(v) for k, v in data.items()}, protocol)
dump("narrow-protocol5", {k: narrow(v) for k, v in data.items()}, 5)
