"""A worker's part for tests: makes job folders, runs programs, reads their events, takes their files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import halfheard
from halfheard.tensors import write_tensors

TESTS = Path(__file__).parent
ROOT = TESTS.parents[1]
DATASET = TESTS / "data" / "aligned.safetensors"
#: What each event must have besides its name, and of which type; ``progress`` may leave all but the epoch out.
EVENTS = {
    "progress": {"epoch": int, "step": int, "steps": int, "loss": (float, int, type(None))},
    "epoch": {"epoch": int, "losses": dict, "predictions": (list, str, dict), "checkpoint": str},
    "state": {"after_epoch": int, "path": str},
    "predictions": {"case": str, "checkpoint": str, "predictions": (list, str)},
    "finished": {},
}


def tensors_of(batch):
    names = "text audio vision audio_lengths vision_lengths text_kept audio_kept vision_kept".split()
    return {name: getattr(batch, name) for name in names}


class Worker:
    """One job folder.

    Attributes:
        folder: The folder.
        job: What ``job.json`` says.
    """

    def __init__(self, test, program=None, dataset=DATASET, **changes):
        """``program`` is the folder of a program, or its text; ``changes`` replace parts of the job file."""
        around = tempfile.mkdtemp()
        test.addCleanup(shutil.rmtree, around, ignore_errors=True)
        self.folder = Path(around).resolve() / "job"
        self.folder.mkdir()
        self.data = halfheard.Dataset(dataset)
        (self.folder / "inputs").mkdir()
        (self.folder / "tmp").mkdir()
        if isinstance(program, Path):
            shutil.copytree(program, self.folder / "program")
        elif program is not None:
            (self.folder / "program").mkdir()
            (self.folder / "program" / "train.py").write_text(program)
        splits = {name: getattr(self.data, name) for name in ("train", "valid", "test")}
        train = splits["train"]
        shapes = {"text_len": train.text.shape[2]}
        for name in ("audio", "vision"):
            shapes |= {f"{name}_len": getattr(train, name).shape[1], f"{name}_dim": getattr(train, name).shape[2]}
        self.job = {
            "version": 2,
            "task": "train",
            "method": "mine",
            "variant": "",
            "seed": 1111,
            "device": "cpu",
            "threads": 1,
            "max_epochs": 4,
            "hyper": {},
            "dataset": {
                "name": "mosi",
                "path": str(dataset),
                "shapes": shapes,
                "samples": {name: len(split) for name, split in splits.items()},
            },
            "encoder": {
                "path": str(self.folder / "encoder"),
                "tokens": {"unknown": 100, "mask": 103, "start": 101, "end": 102, "padding": 0},
            },
            "regime": {
                "train_missing": "redrawn",
                "erasure_seed": 1111,
                "selection": "validation",
                "selection_rate": 0.5,
                "fidelity": "reference",
                "repeated_numbers": True,
            },
            "selection": [self.split("valid")],
            "state": None,
            "after_epoch": 0,
            "cases": [],
        }
        self.job.update(changes)
        self.path = self.folder / "job.json"
        self.write()

    def write(self):
        self.path.write_text(json.dumps(self.job))

    def split(self, name):
        samples = len(getattr(self.data, name))
        return {"split": name, "case": "r=0.5", "inputs": self.inputs(name, "r=0.5"), "samples": samples}

    def both(self):
        """Makes it a training that selects on both splits."""
        self.job["regime"]["selection"] = "both"
        self.job["selection"] = [self.split("valid"), self.split("test")]
        self.write()
        return self

    def inputs(self, split, case):
        split = getattr(self.data, split)
        path = self.folder / "inputs" / f"{split.name}-{case}.safetensors"
        about = {"format": "halfheard-case", "split": split.name, "ids": json.dumps(split.ids)}
        write_tensors(path, tensors_of(halfheard.erase(split, case)), about)
        return f"inputs/{path.name}"

    def evaluate(self, checkpoints, cases=("r=0", "r=0.7", "missing=la")):
        """Makes it an evaluation of these checkpoints, given by their content."""
        (self.folder / "checkpoints").mkdir()
        names = []
        for number, content in enumerate(checkpoints):
            names.append(f"checkpoints/{number}")
            (self.folder / names[-1]).write_bytes(content)
        cases = [
            {"case": case, "inputs": self.inputs("test", case), "samples": len(self.data.test), "checkpoints": names}
            for case in cases
        ]
        self.job.update(task="evaluate", selection=[], cases=cases)
        self.write()

    def resume(self, saved, after_epoch):
        """Gives the program the state that another folder's program has saved."""
        shutil.copytree(saved, self.folder / "state")
        self.job.update(state="state", after_epoch=after_epoch)
        self.write()

    def environment(self):
        passed = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        # The program is run elsewhere.
        packages = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        return {
            **passed,
            "PYTHONPATH": os.pathsep.join(packages),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TMPDIR": str(self.folder / "tmp"),
            "HALFHEARD_JOB": str(self.path),
        }

    def run(self, stop_after=None):
        """Runs the program to its end. With ``stop_after``, it is sent SIGTERM when it has saved a state after that
        epoch. Files are taken as soon as an event names them, into :attr:`taken`."""
        self.lines, self.events, self.taken = [], [], {}
        with open(self.folder / "output.txt", "wb") as output:
            program = subprocess.Popen(
                [sys.executable, "train.py"],
                cwd=self.folder / "program",
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        try:
            for line in program.stdout:
                event = json.loads(line)
                self.check(event)
                self.take(event)
                if event["event"] != "progress":
                    self.lines.append(line)
                    self.events.append(event)
                if event["event"] == "state" and event["after_epoch"] == stop_after:
                    program.send_signal(signal.SIGTERM)
            self.code = program.wait(30)
        finally:
            program.kill()
            program.stdout.close()
            program.wait()
        self.output = (self.folder / "output.txt").read_text()
        return self

    def check(self, event):
        assert isinstance(event, dict) and event.get("event") in EVENTS, event
        expected = EVENTS[event["event"]]
        assert event.keys() - {"event"} == expected.keys(), event
        for name, kind in expected.items():
            assert isinstance(event[name], kind) and not isinstance(event[name], bool), (name, event)

    def take(self, event):
        for key in ("checkpoint", "path"):
            if key in event and event["event"] != "predictions":
                path = self.folder / event[key]
                assert path.resolve().is_relative_to(self.folder) and path.exists(), event
                to = self.folder.parent / "taken" / event[key]
                to.parent.mkdir(parents=True, exist_ok=True)
                path.rename(to)
                self.taken[event[key]] = to

    def of_kind(self, kind):
        return [event for event in self.events if event["event"] == kind]
