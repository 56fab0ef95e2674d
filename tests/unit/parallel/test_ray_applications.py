"""Serve applications: names, digests, options of deployments, refusals, autoscaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.parallel.ray.applications import Plan, merge_runtime_envs, plan_application
from mlserver.parallel.ray.autoscaling import count_replicas
from mlserver.settings import ModelSettings, Settings, SettingsError
from mlserver.settings.ray import ModelRaySettings, RaySettings
from support.repository import write_settings


def plan(server: dict[str, Any] | None = None, **values: Any) -> Plan:
    """The plan of a model with these settings."""
    model = ModelSettings.load({"name": "wine", "implementation": "a.B", **values})
    return plan_application(Settings.load(server or {}), model)


def test_names_are_stable_and_quoted() -> None:
    first = plan({"server_name": "my server"}, name="a/b#c", parameters={"version": "1#2"})
    assert first.prefix == f"mlserver/my%20server/a%2Fb%23c/1%232/{first.digest[:12]}"
    assert first.model == "a/b#c\x001#2"
    assert plan({"server_name": "my server"}, name="a/b#c", parameters={"version": "1#2"}) == first


def test_the_digest_follows_settings_and_files(tmp_path: Path) -> None:
    folder = write_settings(tmp_path / "wine", name="wine", implementation="a.B")
    model = ModelSettings.parse_file(folder / "model-settings.json")
    digests = [plan_application(Settings(), model).digest]
    assert plan_application(Settings(), model).digest == digests[0]
    (folder / "weights.bin").write_bytes(b"1")
    digests.append(plan_application(Settings(), model).digest)
    (folder / "weights.bin").write_bytes(b"2")  # same size
    digests.append(plan_application(Settings(), model).digest)
    digests.append(plan_application(Settings(drain_timeout=1), model).digest)
    assert len(set(digests)) == 4


def test_the_digest_follows_code_beside_the_weights(tmp_path: Path) -> None:
    folder = write_settings(
        tmp_path / "wine", name="wine", implementation="my_code.B", parameters={"uri": "./weights"}
    )
    (folder / "weights").mkdir()
    (folder / "my_code.py").write_text("factor = 1")
    model = ModelSettings.parse_file(folder / "model-settings.json")
    before = plan_application(Settings(), model).digest
    (folder / "my_code.py").write_text("factor = 2")
    assert plan_application(Settings(), model).digest != before


def test_replicas_default_to_the_servers_workers() -> None:
    assert plan({"parallel_workers": 3}).options["num_replicas"] == 3
    assert plan({"parallel_workers": 0}).options["num_replicas"] == 1
    chosen = plan(
        ray={
            "num_replicas": 2,
            "num_cpus": 0.5,
            "num_gpus": 1,
            "resources": {"tpu": 2},
            "max_replicas_per_node": 1,
        }
    )
    assert (chosen.replicas, chosen.may_sleep) == (2, False)
    assert chosen.options["max_replicas_per_node"] == 1
    actor = chosen.options["ray_actor_options"]
    assert {key: actor[key] for key in ("num_cpus", "num_gpus", "resources")} == {
        "num_cpus": 0.5,
        "num_gpus": 1,
        "resources": {"tpu": 2},
    }


def test_autoscaling_is_translated() -> None:
    scaled = plan(ray={"autoscaling": {"min": 0, "max": 4, "target_busy": 0.5}})
    config = scaled.options["autoscaling_config"]
    assert (config["min_replicas"], config["initial_replicas"], config["max_replicas"]) == (0, 1, 4)
    assert config["target_ongoing_requests"] == 0.5
    assert (config["upscale_delay_s"], config["downscale_delay_s"]) == (5, 60)
    assert "num_replicas" not in scaled.options
    assert scaled.may_sleep


def test_delays_of_autoscaling() -> None:
    delays = {"upscale_delay": 0, "downscale_delay": 600}
    config = plan(ray={"autoscaling": {"max": 2, **delays}}).options["autoscaling_config"]
    assert (config["upscale_delay_s"], config["downscale_delay_s"]) == (0, 600)


def test_time_limits_become_those_of_serve() -> None:
    options = plan({"request_timeout": 90, "drain_timeout": 7}).options
    assert options["health_check_timeout_s"] == 30
    assert options["graceful_shutdown_timeout_s"] == 12


def test_runtime_environments_are_merged() -> None:
    server = RaySettings(runtime_env={"pip": ["a"], "env_vars": {"A": "1", "B": "1"}})
    model = ModelRaySettings(runtime_env={"pip": ["b"], "env_vars": {"B": "2"}})
    variables = {"MLFLOW_TRACKING_URI": "http://m"}
    assert merge_runtime_envs(server, model, variables) == {
        "pip": ["b"],
        "env_vars": {"MLFLOW_TRACKING_URI": "http://m", "A": "1", "B": "2"},
    }
    assert merge_runtime_envs(RaySettings(), ModelRaySettings(), {}) == {}


def test_variables_of_the_runtime_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")
    monkeypatch.setenv("SECRET", "1")
    actor = plan(implementation="mlserver_mlflow.MLflowRuntime").options["ray_actor_options"]
    assert actor["runtime_env"]["env_vars"]["MLFLOW_TRACKING_URI"] == "http://m"
    assert "SECRET" not in actor["runtime_env"]["env_vars"]
    assert "runtime_env" not in plan().options["ray_actor_options"]


@pytest.mark.parametrize(
    "address", ["auto", "local", "head:6379", "10.0.0.1:6379", "[::1]:6379", "ray://head:10001"]
)
def test_addresses(address: str) -> None:
    assert RaySettings(address=address).address == address


@pytest.mark.parametrize("address", ["", "head", "ray://head", "http://head:1", "head:port", "ray"])
def test_what_is_no_address_is_refused(address: str) -> None:
    text = "ray.address.: expected 'auto', 'local', 'host:port' or 'ray://host:port', received"
    with pytest.raises(SettingsError, match=text):
        Settings.load({"ray": {"address": address}})


@pytest.mark.parametrize(
    "values, text",
    [
        ({"parallel_workers": 0}, "'parallel_workers' of 0"),
        ({"parameters": {"extra": {"env_manager": "uv"}}}, "'env_manager' of 'uv'"),
        ({"parameters": {"environment_path": "/e"}}, "'environment_path'"),
        ({"parameters": {"environment_tarball": "e.tar"}}, "'environment_tarball'"),
    ],
)
def test_what_a_replica_cannot_do_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(MLServerError, match=f"Model wine: {text} cannot be used with the engine"):
        plan(**values)


@pytest.mark.parametrize(
    "current, busy, is_awaited, expected",
    [
        (1, [0.3], False, 1),
        (1, [1.0], False, 2),  # a full replica is never busier than 1
        (2, [1.0, 1.0], False, 3),
        (2, [0.7, 0.7], False, 2),
        (4, [0.1, 0.1, 0.1, 0.1], False, 1),
        (1, [0.0], False, 0),  # Ray applies the lower bound
        (1, [0.0], True, 1),
        (0, [], False, 0),
        (0, [], True, 1),
        (3, [], False, 3),  # they start
    ],
)
def test_autoscaling_policy(
    current: int, busy: list[float], is_awaited: bool, expected: int
) -> None:
    assert count_replicas(current, busy, 0.7, is_awaited) == expected
