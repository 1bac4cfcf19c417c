"""The Halfheard benchmark in Python: the same erasure, to the bit, and the same metrics.

>>> import halfheard
>>> data = halfheard.Dataset("data/datasets/mosi/data.safetensors")        # doctest: +SKIP
>>> results = halfheard.evaluate(my_model, data, method="my-model", seed=1111)  # doctest: +SKIP
>>> results.to_pandas()                                                    # doctest: +SKIP
>>> results.write_predictions("mine.csv")   # for `coord predictions import`  # doctest: +SKIP

A program that is a method of its own, started by workers, calls ``halfheard.run`` with a model, or ``halfheard.job``.
"""

from .cases import LNLN_CASES, Case
from .database import Sweep, connect
from .dataset import Dataset, Split
from .driver import Trainable, run
from .erasure import Batch, Rates, erase, kept
from .evaluation import Results, evaluate
from .inputs import read_inputs
from .job import Job, JobCase, JobError, Regime, Stopped, job
from .metrics import measure
from .protocol import BUILT_IN as BUILT_IN_PROTOCOLS
from .protocol import MOSEI, MOSI, SIMS, Protocol
from .tensors import read_tensors, write_tensors
from .training import Visits, erase_training, training_rates

__all__ = [
    "BUILT_IN_PROTOCOLS",
    "LNLN_CASES",
    "MOSEI",
    "MOSI",
    "SIMS",
    "Batch",
    "Case",
    "Dataset",
    "Job",
    "JobCase",
    "JobError",
    "Protocol",
    "Rates",
    "Regime",
    "Results",
    "Split",
    "Stopped",
    "Sweep",
    "Trainable",
    "Visits",
    "connect",
    "erase",
    "erase_training",
    "evaluate",
    "job",
    "kept",
    "measure",
    "read_inputs",
    "read_tensors",
    "run",
    "training_rates",
    "write_tensors",
]

__version__ = "0.1.0"
