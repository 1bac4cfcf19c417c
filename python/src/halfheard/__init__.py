"""The Halfheard benchmark in Python: the same erasure, to the bit, and the same metrics.

>>> import halfheard
>>> data = halfheard.Dataset("data/datasets/mosi/data.safetensors")        # doctest: +SKIP
>>> results = halfheard.evaluate(my_model, data, method="my-model", seed=1111)  # doctest: +SKIP
>>> results.to_pandas()                                                    # doctest: +SKIP
>>> results.write_predictions("mine.csv")   # for `coord predictions import`  # doctest: +SKIP
"""

from .cases import LNLN_CASES, Case
from .database import Sweep, connect
from .dataset import Dataset, Split
from .erasure import Batch, Rates, erase, erase_training, kept
from .evaluation import Results, evaluate
from .metrics import measure
from .protocol import BUILT_IN as BUILT_IN_PROTOCOLS
from .protocol import MOSEI, MOSI, SIMS, Protocol

__all__ = [
    "BUILT_IN_PROTOCOLS",
    "LNLN_CASES",
    "MOSEI",
    "MOSI",
    "SIMS",
    "Batch",
    "Case",
    "Dataset",
    "Protocol",
    "Rates",
    "Results",
    "Split",
    "Sweep",
    "connect",
    "erase",
    "erase_training",
    "evaluate",
    "kept",
    "measure",
]

__version__ = "0.1.0"
