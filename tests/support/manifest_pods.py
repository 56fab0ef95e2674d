"""Containers as the controllers and the kubelet make them from the manifests in deploy/.

The image is this machine with the tests' Python; its models are a folder at /mnt/models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlserver.cli.image_spec import ImageSpec
from mlserver.cli.image_text import render_dockerfile
from support.manifests import DEPLOY, Document, read_document
from support.pod import PATH, Container, Volume

MODELS = "/mnt/models"
IMAGE_USER = (1000, 0)
OPENSHIFT_USER = (1000680000, 0)
# Variables of Services of the namespace, which the kubelet adds unless `enableServiceLinks` is
# false. Their names look like settings if a Service is called `mlserver` or `mlserver-admin`.
SERVICE_LINKS = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "MLSERVER_SERVICE_HOST": "10.96.0.9",
    "MLSERVER_SERVICE_PORT": "80",
    "MLSERVER_PORT": "tcp://10.96.0.9:80",
    "MLSERVER_PORT_80_TCP_ADDR": "10.96.0.9",
    "MLSERVER_ADMIN_PORT": "tcp://10.96.0.10:80",
}
DEPLOYMENT = DEPLOY / "kubernetes" / "base" / "deployment.yaml"


def get_image_command() -> list[str]:
    """The command of an image of `mlserver dockerfile`."""
    text = render_dockerfile(ImageSpec.from_runtime(Path(), "mlflow"))
    [line] = [line for line in text.splitlines() if line.startswith("CMD ")]
    command: list[str] = json.loads(line.removeprefix("CMD "))
    return command


def make_container(
    spec: Document, variables: dict[str, str], user: tuple[int, int], models: Volume
) -> Container:
    """A container of a pod's spec.

    Args:
        spec: A container of a manifest.
        variables: What the controller and the kubelet add.
        user: Ids of user and group, of the image or of OpenShift.
    """
    context = spec["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}, "the runner drops all"
    assert context["allowPrivilegeEscalation"] is False, "the runner sets no_new_privs"
    own = {entry["name"]: entry["value"] for entry in spec["env"]}
    uid, gid = user
    volumes = [Volume(mount["mountPath"]) for mount in spec["volumeMounts"]]
    return Container(
        spec.get("command") or spec.get("args") or get_image_command(),
        {"PATH": PATH, "HOME": "/", "PYTHONUNBUFFERED": "1", **variables, **own},
        [*volumes, models],
        uid=context.get("runAsUser", uid),
        gid=gid,
        groups=[uid] if user == OPENSHIFT_USER else [],
        read_only=context["readOnlyRootFilesystem"],
    )


def get_ports(spec: Document) -> dict[str, int]:
    """The ports of a container by name."""
    return {port["name"]: port["containerPort"] for port in spec.get("ports", ())}


# -- KServe --


def get_serving_container() -> Document:
    """The container of the serving runtime."""
    runtime = read_document(DEPLOY / "kserve" / "clusterservingruntime.yaml")
    [container] = runtime["spec"]["containers"]
    return dict(container)


def make_kserve_container(
    service: Document, user: tuple[int, int], models: Volume, more: dict[str, str] | None = None
) -> Container:
    """The container of an InferenceService: its runtime's, with KServe's defaults and its name.

    Args:
        more: Variables that KServe adds for this kind of storage.
    """
    model = service["spec"]["predictor"]["model"]
    runtime = read_document(DEPLOY / "kserve" / "clusterservingruntime.yaml")
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = [(each["name"], each["version"]) for each in runtime["spec"]["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    name = service["metadata"]["name"]
    text = json.dumps(runtime["spec"]["containers"][0]).replace("{{.Name}}", name)
    assert "{{" not in text
    # KServe's defaults for this type of server, which the runtime's own values precede.
    defaults = {"MLSERVER_MODEL_NAME": name, "MLSERVER_MODEL_URI": MODELS}
    variables = {**SERVICE_LINKS, **defaults, **(more or {})}
    return make_container(json.loads(text), variables, user, models)


# -- Kubernetes --


def get_deployment_container(deployment: Document) -> Document:
    """The container of a Deployment."""
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def make_deployment_container(
    deployment: Document, models: Volume, more: dict[str, str] | None = None
) -> Container:
    """The container of a Deployment.

    Args:
        more: Variables that replace the manifest's, for addresses that exist in no test.
    """
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    links = {} if pod["enableServiceLinks"] is False else SERVICE_LINKS
    container = make_container(get_deployment_container(deployment), links, IMAGE_USER, models)
    container.env.update(more or {})
    return container


# -- Compose --


def make_compose_container(service: dict[str, Any], models: Path) -> Container:
    """The container of a Compose service."""
    uid, gid = map(int, service["user"].split(":"))
    volumes = [Volume(entry.partition(":")[0]) for entry in service["tmpfs"]]  # `PATH:OPTIONS`
    for text in service["volumes"]:
        source, target, *options = text.replace("${MODELS:-./models}", str(models)).split(":")
        volumes.append(Volume(target, source, options == ["ro"]))
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    return Container(
        get_image_command(),
        {"PATH": PATH, "HOME": "/", "PYTHONUNBUFFERED": "1", **service["environment"]},
        volumes,
        uid=uid,
        gid=gid,
        read_only=service["read_only"],
    )


def get_docker_ports(service: dict[str, Any]) -> list[int]:
    """Ports of the container that a Compose service publishes."""
    return [int(text.rpartition(":")[2]) for text in service["ports"]]
