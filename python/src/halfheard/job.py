"""Jobs of programs that are methods of their own: what a worker asks for, and what a program answers.

``docs/guide/own-program.md`` is the manual; ``schemas/job.schema.json`` and ``schemas/event.schema.json``
describe the files.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .dataset import Dataset
from .erasure import Batch, ErasedSplit
from .inputs import read_inputs
from .kept_values import Kept, Restored, read_state, read_values, take_file, write_state, write_values
from .tensors import write_tensors
from .training import BATCH_SIZE, Visits, training_split

#: The variable that leads to the job file.
VARIABLE = "HALFHEARD_JOB"
#: The version of job files and events that this package knows.
VERSION = 2
#: More predictions go into a file: a line has at most 4 MiB.
_MAX_INLINE = 50_000
#: Seconds between two reports of progress.
_PROGRESS_EVERY = 0.5
#: Separates the order of samples from other streams of the same seed and epoch.
_ORDER = 0x6F72_6465


class JobError(RuntimeError):
    """There is no job, or it cannot be read."""


class Stopped(SystemExit):
    """The worker has asked this program to end. Not caught, it ends the program without a trace."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@dataclass(frozen=True)
class Regime:
    """How a spec trains and selects.

    Attributes:
        train_missing: What is missing of the training split: ``complete``, ``fixed:0.2``, ``drawn-once``,
            ``redrawn`` or ``lnln-loader``.
        erasure_seed: The seed of erasure.
        selection: ``validation``, ``test`` or ``both``: the splits on which epochs are selected.
        selection_rate: Their missing rate.
        fidelity: ``reference`` or ``corrected``.
        repeated_numbers: Whether new rates of training are compared with the same uniform numbers in every epoch.
    """

    train_missing: str
    erasure_seed: int
    selection: str
    selection_rate: float
    fidelity: str
    repeated_numbers: bool


@dataclass(frozen=True)
class JobCase:
    """A case to predict.

    Attributes:
        case: Its name: ``r=0.3``, ``missing=la``.
        checkpoints: The checkpoints to predict with, as :meth:`Job.load` takes them.
        samples: The number of samples.
    """

    case: str
    checkpoints: tuple[str, ...]
    samples: int
    _path: Path

    @cached_property
    def inputs(self) -> Batch:
        """The erased test split."""
        return _read(self._path, self.case, self.samples)


