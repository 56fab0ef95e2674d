"""The files of deploy/ follow strict schemas, and agree with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from mlserver.settings import Settings
from support.manifest_pods import DEPLOYMENT, get_deployment_container, get_ports
from support.manifests import (
    DEPLOY,
    Document,
    InvalidManifest,
    list_files,
    list_misspelled,
    read_document,
    read_documents,
    validate,
    validate_file,
)

KUBERNETES = DEPLOY / "kubernetes"
PARTS = ("kserve", "kubernetes", "ray", "compose")


def name_of(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


@pytest.fixture(scope="module")
def deployment() -> Document:
    return read_document(DEPLOYMENT)


def test_every_file_is_validated() -> None:
    others = [
        name_of(path)
        for part in PARTS
        for path in (DEPLOY / part).rglob("*")
        if path.is_file() and path not in list_files()
    ]
    assert others == []


@pytest.mark.parametrize("path", list_files(), ids=name_of)
def test_a_file_follows_its_schema(path: Path) -> None:
    validate_file(path)


@pytest.mark.parametrize("path", list_files(), ids=name_of)
def test_a_misspelled_field_is_refused(path: Path) -> None:
    """Each field of each file, one after the other, gets a letter too many."""
    copies = [copy for document in read_documents(path) for copy in list_misspelled(document)]
    assert len(copies) >= 3
    accepted = [name for name, document in copies if not _is_refused(document, path)]
    assert accepted == []


def _is_refused(document: Document, path: Path) -> bool:
    try:
        validate(document, path)
    except InvalidManifest:
        return True
    return False


def test_two_equal_keys_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nkind: Pod\n")
    with pytest.raises(InvalidManifest, match="occurs twice"):
        read_documents(file)


def test_a_wrong_type_is_refused(deployment: Document) -> None:
    get_deployment_container(deployment)["ports"][0]["containerPort"] = "8080"
    with pytest.raises(InvalidManifest, match='not of type "integer"'):
        validate(deployment, DEPLOYMENT)


# -- what the files say about each other --


@pytest.mark.parametrize("name", ["service", "service-grpc", "service-grpc-headless"])
def test_services_lead_to_the_pods(name: str) -> None:
    template = read_document(DEPLOYMENT)["spec"]["template"]
    ports = get_ports(template["spec"]["containers"][0])
    spec = read_document(KUBERNETES / "base" / f"{name}.yaml")["spec"]
    assert spec["selector"].items() <= template["metadata"]["labels"].items()
    for port in spec["ports"]:
        assert port["targetPort"] in ports
        is_grpc = port["name"] == "grpc"
        assert port["appProtocol"] == ("kubernetes.io/h2c" if is_grpc else "http")
    assert (spec.get("clusterIP") == "None") == name.endswith("headless")


def test_selectors_and_targets_name_the_deployment() -> None:
    deployment = read_document(DEPLOYMENT)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for path in ("base/poddisruptionbudget.yaml", "podmonitor/podmonitor.yaml"):
        selector = read_document(KUBERNETES / path)["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels.items()
    for path in ("horizontalpodautoscaler/horizontalpodautoscaler.yaml", "keda/scaledobject.yaml"):
        target = read_document(KUBERNETES / path)["spec"]["scaleTargetRef"]
        assert target["name"] == deployment["metadata"]["name"]
        assert target.get("kind", "Deployment") == deployment["kind"]


def test_the_parts_of_the_ray_cluster_agree() -> None:
    """Services and policies name its pods; its containers share image, token and version."""
    folder = DEPLOY / "ray"
    cluster = read_document(folder / "raycluster.yaml")
    spec, name = cluster["spec"], cluster["metadata"]["name"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    _, server = groups["servers"]["template"]["spec"]["containers"]
    # Labels that KubeRay gives to the pods of a group.
    labels = {"ray.io/cluster": name, "ray.io/group": "servers"}
    for file in ("service.yaml", "service-grpc.yaml"):
        service = read_document(folder / file)["spec"]
        assert service["selector"] == labels
        assert service["ports"][0]["targetPort"] in get_ports(server)
    every, servers = read_documents(folder / "networkpolicy.yaml")
    assert every["spec"]["podSelector"]["matchLabels"] == {"ray.io/cluster": name}
    budget = read_document(folder / "poddisruptionbudget.yaml")["spec"]["selector"]
    assert servers["spec"]["podSelector"] == budget == {"matchLabels": labels}
    [ports] = [rule["ports"] for rule in servers["spec"]["ingress"]]
    assert {port["port"] for port in ports} == set(get_ports(server))
    token = next(entry for entry in server["env"] if entry["name"] == "RAY_AUTH_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["name"] == name  # of the Secret that KubeRay makes
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *groups.values())]
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert groups["servers"]["rayStartParams"]["num-cpus"] == "0"
    [container] = groups["models"]["template"]["spec"]["containers"]
    requested = container["resources"]["requests"]["cpu"]
    assert groups["models"]["rayStartParams"]["num-cpus"] == requested


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_the_ray_cluster_has_the_tested_version_of_ray() -> None:
    spec = read_document(DEPLOY / "ray" / "raycluster.yaml")["spec"]
    assert spec["rayVersion"] == version("ray")


def read_seconds(container: Document, name: str) -> float:
    [value] = [entry["value"] for entry in container["env"] if entry["name"] == name]
    return float(value)


def test_the_grace_periods_cover_delay_and_drain() -> None:
    """Delay, drain, the workers' time and 5 seconds: see docs/how-to/kubernetes.md."""
    pod = read_document(DEPLOYMENT)["spec"]["template"]["spec"]
    runtime = read_document(DEPLOY / "kserve" / "clusterservingruntime.yaml")["spec"]
    [servers] = [
        group["template"]["spec"]
        for group in read_document(DEPLOY / "ray" / "raycluster.yaml")["spec"]["workerGroupSpecs"]
        if group["groupName"] == "servers"
    ]
    default_grace_period = 30  # of Kubernetes
    for container, grace in (
        (servers["containers"][1], servers["terminationGracePeriodSeconds"]),
        (pod["containers"][0], pod["terminationGracePeriodSeconds"]),
        (runtime["containers"][0], default_grace_period),
    ):
        delay = read_seconds(container, "MLSERVER_SHUTDOWN_DELAY")
        drain = read_seconds(container, "MLSERVER_DRAIN_TIMEOUT")
        assert grace >= delay + drain + Settings().parallel_workers_timeout + 5
        # The endpoint is removed after the readiness probe has failed or the pod is deleted.
        assert delay >= 5


