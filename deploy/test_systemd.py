"""Tests of deploy/systemd with systemd's own checker, where it is installed. tests/tests/servers/deploy_units.rs runs the units."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from manifests import DEPLOY

SYSTEMD = DEPLOY / "systemd"
SYSTEM = (SYSTEMD / "coord.service", SYSTEMD / "worker@.service", SYSTEMD / "nats-server.service")
USER = (SYSTEMD / "user/coord.service", SYSTEMD / "user/worker@.service")
# Exposure as `systemd-analyze security` counts it, 0 to 100: a worker needs its GPU's devices and a driver that makes code.
EXPOSURE = {"coord.service": 15, "worker@.service": 25, "nats-server.service": 15}


def analyze(*arguments):
    # Units of a user are looked for below it.
    environment = {"XDG_RUNTIME_DIR": "/tmp", **os.environ}
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment)


def version():
    if not shutil.which("systemd-analyze"):
        return 0
    return int(re.search(r"\d+", analyze("--version").stdout).group())


def settings(text):
    """(key, value) of each line of a unit."""
    return re.findall(r"^([A-Za-z]+)=(.*)$", text, flags=re.MULTILINE)


class Systemd(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)

    def verify(self, path, text, user=False):
        """What systemd says against a unit whose program is there."""
        unit = self.path / path.name.replace("@", "@0")
        unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
        done = analyze("verify", "--man=no", *(["--user"] if user else []), str(unit))
        return done.stderr + done.stdout + (f"exit code {done.returncode}" if done.returncode else "")

    @unittest.skipIf(version() < 250, "no systemd-analyze 250 or newer")
    def test_units_are_valid(self):
        for path in (*SYSTEM, *USER):
            with self.subTest(path.name):
                self.assertEqual(self.verify(path, path.read_text(), user=path in USER), "")

    @unittest.skipIf(version() < 250, "no systemd-analyze 250 or newer")
    def test_any_misspelt_key_is_noticed(self):
        for path in SYSTEM:
            wrong = self.verify(path, re.sub(r"^(?!ExecStart)([A-Za-z]+)=", r"\1x=", path.read_text(), flags=re.MULTILINE))
            for key in {key for key, _ in settings(path.read_text())} - {"ExecStart"}:
                self.assertIn(f"'{key}x'", wrong, path.name)

    @unittest.skipIf(version() < 250, "no systemd-analyze 250 or newer")
    def test_units_are_confined(self):
        for path in SYSTEM:
            with self.subTest(path.name):
                # Only services in a unit folder are found.
                folder = self.path / "etc/systemd/system"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / path.name).write_text(path.read_text())
                run = lambda limit: analyze("security", "--no-pager", "--offline=true", f"--root={self.path}", f"--threshold={limit}", path.name)
                self.assertEqual(run(EXPOSURE[path.name]).returncode, 0, run(EXPOSURE[path.name]).stdout)
                self.assertNotEqual(run(5).returncode, 0, "the threshold has no effect")

    def test_settings_in_the_header_are_those_of_the_unit(self):
        """The files and folders that the installation steps make are those that the unit names."""
        for path in (*SYSTEM, *USER):
            program = re.sub(r"@?\.service$", "", path.name)
            text = path.read_text()
            header, unit = text.split("[Unit]")
            values = settings(unit)
            with self.subTest(str(path)):
                starts = [value.split()[0] for key, value in values if key == "ExecStart"]
                self.assertEqual([Path(start).name for start in starts], [program])
                files = [value for key, value in values if key == "EnvironmentFile" and not value.startswith("-")]
                home = {"%h": "~", "%E": "~/.config"}
                for name in (*files, *starts):
                    for specifier, folder in home.items():
                        name = name.replace(specifier, folder)
                    made = name in header or (str(Path(name).parent) + "/ ") in header or (str(Path(name).parent) + "/\n") in header
                    self.assertTrue(made, f"{name} is in no installation step")
                self.assertIn(f"{path.parent.name}/*.service" if path in USER else f"deploy/systemd/{path.name}", header)


if __name__ == "__main__":
    unittest.main()
