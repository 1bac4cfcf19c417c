"""A program that does what its hyper-parameter `deed` says."""

import json
import os
import subprocess
import sys
import time

JOB = os.environ["HALFHEARD_JOB"]
FOLDER = os.path.dirname(JOB)
with open(JOB) as file:
    job = json.load(file)
samples = job["selection"][0]["samples"]
deed = job["hyper"]["deed"]


def say(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def epoch(predictions, checkpoint="c", **more):
    with open(os.path.join(FOLDER, "c"), "w") as file:
        file.write("weights")
    say(event="epoch", epoch=1, losses={"loss": 1.0}, predictions=predictions, checkpoint=checkpoint, **more)


if deed == "dies":
    print("no module named torch", file=sys.stderr)
    sys.exit(3)
elif deed == "exits":
    sys.exit(0)
elif deed == "is silent":
    time.sleep(600)
elif deed == "chats":
    print("hello, this is the training")
elif deed == "writes without end":
    while True:
        sys.stdout.write("x" * 65536)
elif deed == "logs without end":
    while True:
        sys.stderr.write("y" * 1023 + "\n")
elif deed == "predicts too few":
    epoch([0.5] * (samples - 1))
elif deed == "predicts nan":
    epoch([float("nan")] * samples)
elif deed == "reports a metric":
    epoch([0.5] * samples, mae=0.0)
elif deed == "skips an epoch":
    say(event="progress", epoch=7)
elif deed == "links":
    os.symlink("/etc/passwd", os.path.join(FOLDER, "link"))
    epoch([0.5] * samples, checkpoint="link")
elif deed == "saves too much":
    epoch([0.5] * samples)
    os.mkdir(os.path.join(FOLDER, "state-1"))
    for part in ("one", "two"):
        # With holes: it takes no room on the disk.
        with open(os.path.join(FOLDER, "state-1", part), "wb") as file:
            file.truncate(90_000_000)
    say(event="state", after_epoch=1, path="state-1")
elif deed == "writes a huge state":
    epoch([0.5] * samples)
    with open(os.path.join(FOLDER, "state-1"), "wb") as file:
        file.truncate(10 << 30)
    say(event="state", after_epoch=1, path="state-1")
elif deed == "multiplies":
    while True:
        subprocess.Popen(["sleep", "600.125"], start_new_session=True)
elif deed == "takes memory":
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20)) * 64)
elif deed == "fills the disk":
    for number in range(1000):
        with open(os.path.join(FOLDER, "tmp", str(number)), "wb") as file:
            file.write(b"z" * (1 << 20))
        time.sleep(0.01)
elif deed == "leaves a child":
    subprocess.Popen(["sleep", "600.125"], start_new_session=True)
    sys.exit(4)
time.sleep(600)
