"""The files for real clusters are valid by Ray's and KubeRay's own schemas, and say nothing unsafe."""

import configparser
import importlib.metadata
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.autoscaler._private.util import prepare_config, validate_config

from infra.local import team
from pipeline.tracking.address import FOLDER, PROXIED
from tests.conftest import REPO

SCHEMAS = REPO.parent / "shared/kuberay"
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
KUBERAY = sorted((REPO / "infra/kuberay").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))  # a tenth of ruamel's time


@cache
def definition(kind: str) -> dict[str, Any]:
    """Returns KubeRay's definition of a kind, whose file has some twenty thousand lines."""
    (found,) = documents(SCHEMAS / KINDS[kind])
    return found


def closed(schema: Any) -> Any:
    """Returns the schema with unknown keys refused: Kubernetes would drop a misspelt one silently."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    kept = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        found["additionalProperties"] = bool(kept)
    return found


def nested(document: Any, key: str) -> Iterator[Any]:
    """Yields every value of a key, at any depth."""
    if isinstance(document, dict):
        for name, part in document.items():
            if name == key:
                yield part
            yield from nested(part, key)
    elif isinstance(document, list):
        for part in document:
            yield from nested(part, key)


@pytest.mark.skipif(not SCHEMAS.exists(), reason="KubeRay's schemas are not beside the study")
@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kuberay_manifests_are_valid(path: Path):
    for document in documents(path):
        if document["kind"] not in KINDS:
            continue
        crd = deepcopy(definition(document["kind"]))
        schema = next(
            version["schema"]["openAPIV3Schema"]
            for version in crd["spec"]["versions"]
            if f"ray.io/{version['name']}" == document["apiVersion"]
        )
        schema["properties"]["metadata"] = {"type": "object"}
        faults = list(Draft202012Validator(closed(schema)).iter_errors(document))
        assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []


@pytest.mark.skipif(not SCHEMAS.exists(), reason="KubeRay's schemas are not beside the study")
def test_a_misspelt_key_would_be_noticed():
    crd = definition("RayCluster")
    schema = closed(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    wrong = {"spec": {"headGroupSpec": {"templat": {}}}}
    messages = [fault.message for fault in Draft202012Validator(schema).iter_errors(wrong)]
    assert any("'templat' was unexpected" in message for message in messages)


def clusters() -> Iterator[dict[str, Any]]:
    for path in KUBERAY:
        for document in documents(path):
            if document["kind"] in KINDS:
                yield document["spec"].get("rayClusterSpec", document["spec"])


def test_kuberay_clusters_are_guarded():
    found = list(clusters())
    assert len(found) == 2
    for spec in found:
        assert spec["rayVersion"] == importlib.metadata.version("ray")
        assert spec["authOptions"] == {"mode": "token"}
        head = spec["headGroupSpec"]
        assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)
        groups = [head, *spec["workerGroupSpecs"]]
        for group in groups:
            pod = group["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["serviceAccountName"] == "resnet-study"
            for container in pod["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                names = [variable["name"] for variable in container.get("env", ())]
                assert not [name for name in names if "SECRET" in name or "TOKEN" in name]


def test_no_manifest_holds_a_key():
    for path in [*KUBERAY, REPO / "infra/ray/cluster-aws.yaml"]:
        for document in documents(path):
            for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
                assert list(nested(document, name)) == []


def test_the_aws_cluster_is_valid_by_rays_schema():
    config = documents(REPO / "infra/ray/cluster-aws.yaml")[0]
    prepared = prepare_config(config)  # what `ray up` does first: the defaults
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu-spot"]["resources"]["GPU"] == 1
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start


def test_a_wrong_aws_cluster_would_be_noticed():
    config = documents(REPO / "infra/ray/cluster-aws.yaml")[0]
    config["available_node_types"]["gpu-spot"]["min_worker"] = 1
    with pytest.raises(Exception, match="min_worker"):
        validate_config(prepare_config(config))


def test_the_image_installs_by_the_lock_and_not_as_root():
    text = (REPO / "infra/docker/Dockerfile").read_text()
    assert "--require-hashes" in text
    assert text.index("USER ray") > text.index("RUN pip")
    assert "COPY . " not in text


COMPOSE = documents(REPO / "infra/docker/compose.yaml")[0]
TEAM = documents(REPO / "infra/kuberay/mlflow.yaml")


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in TEAM if document["kind"] == kind]


@pytest.mark.skipif(not SCHEMAS.exists(), reason="KubeRay's schemas are not beside the study")
def test_the_pods_of_a_teams_mlflow_are_valid():
    """KubeRay's schema has Kubernetes' own of a pod template."""
    crd = definition("RayCluster")
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    template = spec["properties"]["headGroupSpec"]["properties"]["template"]
    schema = closed(template)
    schema["properties"]["metadata"] = {"type": "object"}
    pods = [
        one["spec"]["template"] for kind in ("StatefulSet", "Deployment") for one in of_kind(kind)
    ]
    assert len(pods) == 2
    for pod in pods:
        faults = list(Draft202012Validator(schema).iter_errors(pod))
        assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []


def test_a_teams_mlflow_is_the_same_everywhere():
    """What `make team-up` runs here, and the tests try, is what the other two start."""
    (container,) = of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"]
    (config,) = of_kind("ConfigMap")
    commands = [" ".join(container["command"]), COMPOSE["services"]["mlflow"]["command"][-1]]
    for command in commands:
        for option in (
            "--app-name basic-auth",
            "--workers 1",
            f"--default-artifact-root {PROXIED}",
        ):
            assert option in command
        assert re.search(rf"--artifacts-destination s3://\S+/{FOLDER} ", command)
    here = configparser.ConfigParser()
    here.read_string(
        team.AUTH.format(permission=team.ANY_MEMBER_MAY, database="", admin=team.ADMIN)
    )
    for text in (config["data"]["auth.ini"], COMPOSE["configs"]["auth"]["content"]):
        there = configparser.ConfigParser()
        there.read_string(text)
        said = dict(there["mlflow"])
        assert said.pop("database_uri").startswith("postgresql+psycopg2://")
        assert {**said, "database_uri": ""} == dict(here["mlflow"])


def test_a_teams_passwords_are_neither_in_the_files_nor_in_arguments():
    variables = [
        one
        for kind in ("StatefulSet", "Deployment")
        for found in of_kind(kind)
        for one in found["spec"]["template"]["spec"]["containers"][0]["env"]
    ]
    secret = [one for one in variables if re.search("PASSWORD|SECRET", one["name"])]
    assert len(secret) == 4
    assert all("secretKeyRef" in one["valueFrom"] for one in secret)
    for name, value in COMPOSE["services"]["postgres"]["environment"].items():
        assert "PASSWORD" not in name or str(value).startswith("/run/secrets/")
    for uri in (*nested(TEAM, "value"), *COMPOSE["services"]["mlflow"]["environment"].values()):
        assert not re.match(r"postgresql\S*://\w+:", str(uri))
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["mlflow"]["ports"])
    assert "ports" not in COMPOSE["services"]["postgres"]
