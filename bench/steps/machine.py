"""The machine on which something is measured, and what it can do at most."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path


def processor() -> str:
    """The processor's name; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")


@dataclass(frozen=True)
class Machine:
    """The machine, with rates a second."""

    processor: str
    cores: int
    threads: int
    torch: str
    float32: float
    float32_eager: float
    bfloat16: float
    memory: float
    load: float

    @classmethod
    def measure(cls, python: str, script: Path, threads: int) -> Machine:
        """Measures this machine with `script` in a Python that has PyTorch."""
        environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
        load = os.getloadavg()[0]
        said = subprocess.run(
            [python, "-B", str(script), str(threads)],
            env=environment, stdout=subprocess.PIPE, text=True, check=True,
        )
        return cls(processor(), os.cpu_count() or 1, threads, load=load, **json.loads(said.stdout))

    def sentence(self) -> str:
        """What a reader must know about the figures."""
        return (
            f"{self.processor or 'unknown processor'}, {self.cores} cores, {self.threads} threads, "
            f"PyTorch {self.torch}; products of matrices {self.float32 / 1e9:.0f} GFLOP/s in float32 "
            f"({self.float32_eager / 1e9:.0f} as PyTorch computes them) and {self.bfloat16 / 1e9:.0f} in bfloat16, memory {self.memory / 1e9:.1f} GB/s; "
            f"load {self.load:.1f} before the first measurement"
        )

    def fields(self) -> dict[str, object]:
        """All of it, for JSON."""
        return asdict(self)
