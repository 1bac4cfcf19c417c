"""Tests of compose.yaml with Docker Compose's own parser, which needs no daemon, and of the scripts that it uses."""

import http.server
import json
import os
import re
import stat
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

import manifests
from manifests import DEPLOY, read

COMPOSE = manifests.CHECKERS / "docker-compose"
TEXT = (DEPLOY / "compose.yaml").read_text()
OWN = ("coord", "worker")


def parse(text):
    """What Compose makes of a file in deploy/; ManifestError with its words if it refuses."""
    command = [str(COMPOSE), "--project-directory", str(DEPLOY), "-f", "-", "config", "--format", "json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HALFHEARD_")}
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False, env=environment)
    if done.returncode != 0:
        raise manifests.ManifestError(done.stderr)
    return json.loads(done.stdout)


def make_secrets(folder):
    subprocess.run([str(DEPLOY / "secrets.sh"), str(folder)], check=True, timeout=60)
    return {path.name: path.read_text() for path in folder.iterdir()}


class Compose(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)

    def test_its_own_parser_accepts_the_file(self):
        services = parse(TEXT)["services"]
        self.assertEqual(set(services), {"nats", "postgres", "coord", "worker"})
        for name, service in services.items():
            with self.subTest(name):
                self.assertIn("test", service["healthcheck"])
                self.assertEqual(service["restart"], "unless-stopped")
                self.assertIs(service["read_only"], True)
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                self.assertFalse({"privileged", "network_mode", "pid", "devices"} & set(service))
                published = [port["host_ip"] for port in service.get("ports", [])]
                self.assertEqual(published, ["127.0.0.1"] if name == "coord" else [])
                if name in OWN:
                    self.assertNotIn("cap_add", service)

    def test_misspelt_field_is_refused(self):
        (document,) = read(TEXT)
        for name, service in document["services"].items():
            for key in service:
                with self.subTest(f"{name}.{key}"):
                    wrong = dict(service, **{key + "x": service[key]})
                    del wrong[key]
                    with self.assertRaises(manifests.ManifestError):
                        parse(json.dumps(dict(document, services=dict(document["services"], **{name: wrong}))))

    def test_programs_run_as_a_user_of_their_images(self):
        dockerfile = (DEPLOY / "docker/Dockerfile").read_text()
        stages = {stage.split("\n")[0].split(" AS ")[-1].strip(): stage for stage in re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]}
        for target in ("coord", "worker", "worker-cuda"):
            self.assertIn("\nUSER 10001\n", stages[target])
        for name in OWN:
            self.assertIn(parse(TEXT)["services"][name]["build"]["target"], stages)

    def test_health_checks_ask_the_port_that_the_program_listens_on(self):
        services = parse(TEXT)["services"]
        for name in OWN:
            with self.subTest(name):
                words = " ".join(services[name]["command"]).split()
                port = words[words.index("--http") + 1].rpartition(":")[2]
                self.assertEqual(services[name]["healthcheck"]["test"], ["CMD", "probe", port, "/readyz"])

    def test_probe_succeeds_on_200_only(self):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response({"/readyz": 200, "/moved": 302}.get(self.path, 503))
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_port)
        code = lambda path: subprocess.run([str(DEPLOY / "docker/probe"), port, path], capture_output=True, timeout=30, check=False).returncode
        self.assertEqual([code(path) == 0 for path in ("/readyz", "/moved", "/healthz")], [True, False, False])
        server.shutdown()
        server.server_close()
        self.assertNotEqual(code("/readyz"), 0)

    def test_script_makes_each_secret_once(self):
        folder = self.path / "secrets"
        made = make_secrets(folder)
        self.assertEqual(set(made), {Path(secret["file"]).name for secret in parse(TEXT)["secrets"].values()})
        self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        self.assertEqual(len(set(made.values())), len(made))
        for name in ("nats-coord-password", "nats-worker-password", "postgres-password", "http-token"):
            self.assertRegex(made[name], r"^h[0-9a-f]{48}$")
        self.assertEqual(made["coord-nats-url"], f"nats://coord:{made['nats-coord-password']}@nats:4222")
        self.assertEqual(make_secrets(folder), made)

    def test_each_secret_that_a_service_reads_is_mounted(self):
        for name, service in parse(TEXT)["services"].items():
            with self.subTest(name):
                mounted = {secret["source"] for secret in service["secrets"]}
                self.assertEqual(set(re.findall(r"/run/secrets/([a-z-]+)", json.dumps(service))), mounted)
                self.assertNotRegex(json.dumps(service), r"://[a-z]+:")

    def test_broker_gets_its_passwords_from_files_or_does_not_start(self):
        """The shell lines of compose.yaml and of deploy/kubernetes/base/nats.yaml, with a stand-in for nats-server."""
        server = self.path / "nats-server"
        server.write_text('#!/bin/sh\necho "$NATS_COORD_PASSWORD $NATS_WORKER_PASSWORD $*"\n')
        server.chmod(0o755)
        service = parse(TEXT)["services"]["nats"]
        nats = next(r for r in manifests.render(DEPLOY / "kubernetes/base") if manifests.name_of(r) == ("StatefulSet", "nats"))
        container = nats["spec"]["template"]["spec"]["containers"][0]
        # Compose writes its output so that it can be read again: `$$` for `$`.
        compose = [word.replace("$$", "$") for word in [*service["entrypoint"], *service["command"]]]
        for words, folder, names in (
            (compose, "/run/secrets/", ("nats-coord-password", "nats-worker-password")),
            ([*container["command"], *container["args"]], "/run/secrets/halfheard/", ("coord-password", "worker-password")),
        ):
            with self.subTest(folder):
                own = Path(tempfile.mkdtemp(dir=self.path))
                words = [word.replace(folder, f"{own}/") for word in words]
                run = lambda: subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, env={"PATH": f"{self.path}:{os.environ['PATH']}"})
                (own / names[0]).write_text("one")
                self.assertNotEqual(run().returncode, 0)
                (own / names[1]).write_text("two")
                self.assertTrue(run().stdout.startswith("one two -c /etc/nats/nats.conf -a 0.0.0.0"), run())

    def test_secrets_and_data_reach_neither_git_nor_an_image(self):
        for ignore in (".gitignore", ".dockerignore"):
            lines = (DEPLOY.parent / ignore).read_text().splitlines()
            self.assertLessEqual({"/deploy/secrets", "/deploy/data"}, set(lines), ignore)


if __name__ == "__main__":
    unittest.main()
