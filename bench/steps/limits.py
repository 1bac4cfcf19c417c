"""Prints what this machine can do at most, as JSON: products of matrices and copies of memory.

Runs in the Python that has PyTorch, with the number of threads as its argument.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch

# Large enough for full speed, small enough for a second.
SIZE = 2048
BYTES = 1 << 29
TIMES = 5


def best_seconds(work: Callable[[], object]) -> float:
    """The shortest of some runs, after one that is not counted."""
    work()
    shortest = float("inf")
    for _ in range(TIMES):
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def products(kind: torch.dtype) -> float:
    """Floating-point operations a second in products of matrices of this type, as PyTorch computes them."""
    left, right = (torch.randn(SIZE, SIZE).to(kind) for _ in range(2))
    return 2 * SIZE**3 / best_seconds(lambda: left @ right)


def onednn_products() -> float:
    """The same in float32 by oneDNN, 0 without it: PyTorch uses MKL, which on processors that are not Intel's leaves
    half of them unused."""
    if not torch.backends.mkldnn.is_available():
        return 0.0
    left, right = (torch.randn(SIZE, SIZE) for _ in range(2))
    with torch.no_grad():
        seconds = best_seconds(lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], ""))
    return 2 * SIZE**3 / seconds


def copies() -> float:
    """Bytes read and written a second."""
    source = torch.zeros(BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * BYTES / best_seconds(lambda: target.copy_(source))


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(int(sys.argv[1]))
    eager = products(torch.float32)
    limits = {
        "torch": torch.__version__,
        "float32": max(eager, onednn_products()),
        "float32_eager": eager,
        "bfloat16": products(torch.bfloat16),
        "memory": copies(),
    }
    print(json.dumps(limits))


if __name__ == "__main__":
    main()
