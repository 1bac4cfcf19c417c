"""Tensors in files: safetensors, without a dependency."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: All types that NumPy has, too. Files are little-endian.
_TYPES: dict[str, Any] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_MAX_HEADER = 100_000_000


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads the tensors of a safetensors file as views of the mapped file, and its metadata.

    Raises:
        ValueError: The file is not valid.
        OSError: It cannot be read.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 8:
            raise ValueError(f"{name} is not a safetensors file")
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    size = int.from_bytes(mapped[:8], "little")
    if not 0 < size <= min(_MAX_HEADER, len(mapped) - 8):
        raise ValueError(f"{name} is not a safetensors file")
    try:
        header = json.loads(bytes(mapped[8 : 8 + size]))
    except ValueError:
        raise ValueError(f"{name} is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError(f"{name} is not a safetensors file: its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"{name} is not a safetensors file: its metadata is not an object")
    data = mapped[8 + size :]
    tensors: dict[str, NDArray[Any]] = {}
    for key, about in header.items():
        try:
            dtype, shape = _TYPES[about["dtype"]], tuple(about["shape"])
            start, end = about["data_offsets"]
            if not 0 <= start <= end <= len(data):
                raise ValueError
            tensors[key] = np.frombuffer(data[start:end], dtype).reshape(shape)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{name}: tensor `{key}` is not valid") from None
    return tensors, metadata


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file. Equal tensors give equal bytes, whatever their order.

    Raises:
        ValueError: An array of a type that safetensors lacks.
        OSError: It cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays: list[NDArray[Any]] = []
    offset = 0
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise ValueError(f"`{name}` has the type {array.dtype}, which safetensors does not have")
        shape = list(array.shape)
        array = np.ascontiguousarray(array, dtype)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
        arrays.append(array)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # Readers map the file: tensors begin at multiples of 8.
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in arrays:
            file.write(array.tobytes())
