"""Each manifest is run as a pod runs it: its variables, command, ports, probes and security
context, with a read-only root, no capabilities, another user and a small `/dev/shm`.

One server per manifest, so each test runs a container from its start to its exit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.settings import Settings
from mlserver.types import InferenceRequest
from mlserver.wire.proto import messages
from support.manifest_pods import (
    DEPLOYMENT,
    IMAGE_USER,
    MODELS,
    OPENSHIFT_USER,
    get_deployment_container,
    get_docker_ports,
    get_ports,
    get_serving_container,
    make_compose_container,
    make_deployment_container,
    make_kserve_container,
)
from support.manifests import DEPLOY, Document, merge, read_document
from support.mlflow_registry import MLflowRegistry
from support.models import WINE, Models
from support.pod import Container, Modelcar, Pod, Volume, why_not
from support.pod_network import PodSwitch, find_obstacle_to_switch
from support.ray_cluster import find_reason_to_skip
from support.ray_pods import (
    RayContainer,
    get_group,
    get_server,
    make_ray_container,
    make_server_container,
    make_shared_folder,
    read_cluster,
)
from support.repository import tensor

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]
# What KServe's test expects of its model, whose file is not to be had here. A model trained on the
# same data answers its request with 5.576883936608333, 2.4e-12 less.
KSERVE_ANSWER = 5.576883936610762
INPUTS = [tensor(name, [value], "FP64") for name, value in WINE.items()]
METRIC = re.compile(r"\bmodel_[a-z_]+\b")


@pytest.fixture(scope="module")
def folder(models: Models) -> Iterator[Path]:
    """A folder with the model `wine` that every user may read; pytest's folders are private."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        models.copy("wine", Path(name) / "wine")
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield Path(name)


@pytest.fixture
def model(folder: Path) -> Path:
    return folder / "wine"


