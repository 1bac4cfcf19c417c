"""Tests the files in deploy/monitoring: the shape of the dashboard always; rules and queries where promtool is found.

promtool: HALFHEARD_PROMTOOL, else on PATH, else as `make test-alerts` unpacks it.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
MONITORING = HERE / "monitoring"
DASHBOARD = MONITORING / "grafana" / "halfheard.json"


def promtool():
    """Returns the path of promtool, or None."""
    deps = pathlib.Path(os.environ.get("HALFHEARD_DEPS", HERE.parent / ".deps"))
    unpacked = deps / "prometheus" / "usr" / "bin" / "promtool"
    return (
        os.environ.get("HALFHEARD_PROMTOOL")
        or shutil.which("promtool")
        or (str(unpacked) if unpacked.exists() else None)
    )


def dashboard():
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


class Dashboard(unittest.TestCase):
    def test_panels_are_complete_and_do_not_overlap(self):
        taken, ids = set(), set()
        for panel in dashboard()["panels"]:
            name = panel["title"]
            self.assertNotIn(panel["id"], ids, name)
            ids.add(panel["id"])
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, name)
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, f"{name} overlaps another panel")
            taken |= cells
            if panel["type"] == "row":
                continue
            self.assertIn(panel["type"], {"stat", "table", "timeseries"}, name)
            self.assertTrue(panel["description"].endswith("."), name)
            self.assertTrue(panel["targets"], name)
            refs = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(refs), len(set(refs)), name)
            for target in panel["targets"]:
                self.assertTrue(target["expr"], name)

    def test_data_source_is_chosen_by_a_variable(self):
        board = dashboard()
        names = [variable["name"] for variable in board["templating"]["list"]]
        self.assertEqual(names, ["datasource"])
        sources = {
            target["datasource"]["uid"]
            for panel in board["panels"]
            for target in panel.get("targets", [])
        }
        self.assertEqual(sources, {"${datasource}"})


@unittest.skipUnless(promtool(), "promtool not found: `make test-alerts` gets it where it can")
class Promtool(unittest.TestCase):
    def check(self, *arguments, folder=MONITORING):
        ran = subprocess.run(
            [promtool(), *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_rules_and_configuration_are_valid(self):
        self.check("check", "rules", "alerts.yml")
        self.check("check", "config", "prometheus.yml")

    def test_alerts_fire_when_they_should(self):
        self.check("test", "rules", "alerts_test.yml")

    def test_every_alert_has_a_test(self):
        def names(file, key):
            text = (MONITORING / file).read_text(encoding="utf-8")
            words = text.replace(",", " ").split()
            return {after for word, after in zip(words, words[1:]) if word == key}

        self.assertEqual(names("alerts.yml", "alert:"), names("alerts_test.yml", "alertname:"))

    def test_queries_of_the_dashboard_can_be_parsed(self):
        rules = [
            {"record": f"query_{number}", "expr": target["expr"].replace("$__rate_interval", "1m")}
            for number, target in enumerate(
                target for panel in dashboard()["panels"] for target in panel.get("targets", [])
            )
        ]
        with tempfile.TemporaryDirectory() as folder:
            # JSON is YAML.
            groups = {"groups": [{"name": "dashboard", "rules": rules}]}
            (pathlib.Path(folder) / "rules.yml").write_text(json.dumps(groups), encoding="utf-8")
            self.check("check", "rules", "rules.yml", folder=folder)


if __name__ == "__main__":
    unittest.main()
