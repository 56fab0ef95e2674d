"""Pods as KubeRay makes them from deploy/ray: command, variables and volumes of Ray's container.

Taken from the operator's source (`controllers/ray/common/pod.go`). A pod of the group `servers` is
two containers in one network, with one folder at /tmp.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from support.manifest_pods import IMAGE_USER, make_container
from support.manifests import DEPLOY, Document, read_document
from support.pod import Container, Pod, Volume

TOKEN = "0123456789abcdef" * 4
GCS_PORT = 6379
# What KubeRay adds to `rayStartParams`.
HEAD_PARAMS = {"dashboard-host": "0.0.0.0"}
ALL_PARAMS = {"block": "true", "dashboard-agent-listen-port": "52365"}


class RayContainer(Pod):
    """A container of Ray, which the end of the block kills: Ray ends without an order."""

    def __exit__(self, *error: Any) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait_for_exit()
        if error[1] is not None:
            error[1].add_note(f"The log of Ray's container:\n{self.log}")


def read_cluster() -> Document:
    """The RayCluster."""
    return read_document(DEPLOY / "ray" / "raycluster.yaml")


def get_group(cluster: Document, name: str) -> Document:
    """A group of the cluster: `head`, `servers` or `models`."""
    if name == "head":
        return dict(cluster["spec"]["headGroupSpec"])
    groups = cluster["spec"]["workerGroupSpecs"]
    return dict(next(group for group in groups if group["groupName"] == name))


def make_ray_container(
    cluster: Document, group: str, head: str, volumes: list[Volume]
) -> Container:
    """Ray's container of a pod.

    Args:
        head: Address of the head's pod, in place of the name of its Service.
        volumes: The pod's folder at /tmp, and the content of the image.
    """
    spec = get_group(cluster, group)
    ray, *_ = spec["template"]["spec"]["containers"]
    is_head = group == "head"
    variables = {
        "RAY_CLUSTER_NAME": cluster["metadata"]["name"],
        "RAY_PORT": str(GCS_PORT),
        "RAY_ADDRESS": f"{'127.0.0.1' if is_head else head}:{GCS_PORT}",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    if cluster["spec"]["authOptions"]["mode"] == "token":
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    params = {**spec["rayStartParams"], **ALL_PARAMS}
    params |= HEAD_PARAMS if is_head else {"address": f"{head}:{GCS_PORT}"}
    memory = ray["resources"]["limits"]["memory"]
    params["memory"] = str(int(memory.removesuffix("Gi")) << 30)
    start = " ".join(
        ["ray start", *(["--head"] if is_head else []), *map(_format_param, params.items())]
    )
    described = {**ray, "command": ["/bin/bash", "-c", "--", f"ulimit -n 65536; {start}"]}
    return _make(described, variables, [Volume("/dev/shm"), *volumes])


def make_server_container(cluster: Document, volumes: list[Volume]) -> Container:
    """The server's container, which KubeRay leaves as it is."""
    server = get_server(cluster)
    described = {**server, "env": [_resolve(cluster, entry) for entry in server["env"]]}
    return _make(described, {}, volumes)


def get_server(cluster: Document) -> Document:
    """The server's container in the manifest."""
    _, server = get_group(cluster, "servers")["template"]["spec"]["containers"]
    return dict(server)


def make_shared_folder(folder: Path) -> Volume:
    """An `emptyDir` that the containers of a pod share at /tmp."""
    folder.mkdir()
    folder.chmod(0o777)
    return Volume("/tmp", str(folder))


def _make(spec: Document, variables: dict[str, str], volumes: list[Volume]) -> Container:
    [mount] = spec["volumeMounts"]
    assert mount["mountPath"] == "/tmp", "the runner shares /tmp"
    first, *others = volumes
    container = make_container({**spec, "volumeMounts": []}, variables, IMAGE_USER, first)
    return Container(**{**vars(container), "volumes": [first, *others]})


def _resolve(cluster: Document, entry: Document) -> Document:
    """A variable whose value is in the Secret that KubeRay makes."""
    if "value" in entry:
        return entry
    reference = entry["valueFrom"]["secretKeyRef"]
    assert reference == {"name": cluster["metadata"]["name"], "key": "auth_token"}
    return {"name": entry["name"], "value": TOKEN}


def _format_param(item: tuple[str, str]) -> str:
    name, value = item
    return f"--{name}" if value == "true" else f"--{name}={value}"
