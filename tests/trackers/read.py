"""Reads exported runs with the trackers themselves: MLflow's file store, and `wandb sync` against a server on this machine.

Usage: read.py FOLDER, which has `mlruns` and `runs` as tests/tests/results/trackers.rs leaves them.
"""

import gzip
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path


def read_mlflow(folder: Path) -> dict:
    """Returns the runs as MLflow sees them, by id."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    experiments = [e for e in client.search_experiments() if e.name != "Default"]
    assert len(experiments) == 1, experiments
    assert experiments[0].name.startswith('a "night\'s" sweep: ../'), experiments[0].name
    runs = {}
    for run in client.search_runs([experiments[0].experiment_id]):
        assert run.info.status == "FINISHED", run.info
        loss = client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in loss] == [1, 2, 3], loss
        assert [round(point.value * 6) for point in loss] == [6, 3, 2], loss
        runs[run.info.run_id] = (run.data.params["seed"], run.data.metrics["case/r_0.3/mae"], run.data.metrics["train/loss"])
    return runs


class Server(http.server.BaseHTTPRequestHandler):
    """As much of W&B's server as `wandb sync` asks of it; keeps what it is sent."""

    runs: dict = {}
    history: dict = {}
    summary: dict = {}

    def log_message(self, *_arguments):
        """Says nothing."""

    def do_GET(self):
        self.answer({})

    def do_PUT(self):
        self.body()
        self.answer({})

    def do_POST(self):
        body = self.body()
        if self.path.endswith("/file_stream"):
            run = self.path.rsplit("/", 2)[1]
            for name, file in json.loads(body).get("files", {}).items():
                if name == "wandb-history.jsonl":
                    self.history.setdefault(run, []).extend(json.loads(line) for line in file["content"])
                if name == "wandb-summary.json":
                    self.summary.setdefault(run, {}).update(json.loads(file["content"][-1]))
            return self.answer({})
        if not self.path.startswith("/graphql"):
            return self.answer({})
        request = json.loads(body)
        query, variables = request["query"], request.get("variables") or {}
        if "upsertBucket" in query:
            self.runs[variables["name"]] = variables
            bucket = {
                "id": "storage", "name": variables["name"], "displayName": variables.get("displayName"), "config": "{}",
                "sweepName": None, "historyLineCount": 0,
                "project": {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "me"}},
            }
            return self.answer({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        if "createRunFiles" in query:
            place = f"http://{self.headers['host']}/upload/"
            files = [{"name": name, "uploadUrl": place} for name in variables["files"]]
            return self.answer({"data": {"createRunFiles": {"runID": "storage", "uploadHeaders": [], "files": files}}})
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        field = re.search(r"\{\s*(\w+)", query[query.index("{"):])
        name = field.group(1) if field else ""
        data = {"viewer": viewer, "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}}
        self.answer({"data": {name: data.get(name)}})

    def body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(content) if self.headers.get("content-encoding") == "gzip" else content

    def answer(self, content: dict):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def read_wandb(folder: Path) -> dict:
    """Returns the runs as a server gets them from `wandb sync`, by id."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_ENTITY": "me",
        "WANDB_ERROR_REPORTING": "false",
    }
    logs = sorted(folder.glob("offline-run-*"))
    program = Path(sys.executable).parent / "wandb"
    subprocess.run([program, "sync", *logs], check=True, env=environment, timeout=300)
    runs = {}
    for run, record in Server.runs.items():
        config = {key: entry["value"] for key, entry in json.loads(record["config"]).items() if key != "_wandb"}
        history = Server.history[run]
        assert [point["_step"] for point in history] == [1, 2, 3], history
        assert [round(point["train/loss"] * 6) for point in history] == [6, 3, 2], history
        summary = Server.summary[run]
        runs[run] = (str(config["seed"]), summary["case/r=0.3/mae"], summary["train/loss"])
    return runs


def main():
    """Compares what the two trackers read."""
    folder = Path(sys.argv[1]).resolve()
    mlflow = read_mlflow(folder / "mlruns")
    wandb = read_wandb(folder / "runs")
    assert len(mlflow) == 4 and mlflow == wandb, (mlflow, wandb)
    print(f"MLflow and `wandb sync` read the same {len(mlflow)} runs")


if __name__ == "__main__":
    main()
