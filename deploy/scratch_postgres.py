#!/usr/bin/env python3
"""Runs a command with DATABASE_URL set to a temporary Postgres.

    scratch_postgres.py [--migrations FOLDER] -- COMMAND [ARGUMENT ...]

The server listens on a free loopback port, without fsync. PostgreSQL does not run as root; if root starts it, it runs
as `nobody`. This script is independent of coord's private servers, because it must work when coord does not compile:
`make sqlx-prepare` updates the data that coord's queries are compiled against.
"""

import argparse
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def programs():
    """Folder of postgres, initdb, pg_ctl and psql."""
    given = os.environ.get("HALFHEARD_POSTGRES_BIN")
    if given:
        return Path(given)
    laid = Path(os.environ.get("HALFHEARD_DEPS") or ROOT / ".deps") / "postgres/bin"
    if (laid / "postgres").exists():
        return laid
    sys.exit("scratch-postgres: no PostgreSQL found; run `make setup`, or set HALFHEARD_POSTGRES_BIN")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--migrations", type=Path, help="apply the *.sql files of this folder first, in order")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("a command is needed after --")

    binaries = programs()
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def as_server_user():
        if nobody:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)

    def server(*arguments):
        done = subprocess.run(
            [str(argument) for argument in arguments], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=as_server_user, check=False,
        )
        if done.returncode != 0:
            sys.exit(f"scratch-postgres: {Path(arguments[0]).name} failed:\n{done.stdout.decode(errors='replace')}")

    folder = Path(tempfile.mkdtemp(prefix="halfheard-pg-"))
    data = folder / "data"
    try:
        if nobody:
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        server(binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        port = free_port()
        settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
        # pg_ctl's log goes to a file: a server that holds our pipe open would make us wait for it.
        server(binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", settings, "start")
        try:
            url = f"postgres://postgres@127.0.0.1:{port}/postgres"
            if options.migrations:
                for file in sorted(options.migrations.glob("*.sql")):
                    applied = subprocess.run(
                        [str(binaries / "psql"), url, "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f", str(file)], check=False
                    )
                    if applied.returncode != 0:
                        return applied.returncode
            return subprocess.run(command, env=dict(os.environ, DATABASE_URL=url), check=False).returncode
        finally:
            server(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
