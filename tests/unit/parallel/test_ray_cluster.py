"""Calls of Serve by the agent: from several threads at a time."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.parallel.ray.applications import plan_application
from mlserver.parallel.ray.cluster import Cluster
from mlserver.settings import ModelSettings, Settings


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray, when it is imported
def test_applications_are_deployed_while_their_state_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Serve pickles parts of a deployment in both calls, and fails if two threads do so at once."""
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    def read_state() -> SimpleNamespace:
        RequestRouterConfig()  # as Serve does for each deployment of its answer
        return SimpleNamespace(applications={})

    monkeypatch.setattr(serve, "status", read_state)
    monkeypatch.setattr(serve, "run_many", lambda *_, **__: None)
    settings = Settings.load({"engine": "ray"})
    model = ModelSettings.load({"name": "wine", "implementation": "a.B"})
    plan = plan_application(settings, model)
    cluster = Cluster(settings)
    with ThreadPoolExecutor(4) as pool:
        calls: list[Future[Any]] = []
        for _ in range(50):
            calls.append(pool.submit(cluster.list_applications))
            calls.append(pool.submit(cluster.deploy, "wine", plan.options, plan.settings))
        for call in calls:
            call.result()


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray, when it is imported
def test_a_directory_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.exceptions import GetTimeoutError

    def get(reference: object, timeout: float) -> object:
        raise GetTimeoutError("Get timed out")

    monkeypatch.setattr(ray, "get", get)
    cluster = Cluster(Settings.load({"engine": "ray"}))
    cluster._directory = SimpleNamespace(poll=SimpleNamespace(remote=lambda *_: None))
    with pytest.raises(MLServerError, match="does not answer: 'poll' of the directory") as raised:
        cluster.call("poll", "server", [])
    assert raised.value.status_code == 504
