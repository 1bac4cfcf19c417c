"""A model that needs nothing but Python: linear in the means of audio and vision, trained by gradient descent.

It sleeps in each epoch for as long as its hyper-parameters say, so that it can be interrupted.
"""

import array
import json
import os
import signal
import struct
import sys
import time

JOB = os.environ["HALFHEARD_JOB"]
FOLDER = os.path.dirname(JOB)
stopping = False


def say(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def stop(*_):
    global stopping
    stopping = True


def tensors(path):
    with open(os.path.join(FOLDER, path), "rb") as file:
        content = file.read()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    return {name: (about["shape"], content[8 + size + about["data_offsets"][0] : 8 + size + about["data_offsets"][1]])
            for name, about in header.items()}


def means(file, prefix=""):
    """The mean of each feature over all steps, of each sample."""
    rows = None
    for modality in ("audio", "vision"):
        (n, steps, dim), content = file[prefix + modality]
        values = array.array("f", content)
        each = [[sum(values[(i * steps + t) * dim + d] for t in range(steps)) / steps for d in range(dim)]
                for i in range(n)]
        rows = each if rows is None else [a + b for a, b in zip(rows, each)]
    return [row + [1.0] for row in rows]


def predict(weights, rows):
    return [sum(w * x for w, x in zip(weights, row)) for row in rows]


def main():
    signal.signal(signal.SIGTERM, stop)
    with open(JOB) as file:
        job = json.load(file)
    print("a", job["task"], "on", job["device"], file=sys.stderr)
    if job["task"] == "evaluate":
        for case in job["cases"]:
            rows = means(tensors(case["inputs"]))
            for checkpoint in case["checkpoints"]:
                with open(os.path.join(FOLDER, checkpoint)) as file:
                    weights = json.load(file)
                say(event="predictions", case=case["case"], checkpoint=checkpoint, predictions=predict(weights, rows))
        say(event="finished")
        return
    data = tensors(job["dataset"]["path"])
    rows = means(data, "train.")
    labels = array.array("f", data["train.labels"][1])
    splits = {split["split"]: means(tensors(split["inputs"])) for split in job["selection"]}
    if job["state"]:
        with open(os.path.join(FOLDER, job["state"], "weights.json")) as file:
            weights = json.load(file)
    else:
        weights = [job["seed"] * 1e-6] * len(rows[0])
    for epoch in range(job["after_epoch"] + 1, job["max_epochs"] + 1):
        time.sleep(job["hyper"]["sleep"])
        if stopping:
            sys.exit(1)
        errors = [p - y for p, y in zip(predict(weights, rows), labels)]
        for k in range(len(weights)):
            weights[k] -= job["hyper"]["rate"] * sum(e * row[k] for e, row in zip(errors, rows)) / len(rows)
        with open(os.path.join(FOLDER, f"checkpoint-{epoch}"), "w") as file:
            json.dump(weights, file)
        loss = sum(e * e for e in errors) / len(errors)
        predictions = {name: predict(weights, rows) for name, rows in splits.items()}
        if len(predictions) == 1:
            (predictions,) = predictions.values()
        say(event="epoch", epoch=epoch, losses={"loss": loss}, predictions=predictions,
            checkpoint=f"checkpoint-{epoch}")
        os.mkdir(os.path.join(FOLDER, f"saved-{epoch}"))
        with open(os.path.join(FOLDER, f"saved-{epoch}", "weights.json"), "w") as file:
            json.dump(weights, file)
        say(event="state", after_epoch=epoch, path=f"saved-{epoch}")
    say(event="finished")


main()
