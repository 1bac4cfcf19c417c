"""A virtual environment for each system, from pinned requirements with hashes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from processes import BenchError, run

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"


def install(name: str, folder: Path, requirements: Path = REQUIREMENTS) -> Path:
    """Returns the Python of the environment of `requirements/NAME.txt`; installs it unless it is there.

    Each system has its own, so that one that cannot be installed is the only one missing. An environment is moved to
    its place when it is complete, and a change of the requirements makes another.
    """
    lock = requirements / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    place = folder / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}-{digest}"
    new = folder / f"{place.name}.new"
    python = place / "bin" / "python"
    if python.exists():
        return python
    shutil.rmtree(place, ignore_errors=True)
    log = folder / f"{name}-install.log"
    log.unlink(missing_ok=True)
    try:
        # Without pip and without scripts: what is installed can then be moved.
        venv.create(new, clear=True, with_pip=False, symlinks=True)
        site = next(new.glob("lib/python*/site-packages"))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary", ":all:", "--require-hashes", "--target", str(site)]
        run([*pip, "--requirement", str(lock)], log)
        new.rename(place)
        # Of older requirements; Ray's alone takes hundreds of megabytes.
        for old in folder.glob(f"{name}-{sys.version_info[0]}.{sys.version_info[1]}-*"):
            if old != place:
                shutil.rmtree(old, ignore_errors=True)
    except (OSError, StopIteration, subprocess.SubprocessError, BenchError) as error:
        raise BenchError(f"cannot install {name}: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return python