def check_privileges(pod: Pod, uid: int) -> None:
    """The process is this user, has no capabilities, and cannot get any."""
    status = dict(line.split(":\t", 1) for line in pod.status.splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split()[0] == "0"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert pod.mounts["/"].startswith("ro")
    assert pod.mounts["/tmp"].startswith("rw")
    assert "size=64k" in pod.mounts["/dev/shm"]


def check_answers(pod: Pod, model: str, http: int, grpc_port: int, expected: float) -> None:
    """The model answers over REST and gRPC."""
    status, body = pod.request(http, "POST", f"/v2/models/{model}/infer", {"inputs": INPUTS})
    assert (status, f"[{expected}]" in body.decode()) == (200, True), body
    status, body = pod.request(http, "POST", "/invocations", {"dataframe_records": [WINE]})
    assert (status, f"[{expected}]" in body.decode()) == (200, True), body
    request = messages.write_request(InferenceRequest(inputs=INPUTS), model, raw=False)
    with pod.forward(grpc_port) as address, grpc.insecure_channel(address) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    [output] = messages.read_response(answer).outputs
    assert list(output.data) == [expected]


def check_metrics(pod: Pod, port: int, path: str, names: set[str]) -> None:
    """Each metric has a value on the page."""
    status, body = pod.request(port, "GET", path)
    assert status == 200
    lines = body.decode().splitlines()
    valued = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
    assert names <= valued


def check_shutdown(pod: Pod, container: Document, model: str, http: int) -> None:
    """After SIGTERM the readiness probe fails, requests are answered, and the server exits."""
    ports = get_ports(container)
    pod.send_signal(signal.SIGTERM)
    pod.wait(lambda: bool(pod.probe(container["readinessProbe"], ports)), "not ready")
    status, _ = pod.request(http, "POST", f"/v2/models/{model}/infer", {"inputs": INPUTS})
    assert status == 200
    assert pod.probe(container["livenessProbe"], ports) == ""
    assert pod.wait_for_exit() == 0


def check_kserves_request(pod: Pod) -> None:
    """The request of KServe's own test of MLflow models, whose numbers are FP32."""
    inputs = [tensor(name, [value], "FP32") for name, value in WINE.items()]
    body = {"parameters": {"content_type": "pd"}, "inputs": inputs}
    status, answer = pod.request(8080, "POST", "/v2/models/wine/infer", body)
    assert status == 200
    [value] = json.loads(answer)["outputs"][0]["data"]
    assert value == pytest.approx(KSERVE_ANSWER, abs=1e-11)


@pytest.mark.slow
def test_kserve(models: Models, model: Path, tmp_path: Path) -> None:
    """The serving runtime under a user id of OpenShift."""
    service = read_document(DEPLOY / "kserve" / "inferenceservice.yaml")
    runtime = read_document(DEPLOY / "kserve" / "clusterservingruntime.yaml")["spec"]
    manifest = get_serving_container()
    container = make_kserve_container(service, OPENSHIFT_USER, Volume(MODELS, str(model), True))
    with Pod(container, tmp_path) as pod:
        pod.wait_for_probe(manifest["startupProbe"], {})
        check_privileges(pod, OPENSHIFT_USER[0])
        assert pod.probe(manifest["readinessProbe"], {}) == ""
        assert pod.probe(manifest["livenessProbe"], {}) == ""
        check_answers(pod, "wine", 8080, 9000, models.wine_answer)
        if models.red_wine:  # else the data is not beside the repository: see `support.models`
            check_kserves_request(pod)
        port = int(runtime["annotations"]["prometheus.kserve.io/port"])
        path = runtime["annotations"]["prometheus.kserve.io/path"]
        check_metrics(pod, port, path, {"model_infer_request_success_total"})
        assert str(pod.log).count("MLSERVER_ADMIN_PORT=tcp://10.96.0.10:80 is skipped") == 1
        assert '"message":"Loaded model' in pod.log
        check_shutdown(pod, manifest, "wine", 8080)


@pytest.mark.slow
def test_kserve_with_a_modelcar(models: Models, model: Path, tmp_path: Path) -> None:
    """The container with the model starts after the server: `/mnt/models` appears as a link.

    The link leads into the file system of another process, as KServe makes it.
    """
    service = read_document(DEPLOY / "kserve" / "inferenceservice-grpc.yaml")
    ports = {"ports": service["spec"]["predictor"]["model"]["ports"]}
    assert get_ports(ports) == {"grpc": 9000, "http": 8080}
    start = tmp_path / "start"
    os.mkfifo(start)
    (tmp_path / "car").mkdir()
    modelcar = Modelcar(str(model), str(start), str(tmp_path / "car"))
    kserve = make_kserve_container(
        service, IMAGE_USER, Volume("/mnt"), {"MODEL_INIT_MODE": "async"}
    )
    container = Container(**{**vars(kserve), "modelcar": modelcar, "hidden": ()})
    with Pod(container, tmp_path) as pod:
        pod.wait_for_line("Waiting for /mnt/models, which MODEL_INIT_MODE=async announces")
        start.write_text("")
        pod.wait_for_probe(get_serving_container()["startupProbe"], {})
        check_answers(pod, "wine-grpc", 8080, 9000, models.wine_answer)


@pytest.mark.slow
def test_the_deployment(models: Models, folder: Path, tmp_path: Path) -> None:
    deployment = read_document(DEPLOYMENT)
    manifest = get_deployment_container(deployment)
    ports = get_ports(manifest)
    container = make_deployment_container(deployment, Volume(MODELS, str(folder), True))
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    with Pod(container, tmp_path, grace) as pod:
        pod.wait_for_probe(manifest["startupProbe"], ports)
        check_privileges(pod, IMAGE_USER[0])
        assert pod.probe(manifest["readinessProbe"], ports) == ""
        assert pod.probe(manifest["livenessProbe"], ports) == ""
        check_answers(pod, "wine", ports["http"], ports["grpc"], models.wine_answer)
        kubernetes = DEPLOY / "kubernetes"
        monitor = read_document(kubernetes / "podmonitor" / "podmonitor.yaml")["spec"]
        [endpoint] = monitor["podMetricsEndpoints"]
        names = list_scaled_metrics(kubernetes)
        check_metrics(pod, ports[endpoint["port"]], endpoint["path"], names)
        check_shutdown(pod, manifest, "wine", ports["http"])


@pytest.mark.slow
@pytest.mark.ray(own_cluster=True)
def test_the_ray_cluster(models: Models, folder: Path, tmp_path: Path) -> None:
    """The head, a pod of models, and a pod with a server, each in a network of its own."""
    reason = find_reason_to_skip() or find_obstacle_to_switch()
    if reason is not None:
        pytest.skip(reason)
    cluster, image = read_cluster(), Volume(MODELS, str(folder), True)
    with ExitStack() as stack:
        switch = stack.enter_context(PodSwitch())
        names = ("head", "models", "servers")
        networks = {name: switch.add() for name in names}
        folders = stack.enter_context(make_folders())
        for name in names:
            tmp = make_shared_folder(folders / name)
            container = make_ray_container(cluster, name, networks["head"].address, [tmp, image])
            (tmp_path / name).mkdir()
            node = RayContainer(container, tmp_path / name, network=networks[name])
            stack.enter_context(node)
            manifest, *_ = get_group(cluster, name)["template"]["spec"]["containers"]
            node.wait_for_probe(manifest["startupProbe"], {})
            assert node.probe(manifest["readinessProbe"], {}) == ""
            assert node.probe(manifest["livenessProbe"], {}) == ""
        server = get_server(cluster)
        ports = get_ports(server)
        spec = get_group(cluster, "servers")["template"]["spec"]
        assert spec["shareProcessNamespace"] is True
        container = make_server_container(cluster, [tmp, image])
        grace = spec["terminationGracePeriodSeconds"]
        with Pod(container, tmp_path, grace, networks["servers"], neighbour=node) as pod:
            pod.wait_for_probe(server["startupProbe"], ports)
            check_privileges(pod, IMAGE_USER[0])
            assert pod.probe(server["readinessProbe"], ports) == ""
            assert pod.probe(server["livenessProbe"], ports) == ""
            check_answers(pod, "wine", ports["http"], ports["grpc"], models.wine_answer)
            check_metrics(pod, ports["http"], "/metrics", {"model_infer_request_success_total"})
            check_shutdown(pod, server, "wine", ports["http"])


@contextmanager
def make_folders() -> Iterator[Path]:
    """A folder that every user may enter; pytest's are private."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's registry
def test_the_example_with_a_registered_model(tmp_path: Path) -> None:
    """The overlay's arguments and variables; the registry is a database in place of a server."""
    with tempfile.TemporaryDirectory() as folder:
        registry = MLflowRegistry(Path(folder))
        registry.add("wine", 7.0)
        registry.point("wine", "champion", 1)
        subprocess.run(["chmod", "-R", "a+rwX", folder], check=True)
        patch = read_document(DEPLOY / "kubernetes" / "example" / "model.yaml")
        deployment = merge(read_document(DEPLOYMENT), patch)
        manifest = get_deployment_container(deployment)
        container = make_deployment_container(deployment, Volume(folder, folder), registry.env)
        with Pod(container, tmp_path) as pod:
            pod.wait_for_probe(manifest["startupProbe"], get_ports(manifest))
            body = {"inputs": [[1.0]]}
            status, answer = pod.request(8080, "POST", "/invocations", body)
            assert (status, json.loads(answer)) == (200, {"predictions": [7.0]})


def list_scaled_metrics(kubernetes: Path) -> set[str]:
    """Names of the metrics by which the autoscalers count pods."""
    scaler = "horizontalpodautoscaler"
    autoscaler = read_document(kubernetes / scaler / f"{scaler}.yaml")
    [metric] = autoscaler["spec"]["metrics"]
    values = read_document(kubernetes / scaler / "prometheus-adapter-values.yaml")
    [rule] = values["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    [trigger] = read_document(kubernetes / "keda" / "scaledobject.yaml")["spec"]["triggers"]
    texts = (metric["pods"]["metric"]["name"], rule["seriesQuery"], trigger["metadata"]["query"])
    names = {name for text in texts for name in METRIC.findall(text)}
    assert names == {"model_infer_requests_in_flight"}
    return names


@pytest.mark.slow
def test_compose(models: Models, folder: Path, tmp_path: Path) -> None:
    compose = read_document(DEPLOY / "compose" / "compose.yaml")
    service = compose["services"]["server"]
    container = make_compose_container(service, folder)
    grace = float(service["stop_grace_period"].removesuffix("s"))
    drain = float(service["environment"]["MLSERVER_DRAIN_TIMEOUT"])
    assert grace >= drain + Settings().parallel_workers_timeout + 5
    with Pod(container, tmp_path, grace) as pod:
        http, grpc_port = get_docker_ports(service)
        pod.wait(lambda: is_healthy(pod, service), "the health check succeeded")
        check_privileges(pod, 1000)
        check_answers(pod, "wine", http, grpc_port, models.wine_answer)
        [job] = read_document(DEPLOY / "compose" / "prometheus.yaml")["scrape_configs"]
        [target] = job["static_configs"][0]["targets"]
        assert target == f"server:{http}"
        check_metrics(pod, http, job["metrics_path"], {"model_infer_request_success_total"})


def is_healthy(pod: Pod, service: dict[str, Any]) -> bool:
    """Run the health check in the container's namespaces."""
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    enter = ["nsenter", f"--target={pod.pid}", "--mount", "--net", "--pid", "--root"]
    done = subprocess.run(
        [*enter, "env", f"PATH={pod.container.env['PATH']}", *command],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_a_sigterm_during_the_start(model: Path, tmp_path: Path) -> None:
    """As process 1 of a container, the server has no default action for it."""
    service = read_document(DEPLOY / "kserve" / "inferenceservice.yaml")
    container = make_kserve_container(service, IMAGE_USER, Volume(MODELS, str(model), True))
    pod = Pod(container, tmp_path)
    pod.__enter__()
    pod.wait(
        lambda: "mlserver start" in pod.command and pod.has_handler(signal.SIGTERM),
        "it handles SIGTERM",
    )
    assert pod.stop() == 130
    assert "Ready" not in pod.log
    assert "Traceback" not in pod.log
