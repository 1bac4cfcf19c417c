"""Each service manager gives a worker at least 5 s more than the worker takes for its shutdown, in every deployment file."""

import re
import unittest

from manifests import DEPLOY, SPARE_SECONDS
from test_compose import TEXT, parse
from test_kubernetes import pods, renderings
from test_systemd import SYSTEM, USER, settings

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "": 1}


def seconds(text):
    """A duration as systemd and Compose write it: `30s`, `1m30s`."""
    parts = re.findall(r"([0-9.]+)([a-z]*)\s*", str(text))
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def budgets():
    """(where, seconds that the worker takes, seconds that it is given)."""
    for name, resources in renderings().items():
        (template,) = [template for pod, template in pods(resources) if pod == "worker"]
        spec = template["spec"]
        variables = {variable["name"]: variable.get("value") for variable in spec["containers"][0]["env"]}
        yield f"kubernetes/{name}", variables["HALFHEARD_LEAVE_WITHIN"], spec["terminationGracePeriodSeconds"]
    worker = parse(TEXT)["services"]["worker"]
    yield "compose", worker["environment"]["HALFHEARD_LEAVE_WITHIN"], worker["stop_grace_period"]
    for path in (SYSTEM[1], USER[1]):
        values = settings(path.read_text())
        (leave,) = [value.partition("=")[2] for key, value in values if value.startswith("HALFHEARD_LEAVE_WITHIN=")]
        (given,) = [value for key, value in values if key == "TimeoutStopSec"]
        yield str(path.relative_to(DEPLOY)), leave, given
    script = (DEPLOY / "slurm/worker.sbatch").read_text()
    (leave,) = re.findall(r"^export HALFHEARD_LEAVE_WITHIN=\$\{HALFHEARD_LEAVE_WITHIN:-(\d+)\}$", script, flags=re.MULTILINE)
    (before_limit,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", script, flags=re.MULTILINE)
    (kill_wait,) = re.findall(r"KillWait is (\d+)", script)
    yield "slurm, time limit", leave, before_limit
    yield "slurm, cancelled", leave, kill_wait


class LeaveBudgets(unittest.TestCase):
    def test_each_manager_waits_longer_than_the_worker_takes(self):
        found = list(budgets())
        self.assertEqual(len(found), 14, found)
        for where, leave, given in found:
            with self.subTest(where):
                self.assertGreaterEqual(seconds(given), seconds(leave) + SPARE_SECONDS)

    def test_durations_are_read(self):
        self.assertEqual([seconds(text) for text in ("30s", "1m30s", 20, "2min 1s", "500ms")], [30, 90, 20, 121, 0.5])


if __name__ == "__main__":
    unittest.main()