class Job:
    """What a worker asks for. :func:`job` makes it.

    Attributes:
        task: ``train`` or ``evaluate``.
        method: The method's id.
        variant: The variant; empty for the method itself.
        seed: The run's seed.
        device: ``cpu`` or ``cuda:0``.
        threads: CPU threads to use.
        max_epochs: The most epochs to train.
        after_epoch: The last epoch that the restored state holds; 0 without one.
        hyper: The hyper-parameters.
        folder: The job's folder. What is written elsewhere stays behind.
        dataset_path: The dataset's file.
        dataset_name: Its name.
        encoder_path: The folder of the text encoder, in the layout of Hugging Face.
        unknown: The token that stands for missing ones.
        padding: The token at padding.
        regime: How to train and select.
    """

    task: str
    method: str
    variant: str
    seed: int
    device: str
    threads: int
    max_epochs: int
    after_epoch: int
    hyper: dict[str, Any]
    folder: Path
    dataset_path: Path
    dataset_name: str
    encoder_path: Path
    unknown: int
    padding: int
    regime: Regime

    def __init__(self, path: str | os.PathLike[str], events: int) -> None:
        """Reads a job file; events go to the file descriptor ``events``."""
        self.folder = Path(path).resolve().parent
        self._events = events
        self._lock = threading.Lock()
        try:
            content = json.loads(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise JobError(f"cannot read the job file {os.fspath(path)}: {error}") from error
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise JobError(
                f"the job file has version {version}, and this package knows {VERSION}: install the package of the"
                " worker's release"
            )
        try:
            self._read(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise JobError(f"the job file {os.fspath(path)} is not valid: {error!r}") from error
        self._stop = threading.Event()
        self._cut_short = False
        self._finished = False
        self._reported = self.after_epoch
        self._progressed = -math.inf
        self._predicted: set[tuple[str, str]] = set()

    def _read(self, content: dict[str, Any]) -> None:
        for name in ("task", "method", "variant", "seed", "device", "threads", "max_epochs", "after_epoch", "hyper"):
            setattr(self, name, content[name])
        self.dataset_path = self.folder / content["dataset"]["path"]
        self.dataset_name = content["dataset"]["name"]
        self.encoder_path = self.folder / content["encoder"]["path"]
        tokens = content["encoder"]["tokens"]
        self.unknown, self.padding = tokens["unknown"], tokens["padding"]
        regime = content["regime"]
        self.regime = Regime(**{name: regime[name] for name in Regime.__dataclass_fields__})
        self._state = self.folder / content["state"] if content["state"] else None
        self._selection = {split["split"]: split for split in content["selection"]}
        for split in self._selection.values():
            split["inputs"] = self.folder / split["inputs"]
        self._cases = [
            JobCase(case["case"], tuple(case["checkpoints"]), case["samples"], self.folder / case["inputs"])
            for case in content["cases"]
        ]

    # What is there to learn from and to predict.

    @cached_property
    def dataset(self) -> Dataset:
        """The complete dataset, opened when it is first asked for.

        Raises:
            ValueError: The file is not a dataset.
            OSError: It cannot be read.
        """
        return Dataset(self.dataset_path)

    @cached_property
    def selection(self) -> Batch:
        """When training: the erased split that is predicted after each epoch. It has no labels. Where a spec selects on
        both splits, the validation split; :attr:`selections` has both.

        Raises:
            JobError: This is an evaluation.
        """
        return next(iter(self.selections.values()))

    @cached_property
    def selections(self) -> dict[str, Batch]:
        """When training: the erased splits that are predicted after each epoch by name: ``valid``, ``test``, or both in
        this order. They have no labels.

        Raises:
            JobError: This is an evaluation.
        """
        self._expect("train", "there is no selection split")
        splits = self._selection.items()
        return {name: _read(split["inputs"], split["case"], split["samples"]) for name, split in splits}

    def cases(self) -> Iterator[JobCase]:
        """When evaluating: the cases to predict.

        Raises:
            Stopped: The worker asks this program to end.
            JobError: This is a training.
        """
        self._expect("evaluate", "there are no cases")
        for case in self._cases:
            self._heed_stop()
            yield case

    def epochs(self) -> Iterator[int]:
        """When training: the epochs that are left, from 1 in all. Ends early when the worker asks this program to
        end; :meth:`finish` then ends it.

        Raises:
            JobError: This is an evaluation.
        """
        self._expect("train", "there are no epochs")
        for epoch in range(self.after_epoch + 1, self.max_epochs + 1):
            if self.stop_requested:
                self._cut_short = True
                return
            yield epoch

    @property
    def stop_requested(self) -> bool:
        """Whether the worker has asked this program to end. It is killed 10 seconds later."""
        return self._stop.is_set()

    def epoch_seed(self, epoch: int) -> int:
        """A seed of 32 bits for what is random in an epoch, or, with epoch 0, for initial weights: a function of the
        run's seed and the epoch, so that a run that was resumed draws what it would have drawn."""
        return int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])

    def train_split(self, epoch: int, batch_size: int = BATCH_SIZE) -> Batch:
        """The training split as methods of the benchmark see it in this epoch, in its own order: erased to the same
        bits, or complete where the spec says ``train_missing = "complete"``. Labels are ``job.dataset.train.labels``.
        For a large dataset, :meth:`train_batches` needs less memory.

        Under ``lnln-loader`` it is erased as for :meth:`train_batches` with ``batch_size``, which counts there alone."""
        return self._erased(epoch, batch_size)[:]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        draws = np.random.RandomState([self.seed & 0xFFFFFFFF, self.seed >> 32, epoch, _ORDER])
        return draws.permutation(len(self.dataset.train))

    def _erased(self, epoch: int, batch_size: int) -> ErasedSplit:
        return training_split(
            self.dataset.train,
            self.seed,
            epoch,
            self.regime.erasure_seed,
            self.unknown,
            self.padding,
            train_missing=self.regime.train_missing,
            repeated_numbers=self.regime.repeated_numbers,
            visits=Visits(self._order(epoch), batch_size),
        )

    def train_batches(self, epoch: int, batch_size: int) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """The training split of an epoch in batches with their labels, each sample once; the last batch may be
        smaller. The order is NumPy's ``RandomState`` permutation seeded with (seed, epoch), and so a pure function of
        them. Progress is reported on the way.

        Raises:
            Stopped: The worker asks this program to end. The epoch in progress is lost; what was saved last is not.
        """
        erased, order = self._erased(epoch, batch_size), self._order(epoch)
        steps = -(-len(order) // batch_size)
        for step in range(steps):
            self._heed_stop()
            self.progress(epoch, step, steps)
            samples = order[step * batch_size : (step + 1) * batch_size]
            yield erased[samples], self.dataset.train.labels[samples]

    # What is said to the worker.

    def progress(self, epoch: int, step: int = 0, steps: int = 0, loss: float | None = None) -> None:
        """Says how far an epoch is; ``steps`` is 0 where that is unknown. A worker ends a program that says nothing
        for long. Call it as often as you like: at most two a second are passed on."""
        now = time.monotonic()
        if now - self._progressed >= _PROGRESS_EVERY:
            self._progressed = now
            loss = None if loss is None or not math.isfinite(loss) else float(loss)
            self._say("progress", epoch=epoch, step=step, steps=steps, loss=loss)

    def report(
        self,
        epoch: int,
        losses: float | Mapping[str, float],
        predictions: ArrayLike | Mapping[str, ArrayLike],
        checkpoint: Kept,
    ) -> None:
        """Says that an epoch is done. Epochs come in order, each once.

        Args:
            epoch: The epoch, from 1.
            losses: Mean training losses by name, of which ``loss`` is the whole; or that alone.
            predictions: One value for each sample of :attr:`selection`, on the scale of the labels; a dict of those
                for each of :attr:`selections`, where there are two.
            checkpoint: What :meth:`load` is to give back for evaluations: a dict of arrays and values that JSON can
                hold, bytes, or the path of a file (which is moved if it is in the job's folder, and copied
                otherwise).

        Raises:
            ValueError: Another epoch was next, the number of predictions is wrong, or a value is not finite.
        """
        self._expect("train", "no epoch can be reported")
        if epoch != self._reported + 1:
            raise ValueError(f"epoch {epoch} was reported, and epoch {self._reported + 1} is next")
        if epoch > self.max_epochs:
            raise ValueError(f"epoch {epoch} was reported, and there are at most {self.max_epochs}")
        named = dict(losses) if isinstance(losses, Mapping) else {"loss": losses}
        named = {name: float(loss) for name, loss in named.items()}
        for name, loss in named.items():
            if not math.isfinite(loss):
                raise ValueError(f"`{name}` of epoch {epoch} is {loss}: the training has diverged")
        values = self._by_split(epoch, predictions)
        path = self._fresh(f"epoch-{epoch:04}.checkpoint")
        if isinstance(checkpoint, Mapping):
            write_values(path, checkpoint)
        elif isinstance(checkpoint, (bytes, bytearray, memoryview)):
            path.write_bytes(checkpoint)
        elif Path(checkpoint).is_dir():
            raise ValueError(f"{os.fspath(checkpoint)} is a folder: a checkpoint is one file")
        else:
            take_file(Path(checkpoint), path, self.folder)
        self._say(
            "epoch",
            epoch=epoch,
            losses=named,
            predictions=values,
            checkpoint=self._relative(path),
        )
        self._reported = epoch

    def _by_split(self, epoch: int, predictions: ArrayLike | Mapping[str, ArrayLike]) -> Any:
        """Predictions as an event has them."""
        by_split: Mapping[str, ArrayLike]
        if isinstance(predictions, Mapping):
            by_split = predictions
        else:
            # The one split, or the first of two, of which the second is missing.
            by_split = dict(zip(self._selection, [predictions]))
        if set(by_split) != set(self._selection):
            given, expected = (" and ".join(names) for names in (by_split, self._selection))
            raise ValueError(f"predictions of {given} were reported for epoch {epoch}, and {expected} are expected")
        one = len(self._selection) == 1
        values = {}
        for name, split in self._selection.items():
            what = f"the {'selection' if one else name} split after epoch {epoch}"
            checked = _checked(by_split[name], split["samples"], what)
            values[name] = self._values(checked, f"epoch-{epoch:04}" + ("" if one else f"-{name}"))
        return values[name] if one else values

    def save(self, state: Kept, after_epoch: int | None = None) -> None:
        """Saves a state after the epoch that was reported last, from which :meth:`restore` goes on if this program is
        killed. What is random later must follow from (seed, epoch), or be in the state.

        Args:
            state: A dict of arrays and values that JSON can hold, bytes, or the path of a file or folder (which is
                moved if it is in the job's folder, and copied otherwise).
            after_epoch: The last epoch that it holds.

        Raises:
            ValueError: No epoch was reported, or another one.
        """
        self._expect("train", "no state can be saved")
        if after_epoch is None:
            after_epoch = self._reported
        if after_epoch != self._reported or after_epoch == self.after_epoch:
            raise ValueError(
                f"a state after epoch {after_epoch} cannot be saved: "
                + ("no epoch was reported yet" if self._reported == self.after_epoch else f"it is {self._reported}")
            )
        path = self._fresh(f"epoch-{after_epoch:04}.state")
        write_state(path, state, self.folder)
        self._say("state", after_epoch=after_epoch, path=self._relative(path))

    def restore(self) -> Restored | None:
        """What :meth:`save` was given last, with the path of a copy where it was given a path; ``None`` if training
        begins. Arrays can be changed."""
        return None if self._state is None else read_state(self._state)

    def load(self, checkpoint: str) -> dict[str, Any] | bytes:
        """What :meth:`report` was given: a dict or bytes. A file that was given by its path comes back as bytes;
        :meth:`path_of` is where it is."""
        path = self.path_of(checkpoint)
        values = read_values(path)
        return path.read_bytes() if values is None else values

    def path_of(self, checkpoint: str) -> Path:
        """The file of a checkpoint."""
        return self.folder / checkpoint

    def predict(self, case: JobCase | str, checkpoint: str, predictions: ArrayLike) -> None:
        """Says what a checkpoint predicts for a case.

        Raises:
            ValueError: The case does not ask for this, the number of predictions is wrong, or a value is not finite.
        """
        self._expect("evaluate", "no case can be predicted")
        name = case if isinstance(case, str) else case.case
        known = next((known for known in self._cases if known.case == name), None)
        if known is None or checkpoint not in known.checkpoints:
            raise ValueError(f"this job does not ask for case {name} with the checkpoint {checkpoint}")
        values = _checked(predictions, known.samples, f"case {name}")
        self._say(
            "predictions", case=name, checkpoint=checkpoint, predictions=self._values(values, f"{name}.predictions")
        )
        self._predicted.add((name, checkpoint))

    def finish(self) -> None:
        """Says that all is done: the last call of a program.

        Raises:
            Stopped: It is not, because the worker asked this program to end.
            ValueError: It is not: predictions are missing, or no epoch was reported.
        """
        if self._finished:
            return
        if self._cut_short:
            raise Stopped
        if self.task == "train" and self._reported == 0:
            raise ValueError("no epoch was reported")
        for case in self._cases:
            for checkpoint in case.checkpoints:
                if (case.case, checkpoint) not in self._predicted:
                    raise ValueError(f"case {case.case} was not predicted with the checkpoint {checkpoint}")
        self._say("finished")
        self._finished = True

    def _say(self, event: str, **about: Any) -> None:
        line = json.dumps({"event": event, **about}, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._events, line) :]

    def _values(self, values: NDArray[np.float32], name: str) -> list[float] | str:
        if len(values) <= _MAX_INLINE:
            # Each is also a number of double precision, which is read back as the same.
            return [float(value) for value in values]
        path = self._fresh(f"{name}.safetensors")
        write_tensors(path, {"predictions": values})
        return self._relative(path)

    def _fresh(self, name: str) -> Path:
        """A path in the job's folder at which nothing is."""
        folder = self.folder / "saved"
        folder.mkdir(exist_ok=True)
        path, number = folder / name, 1
        while path.exists():
            number += 1
            path = folder / f"{name}.{number}"
        return path

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _expect(self, task: str, otherwise: str) -> None:
        if self.task != task:
            raise JobError(f"{otherwise}: the task of this job is `{self.task}`")

    def _heed_stop(self) -> None:
        if self.stop_requested:
            raise Stopped


