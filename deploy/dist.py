#!/usr/bin/env python3
"""Packs a static `coord` for login nodes: deploy/dist.py COORD OUT

COORD is the program, OUT the folder for the archive and its SHA-256 sum; the archive's path is printed. A program that
needs a dynamic linker is refused: it would not start where the C library is older. The same program gives the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import re
import struct
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What is beside the program.
TEXTS = ("LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md")
#: The entry of an ELF file that names its dynamic linker.
PT_INTERP = 3


class DistError(Exception):
    """Why nothing can be packed."""


def is_static(content):
    """Whether a 64-bit little-endian ELF program starts without a dynamic linker."""
    if content[:6] != b"\x7fELF\x02\x01":
        raise DistError("it is not a 64-bit ELF program")
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    try:
        kinds = [struct.unpack_from("<I", content, offset + i * size)[0] for i in range(count)]
    except struct.error:
        raise DistError("it is cut off") from None
    return PT_INTERP not in kinds


def version():
    """The version in Cargo.toml."""
    found = re.search(r'^version = "([^"]+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    if not found:
        raise DistError("Cargo.toml has no version")
    return found.group(1)


def pack(coord, out):
    """Writes the archive and its sum. Returns the archive's path.

    Raises:
        DistError: The program is not static.
        OSError: A file cannot be read or written.
    """
    program = coord.read_bytes()
    if not is_static(program):
        raise DistError(f"{coord} is not static: build it with `make dist`")
    name = f"halfheard-coord-{version()}-x86_64-linux-static"
    members = [("coord", program, 0o755)] + [(text, (ROOT / text).read_bytes(), 0o644) for text in TEXTS]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content, mode in members:
            about = tarfile.TarInfo(f"{name}/{member}")
            about.size, about.mode = len(content), mode
            tar.addfile(about, io.BytesIO(content))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.tar.gz"
    path.write_bytes(gzip.compress(archive.getvalue(), mtime=0))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coord", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        print(pack(arguments.coord, arguments.out))
    except (DistError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
