"""Deployment files as data, for the tests: YAML, the part of kustomize that deploy/kubernetes uses, and the schemas of the
Kubernetes API.

`render` knows `resources`, `components`, `patches` (RFC 6902) and `configMapGenerator` with literals, and refuses anything
else, so that it cannot pass over what it does not know. Where `kubectl` is installed, a test compares the two.
"""

import copy
import json
import os
import re
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
CHECKERS = Path(os.environ.get("HALFHEARD_CHECKERS") or Path(os.environ.get("HALFHEARD_DEPS") or DEPLOY.parent / ".deps") / "checkers")
sys.path.append(str(CHECKERS))

import fastjsonschema  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

# What a service manager waits beyond a worker's own budget, at least: the supervisor's exit and the signal's way.
SPARE_SECONDS = 5


class ManifestError(Exception):
    """What is wrong with a deployment file."""


def read(text):
    """The documents of a YAML file, as plain lists and dictionaries. YAML 1.1, as kubectl and Compose read it."""
    documents = []
    # One by one: the reader forgets the version after the first.
    for part in re.split(r"^---$", text, flags=re.MULTILINE):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = (1, 1)
        documents.append(yaml.load(part))
    return json.loads(json.dumps([document for document in documents if document is not None]))


def name_of(resource):
    return resource["kind"], resource["metadata"]["name"]


# ---------------------------------------------------------------- kustomize


def render(folder):
    """The resources of a kustomization, in no particular order."""
    folder = Path(folder)
    (kustomization,) = read((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "resources", "components", "patches", "configMapGenerator", "generatorOptions"}
    if set(kustomization) - known:
        raise ManifestError(f"{folder}: unknown to deploy/manifests.py: {set(kustomization) - known}")
    if kustomization.get("generatorOptions", {"disableNameSuffixHash": True}) != {"disableNameSuffixHash": True}:
        raise ManifestError(f"{folder}: unknown generatorOptions")
    resources = []
    for entry in kustomization.get("resources", []):
        path = folder / entry
        resources += render(path) if path.is_dir() else read(path.read_text())
    resources += [config_map(generator) for generator in kustomization.get("configMapGenerator", [])]
    return apply(kustomization, folder, resources)


def apply(kustomization, folder, resources):
    """The resources with the components and patches of a kustomization."""
    for entry in kustomization.get("components", []):
        resources = add_component(folder / entry, resources)
    for patch in kustomization.get("patches", []):
        target = patch["target"]["kind"], patch["target"]["name"]
        found = [resource for resource in resources if name_of(resource) == target]
        if len(found) != 1:
            raise ManifestError(f"{folder}: {len(found)} resources are {target}")
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
        (operations,) = read(text)
        for operation in operations:
            patch_one(found[0], operation)
    return resources


def add_component(folder, resources):
    """The resources with a component."""
    (component,) = read((folder / "kustomization.yaml").read_text())
    if component["kind"] != "Component" or set(component) - {"apiVersion", "kind", "resources", "patches"}:
        raise ManifestError(f"{folder}: not a component as deploy/manifests.py knows it")
    own = [resource for entry in component.get("resources", []) for resource in read((folder / entry).read_text())]
    return apply(component, folder, resources + own)


def config_map(generator):
    if set(generator) != {"name", "namespace", "literals"}:
        raise ManifestError(f"unknown to deploy/manifests.py: {set(generator)}")
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    metadata = {"name": generator["name"], "namespace": generator["namespace"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def patch_one(document, operation):
    """Applies one operation of RFC 6902 to a document."""
    *above, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
    at = document
    for step in above:
        at = at[int(step) if isinstance(at, list) else step]
    key, what = (int(last) if isinstance(at, list) and last != "-" else last), operation["op"]
    if what != "add" and last != "-":
        at[key]  # It must be there.
    if what == "test":
        if at[key] != operation["value"]:
            raise ManifestError(f"{operation['path']} is {at[key]!r}, not {operation['value']!r}")
    elif what == "remove":
        del at[key]
    elif what not in ("add", "replace"):
        raise ManifestError(f"unknown to deploy/manifests.py: {what}")
    elif isinstance(at, list) and what == "add":
        at.insert(len(at) if key == "-" else key, copy.deepcopy(operation["value"]))
    else:
        at[key] = copy.deepcopy(operation["value"])


# ---------------------------------------------------------------- schemas

# A ScaledObject, as KEDA's reference describes it (keda.sh/docs, "ScaledObject specification" and "Prometheus"): only the
# fields that the manifests may use. Its `behavior` is that of the autoscaler that KEDA makes.
SCALED_OBJECT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {key: {"type": "string"} for key in ("apiVersion", "kind", "name")},
                },
                **{key: {"type": "integer", "minimum": 0} for key in ("minReplicaCount", "maxReplicaCount", "idleReplicaCount", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod")},
                "advanced": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "restoreToOriginalReplicaCount": {"type": "boolean"},
                        "horizontalPodAutoscalerConfig": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"behavior": {"$ref": "#/$defs/io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior"}},
                        },
                    },
                },
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "prometheus"},
                            "metricType": {"enum": ["AverageValue", "Value"]},
                            "metadata": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["serverAddress", "query", "threshold"],
                                # All values are strings, numbers too.
                                "properties": {key: {"type": "string"} for key in ("serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues")},
                            },
                        },
                    },
                },
            },
        },
    },
}


class Schemas:
    """Checks resources against the schemas of the Kubernetes API, in which no unknown field is allowed."""

    def __init__(self):
        self.definitions = json.loads((CHECKERS / "kubernetes.json").read_text())["$defs"]
        self.validators = {}
        self.kinds = {
            (kind["group"], kind["version"], kind["kind"]): {"$ref": f"#/$defs/{name}"}
            for name, definition in self.definitions.items()
            for kind in definition.get("x-kubernetes-group-version-kind", [])
        }
        self.kinds["keda.sh", "v1alpha1", "ScaledObject"] = SCALED_OBJECT

    def check(self, resource):
        """Raises ManifestError if the resource is not what its API says."""
        group, _, version = resource["apiVersion"].rpartition("/")
        kind = group, version, resource["kind"]
        if kind not in self.kinds:
            raise ManifestError(f"unknown kind: {kind}")
        if kind not in self.validators:
            schema = dict(self.kinds[kind], **{"$defs": self.definitions})
            self.validators[kind] = fastjsonschema.compile(schema, use_default=False)
        try:
            self.validators[kind](resource)
        except fastjsonschema.JsonSchemaException as error:
            raise ManifestError(f"{resource['kind']}: {error.message}") from error