def _read(path: Path, case: str, samples: int) -> Batch:
    inputs = read_inputs(path, case)
    if len(inputs) != samples:
        raise JobError(f"{path} has {len(inputs)} samples, and the job file says {samples}")
    return inputs


def _checked(predictions: ArrayLike, samples: int, what: str) -> NDArray[np.float32]:
    # Tensors of PyTorch may have a gradient, or be on a device.
    if all(hasattr(predictions, name) for name in ("detach", "cpu", "numpy")):
        predictions = predictions.detach().cpu().numpy()  # type: ignore[union-attr]
    values = np.asarray(predictions, np.float32)
    if values.size != samples or values.ndim == 0 or max(values.shape) != samples:
        raise ValueError(f"{what} has {samples} samples, and the predictions have the shape {list(values.shape)}")
    values = values.reshape(-1)
    if not np.isfinite(values).all():
        sample = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"the prediction of sample {sample} of {what} is {values[sample]}")
    return values


_job: Job | None = None


def job() -> Job:
    """The job that a worker has started this program for. The first call makes standard output the stream of events:
    what is printed from then on goes to standard error. So call it before anything prints. It also installs the
    handler of SIGTERM, by which a worker asks a program to end.

    Raises:
        JobError: No worker has started this program, or the job file cannot be read.
    """
    global _job
    if _job is not None:
        return _job
    path = os.environ.get(VARIABLE)
    if not path:
        raise JobError(
            f"there is no job: {VARIABLE} is not set. Name this program in a spec and run it through a worker (`coord"
            " run SPEC --allow-external`), or use halfheard.evaluate to try a model without one"
        )
    events = os.dup(1)
    os.dup2(2, 1)
    # What was printed before and is still buffered goes to standard error, too.
    sys.stdout.flush()
    sys.stdout = sys.stderr
    made = Job(path, events)
    if threading.current_thread() is threading.main_thread():
        own = os.getpid()

        def asked_to_end(number: int, frame: FrameType | None) -> None:
            if os.getpid() == own:
                made._stop.set()
            else:
                # A process that was forked off, as data loaders do, is to end as if this handler were not there.
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        signal.signal(signal.SIGTERM, asked_to_end)
    _job = made
    return made