def test_prometheus_and_grafana_get_the_observability_files() -> None:
    """Compose mounts deploy/observability where their files look for it."""
    compose = read_document(DEPLOY / "compose" / "compose.yaml")["services"]
    for name in ("prometheus", "grafana"):
        assert "../observability:/etc/observability:ro" in compose[name]["volumes"]
    for name in ("prometheus", "grafana"):
        for volume in compose[name]["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / "compose" / source).is_file()
    [provider] = read_document(DEPLOY / "compose" / "grafana" / "dashboards.yaml")["providers"]
    [rules] = read_document(DEPLOY / "compose" / "prometheus.yaml")["rule_files"]
    assert provider["options"]["path"] == "/etc/observability"
    assert rules.startswith("/etc/observability/")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_configuration() -> None:
    command = ["promtool", "check", "config", "--syntax-only"]
    done = subprocess.run(
        [*command, str(DEPLOY / "compose" / "prometheus.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("name", ["base", "example", "horizontalpodautoscaler", "keda"])
def test_kustomize_renders_valid_objects(name: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    for document in rendered:
        document["metadata"].pop("namespace", None)
        validate(document, KUBERNETES / name / "rendered.yaml")
    if name == "example":
        [deployment] = [each for each in rendered if each["kind"] == "Deployment"]
        container = get_deployment_container(deployment)
        assert re.fullmatch(r".*/mlflow-server:1", container["image"])
        assert container["args"] == ["mlserver", "start", "models:/wine@champion"]
        assert deployment["spec"]["replicas"] == 2
