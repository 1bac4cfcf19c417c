"""Reading and writing safetensors files: the length of a JSON header, the header, raw tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_KINDS: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file by name.

    Raises ValueError if the file is cut off or describes tensors that it does not hold.
    """
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"{path}: cut off, or not a safetensors file; copy or download it again")
    try:
        header: dict[str, Any] = json.loads(data[8:start])
        header.pop("__metadata__", None)
        return {name: _tensor(data, start, entry) for name, entry in header.items()}
    except (AttributeError, KeyError, RuntimeError, TypeError, UnicodeError, ValueError) as error:
        raise ValueError(f"{path}: not a valid safetensors file: {error!r}") from error


def _tensor(data: bytearray, start: int, entry: dict[str, Any]) -> Tensor:
    kind, shape = _KINDS[entry["dtype"]], entry["shape"]
    begin, end = (start + offset for offset in entry["data_offsets"])
    if not start <= begin <= end <= len(data):
        raise ValueError(f"a tensor at {begin}..{end} in a file of {len(data)} bytes")
    if begin == end:
        return torch.empty(shape, dtype=kind)
    # A copy of its own: tensors in a file may start at odd addresses.
    return torch.frombuffer(data[begin:end], dtype=kind).reshape(shape)


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes contiguous copies of `tensors` to a file."""
    names = {kind: name for name, kind in _KINDS.items()}
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    at = 0
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        part = bytes(flat.view(torch.uint8).untyped_storage()) if flat.numel() else b""
        part = part[: flat.numel() * flat.element_size()]
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(part)],
        }
        parts.append(part)
        at += len(part)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
