"""Tests of dist.py with stand-ins for the program."""

import importlib.util
import struct
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).with_name("dist.py")
_spec = importlib.util.spec_from_file_location("halfheard_dist", SCRIPT)
dist = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dist)


def elf(*kinds):
    """The beginning of a program whose header table has these kinds of entries."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds)


class Dist(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        self.coord = self.path / "coord"

    def test_archive_is_the_same_each_time_and_has_the_program(self):
        self.coord.write_bytes(elf(1, 2))
        one, two = dist.pack(self.coord, self.path / "one"), dist.pack(self.coord, self.path / "two")
        self.assertEqual(one.read_bytes(), two.read_bytes())
        self.assertIn(one.name, one.with_name(one.name + ".sha256").read_text())
        with tarfile.open(one) as tar:
            members = {Path(member.name).name: member for member in tar.getmembers()}
            self.assertEqual(members["coord"].mode, 0o755)
            self.assertEqual(tar.extractfile(members["coord"]).read(), elf(1, 2))
            self.assertIn("LICENSE-MIT", members)

    def test_program_with_a_dynamic_linker_is_refused(self):
        self.coord.write_bytes(elf(1, dist.PT_INTERP))
        with self.assertRaisesRegex(dist.DistError, "not static"):
            dist.pack(self.coord, self.path / "out")
        self.assertFalse(dist.is_static(Path(sys.executable).resolve().read_bytes()))

    def test_what_is_no_program_is_refused(self):
        for content in (b"", b"#!/bin/sh\n", elf(1, 2)[:80]):
            self.coord.write_bytes(content)
            with self.assertRaises(dist.DistError):
                dist.pack(self.coord, self.path / "out")


if __name__ == "__main__":
    unittest.main()
