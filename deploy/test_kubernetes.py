"""Tests of deploy/kubernetes: every rendering against the schemas of the Kubernetes API, and the rules that its pods keep."""

import copy
import json
import re
import shutil
import subprocess
import unittest

import manifests
from manifests import DEPLOY, ManifestError, name_of, read, render

KUBERNETES = DEPLOY / "kubernetes"
GUIDE = DEPLOY.parent / "docs/guide/kubernetes.md"
# Fields that hold names of the user's own.
FREE = {"labels", "annotations", "matchLabels", "data", "requests", "limits"}
PROGRAMS = {"coord": 9350, "worker": 9351}


def renderings():
    """By name: the base, each overlay, and the base with each component."""
    named = {"base": render(KUBERNETES / "base")}
    for overlay in (KUBERNETES / "overlays").iterdir():
        named[f"overlays/{overlay.name}"] = render(overlay)
    for component in (KUBERNETES / "components").iterdir():
        named[f"components/{component.name}"] = manifests.add_component(component, render(KUBERNETES / "base"))
    return named


def pods(resources):
    """(name, specification) of each pod."""
    return [(resource["metadata"]["name"], resource["spec"]["template"]) for resource in resources if "template" in resource.get("spec", {})]


def misspellings(node, path=()):
    """Each way to misspell one field: (path, key)."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not path or path[-1] not in FREE:
                yield path, key
            yield from misspellings(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from misspellings(value, (*path, index))


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.schemas = manifests.Schemas()
        cls.renderings = renderings()

    def test_each_rendering_is_valid(self):
        self.assertEqual(len(self.renderings), 9, sorted(self.renderings))
        for name, resources in self.renderings.items():
            with self.subTest(name):
                names = [name_of(resource) for resource in resources]
                self.assertEqual(len(names), len(set(names)))
                for resource in resources:
                    self.schemas.check(resource)
                    if resource["kind"] != "Namespace":
                        self.assertEqual(resource["metadata"]["namespace"], "halfheard")

    def test_any_misspelt_field_is_refused(self):
        resources = {name_of(resource): resource for rendering in self.renderings.values() for resource in rendering}
        count = 0
        for resource in resources.values():
            for path, key in misspellings(resource):
                labels_of_service = path == ("spec", "selector") and resource["kind"] == "Service"
                if path == () and key in ("apiVersion", "kind") or labels_of_service:
                    continue
                wrong = copy.deepcopy(resource)
                at = wrong
                for step in path:
                    at = at[step]
                at[key + "x"] = at.pop(key)
                with self.assertRaises(ManifestError, msg=f"{name_of(resource)}: {path}, {key}"):
                    self.schemas.check(wrong)
                count += 1
        self.assertGreater(count, 500)

    def test_wrong_value_is_refused(self):
        worker = next(r for r in self.renderings["base"] if name_of(r) == ("Deployment", "worker"))
        for change in ({"replicas": "four"}, {"strategy": []}, {"template": {"spec": {"containers": {}}}}, {"selector": "worker"}):
            with self.subTest(change), self.assertRaises(ManifestError):
                self.schemas.check(dict(worker, spec=dict(worker["spec"], **change)))

    @unittest.skipUnless(shutil.which("kubectl"), "no kubectl: deploy/manifests.py alone renders")
    def test_kubectl_renders_the_same(self):
        for folder in [KUBERNETES / "base", *(KUBERNETES / "overlays").iterdir()]:
            with self.subTest(folder.name):
                done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                expected = {name_of(resource): resource for resource in read(done.stdout)}
                self.assertEqual({name_of(resource): resource for resource in render(folder)}, expected)

    def test_patch_of_what_is_not_there_is_refused(self):
        document = {"a": [{"b": 1}]}
        for operation in ({"op": "replace", "path": "/a/0/c", "value": 2}, {"op": "test", "path": "/a/0/b", "value": 2}, {"op": "remove", "path": "/a/1"}, {"op": "move", "path": "/a"}):
            with self.subTest(operation), self.assertRaises((ManifestError, KeyError, IndexError)):
                manifests.patch_one(document, operation)

    def test_pods_are_confined(self):
        for name, resources in self.renderings.items():
            for pod, template in pods(resources):
                with self.subTest(name, pod=pod):
                    spec = template["spec"]
                    security = spec["securityContext"]
                    self.assertIs(security["runAsNonRoot"], True)
                    self.assertGreater(security["runAsUser"], 0)
                    self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(spec))
                    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
                    self.assertFalse([volume for volume in volumes.values() if "hostPath" in volume])
                    for container in spec["containers"]:
                        own = container["securityContext"]
                        self.assertIs(own["readOnlyRootFilesystem"], True)
                        self.assertIs(own["allowPrivilegeEscalation"], False)
                        self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
                        self.assertLessEqual({"cpu", "memory"}, set(container["resources"]["requests"]))
                        self.assertIn("memory", container["resources"]["limits"])
                        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
                        self.assertIn("/tmp", writable)
                        # Secrets are files, and none is in the environment; those of S3 have no other way.
                        self.assertNotIn("secretKeyRef", json.dumps(container.get("env", [])))
                        secrets = [volume["secret"] for volume in volumes.values() if "secret" in volume]
                        self.assertEqual([secret["defaultMode"] for secret in secrets], [0o440])

    def test_programs_are_probed_over_http(self):
        for name, resources in self.renderings.items():
            for pod, template in pods(resources):
                if pod not in PROGRAMS:
                    continue
                with self.subTest(name, pod=pod):
                    (container,) = template["spec"]["containers"]
                    self.assertEqual(container["ports"], [{"name": "http", "containerPort": PROGRAMS[pod]}])
                    words = container["args"]
                    self.assertEqual(words[words.index("--http") + 1], f"0.0.0.0:{PROGRAMS[pod]}")
                    self.assertEqual(template["metadata"]["annotations"]["prometheus.io/port"], str(PROGRAMS[pod]))
                    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                        self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "http"})

    def test_references_lead_somewhere(self):
        for name, resources in self.renderings.items():
            labels = {pod: template["metadata"]["labels"] for pod, template in pods(resources)}
            with self.subTest(name):
                for resource in resources:
                    kind, own = name_of(resource)
                    selector = resource.get("spec", {}).get("selector")
                    if selector:
                        wanted = selector.get("matchLabels", selector)
                        self.assertEqual([pod for pod in labels if wanted.items() <= labels[pod].items()], [own])
                    target = resource.get("spec", {}).get("scaleTargetRef")
                    if target:
                        (workers,) = [r for r in resources if name_of(r) == ("Deployment", target["name"])]
                        self.assertNotIn("replicas", workers["spec"], "each `kubectl apply` would undo the autoscaler's")
                maps = {r["metadata"]["name"]: r["data"] for r in resources if r["kind"] == "ConfigMap"}
                for _, template in pods(resources):
                    for container in template["spec"]["containers"]:
                        for variable in container.get("env", []):
                            reference = variable.get("valueFrom", {}).get("configMapKeyRef")
                            if reference:
                                self.assertIn(reference["key"], maps[reference["name"]])

    def test_workers_reach_the_broker_and_never_the_database(self):
        for name, resources in self.renderings.items():
            with self.subTest(name):
                policies = {own: r["spec"] for r in resources for kind, own in [name_of(r)] if kind == "NetworkPolicy"}
                self.assertEqual(policies["default"]["podSelector"], {})
                self.assertEqual(policies["default"]["policyTypes"], ["Ingress", "Egress"])
                reached = [to for rule in policies["worker"]["egress"] for to in rule["to"]]
                self.assertEqual(reached, [{"podSelector": {"matchLabels": {"app": "nats"}}}])
                admitted = [peer for rule in policies["postgres"]["ingress"] for peer in rule["from"]]
                self.assertEqual(admitted, [{"podSelector": {"matchLabels": {"app": "coord"}}}])

    def test_guide_makes_each_secret_that_is_mounted(self):
        guide = GUIDE.read_text()
        mounted = set()
        for _, template in pods(self.renderings["base"]):
            text = json.dumps(template)
            (secret,) = [volume["secret"]["secretName"] for volume in template["spec"]["volumes"] if "secret" in volume]
            mounted |= {(secret, key) for key in re.findall(r"/run/secrets/halfheard/([a-z-]+)", text)}
        self.assertEqual(len(mounted), 7, mounted)
        made = set()
        for secret, rest in re.findall(r"create secret generic (halfheard-[a-z]+)((?:.*\\\n)*.*)", guide):
            made |= {(secret, key) for key in re.findall(r"--from-file=([a-z-]+)=", rest)}
        self.assertEqual(made, mounted)


if __name__ == "__main__":
    unittest.main()
