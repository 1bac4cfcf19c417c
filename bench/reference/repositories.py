"""The repositories of the references, and whether a folder is a clone of one. Needs no PyTorch."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Packages that are not named as the module that they install.
PACKAGES = {"pynvml": "nvidia-ml-py", "sklearn": "scikit-learn", "yaml": "pyyaml"}


class Unusable(Exception):
    """Why nothing can be measured, and what to do about it."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint

    def report(self) -> str:
        """Both, for a terminal."""
        return f"error: {self}\nhint: {self.hint}"


@dataclass(frozen=True)
class Repository:
    """A repository with the authors' or the benchmark's own code."""

    # Owner and name on GitHub.
    name: str
    # The option of `bench/steps` that names a clone, without dashes; the variable is derived from it.
    option: str
    # The commit that was tested.
    commit: str
    # A file that only a clone of this repository has.
    file: str
    methods: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable that names a clone."""
        return f"BENCH_{self.option.upper().replace('-', '_')}"

    @property
    def download(self) -> str:
        """The command that makes a clone, for hints."""
        return f"`git clone https://github.com/{self.name}`"

    def check(self, folder: Path) -> str | None:
        """Returns a warning unless `folder` is at the tested commit. Raises Unusable if it is not a clone."""
        hint = f"{self.download}, and name its folder"
        if not folder.is_dir():
            raise Unusable(f"missing clone of {self.name}: {folder}", hint)
        if not (folder / self.file).is_file():
            raise Unusable(f"not a clone of {self.name}: {folder} lacks {self.file}", hint)
        commit = commit_of(folder)
        if commit == self.commit:
            return None
        return f"{folder} is at {commit or 'an unknown commit'}; {self.name} was tested at {self.commit}"


REPOSITORIES = (
    Repository(
        "thuiar/MMSA",
        "mmsa",
        "a94e65d07fa1ae0d44e552390074b29b0898edfd",
        "src/MMSA/models/AMIO.py",
        ("misa", "self-mm", "mmim", "cenet", "tetfn", "tfr-net", "almt", "lf-dnn"),
    ),
    Repository(
        "Haoyu-ha/LNLN", "lnln", "80a052c62b7b3b7a6cb6956846e9d9c121f56eda", "models/lnln.py", ("lnln",)
    ),
    Repository(
        "sunlicai/EMT-DLFR",
        "emt-dlfr",
        "e9f0960237e5d85e65f78007a3f77e3f49ac6ec3",
        "trains/missingTask/EMT_DLFR.py",
        ("emt-dlfr",),
    ),
)
METHODS = {method: repository for repository in REPOSITORIES for method in repository.methods}


def commit_of(folder: Path) -> str | None:
    """The commit that a clone is at, if Git tells it."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def missing_package(error: ModuleNotFoundError) -> Unusable:
    """Says which package to install. Raises the error again if the package is there and lacks a module."""
    module = (error.name or "").partition(".")[0]
    if not module or importlib.util.find_spec(module) is not None:
        raise error
    package = PACKAGES.get(module, module.replace("_", "-"))
    return Unusable(
        f"missing Python package {package}",
        f"`pip install {package}`, or all: `pip install --requirement bench/reference/requirements.txt`",
    )
