"""Values that a program keeps: as a dict, as bytes, or in a file or folder of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from .tensors import read_tensors, write_tensors

#: A dict of arrays and of what JSON can hold; bytes; or the path of a file or folder.
Kept = Union[Mapping[str, Any], bytes, str, "os.PathLike[str]"]
#: The same when it comes back: paths lead elsewhere.
Restored = Union[dict[str, Any], bytes, Path]

_FORMAT = "halfheard-values"
_VALUES, _BYTES, _FILE, _FOLDER = "values.safetensors", "bytes", "file", "folder"


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a dict as a safetensors file: arrays as tensors, all else as JSON in its header.

    Raises:
        TypeError: A value is neither an array nor JSON.
    """
    arrays: dict[str, NDArray[Any]] = {}
    others: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"{name!r} cannot be the name of a value: names are texts")
        array = _array(value)
        if array is not None:
            arrays[name] = array
            continue
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"`{name}` is a {type(value).__name__}, neither an array nor a value that JSON can hold: give bytes"
                " instead of a dict (what `torch.save` writes into an `io.BytesIO`, for example)"
            ) from None
        others[name] = value
    # One entry: several would have to be in a certain order.
    write_tensors(path, arrays, {_FORMAT: json.dumps(others, sort_keys=True)})


def _array(value: Any) -> NDArray[Any] | None:
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    # A tensor of PyTorch, with a gradient or on a device; this package does not import it.
    if all(hasattr(value, name) for name in ("detach", "cpu", "numpy")):
        return np.asarray(value.detach().cpu().numpy())
    return None


def read_values(path: Path) -> dict[str, Any] | None:
    """What :func:`write_values` has written, as copies that can be changed; ``None`` for any other file."""
    try:
        tensors, metadata = read_tensors(path)
    except ValueError:
        return None
    if _FORMAT not in metadata:
        return None
    return {**json.loads(metadata[_FORMAT]), **{name: array.copy() for name, array in tensors.items()}}


def take_file(source: Path, to: Path, within: Path) -> None:
    """Moves a file or folder that lies in the folder ``within``, copies any other."""
    source = source.resolve(strict=True)
    if source.is_relative_to(within.resolve()):
        os.replace(source, to)
    elif source.is_dir():
        shutil.copytree(source, to)
    else:
        shutil.copyfile(source, to)


def write_state(folder: Path, state: Kept, within: Path) -> None:
    """Writes a state into a folder, which is made, so that it can be told how it was given."""
    folder.mkdir(parents=True)
    if isinstance(state, Mapping):
        write_values(folder / _VALUES, state)
    elif isinstance(state, (bytes, bytearray, memoryview)):
        (folder / _BYTES).write_bytes(state)
    else:
        path = Path(state)
        if path.is_dir():
            take_file(path, folder / _FOLDER, within)
        else:
            (folder / _FILE).mkdir()
            take_file(path, folder / _FILE / path.name, within)


def read_state(folder: Path) -> Restored:
    """What was written; a folder that something else has written is returned as it is."""
    if (folder / _BYTES).is_file():
        return (folder / _BYTES).read_bytes()
    if (folder / _FOLDER).is_dir():
        return folder / _FOLDER
    if (folder / _FILE).is_dir():
        return next((folder / _FILE).iterdir())
    values = read_values(folder / _VALUES) if (folder / _VALUES).is_file() else None
    return folder if values is None else values
