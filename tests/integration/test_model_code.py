"""Models that ship code under the same module names: each runs as it does alone in a process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from support.mlflow_registry import MLflowRegistry
from support.model_code import change_code, model_options, save_model, save_plain, serve_model
from support.repository import tensor
from support.server import Serve, Server, create_client, run_mlserver

# MLflow advises type hints.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROW = [tensor("x", [1.0], "FP64", [1, 1])]
HIDING = "IniConfig = 'of the model'\n"
LOADS = "/v2/repository/models/{}/load"
OWN_RUNTIME = "from mlserver_mlflow import MLflowRuntime\n\n\nclass Own(MLflowRuntime):\n    pass\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models by number, saved once. Read-only."""
    folder = tmp_path_factory.mktemp("models-with-code")
    save_model(folder / "1", 1)
    save_model(folder / "2", 2, "script")
    save_model(folder / "3", 3)
    save_model(folder / "hiding", 1, extra={"iniconfig.py": HIDING})
    save_plain(folder / "plain", "import iniconfig\nreturn [str(iniconfig.IniConfig)]")
    return folder


def answer(server: Server, model: str, version: str | None = None) -> list[object]:
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
    response = server.post(f"{path}/infer", {"inputs": ROW})
    assert response.status_code == 200, response.text
    values = list(dict.fromkeys(response.json()["outputs"][0]["data"]))
    scored = server.post("/invocations", {"inputs": [[1.0]]}) if model == "only" else None
    assert scored is None or list(dict.fromkeys(scored.json()["predictions"])) == values
    return values


@pytest.mark.slow
def test_models_and_versions_side_by_side(serve: Serve, saved: Path, tmp_path: Path) -> None:
    split = {"extra": {"traffic": {"weights": {"1": 100}, "shadow": "2"}}}
    serve_model(tmp_path / "a1", saved / "1", "a", "1", parameters=split)
    serve_model(tmp_path / "a2", saved / "2", "a", "2")
    serve_model(tmp_path / "b", saved / "3", "b", implementation="own_runtime.Own")
    (tmp_path / "b" / "own_runtime.py").write_text(OWN_RUNTIME)
    server = serve(tmp_path, workers=2)
    for _ in range(4):  # requests alternate between the workers of a pool
        assert answer(server, "a", "1") == [1]
        assert answer(server, "a", "2") == [2]
        assert answer(server, "b") == [3]
    assert answer(server, "a") == [1]
    metrics = create_client(server.metrics_url)
    compared = 'model_shadow_requests_total{model="a",outcome="different",version="2"}'
    server.wait(lambda: compared in metrics.get("/metrics").text, "the shadow was compared")
    metrics.close()
    server.wait_for_line(
        "Model 'a': runs in a worker pool of its own, since it ships code "
        "(prep.py, team/, team_loader.py)"
    )
    server.wait_for_line("Model 'b': runs in a worker pool of its own")


@pytest.mark.slow
def test_http_workers_run_the_same_code(serve: Serve, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "1", tmp_path / "models" / "1")
    serve_model(tmp_path / "a", tmp_path / "models" / "1", "a")
    serve_model(tmp_path / "b", saved / "2", "b")
    server = serve(tmp_path, workers=1, env={"MLSERVER_HTTP_WORKERS": "2"})
    for right in (1, 7):
        for _ in range(8):  # each connection may be accepted by another process
            with create_client(server.url) as client:
                for name, number in (("a", right), ("b", 2)):
                    response = client.post(
                        f"/v2/models/{name}/infer", content=json.dumps({"inputs": ROW})
                    )
                    assert set(response.json()["outputs"][0]["data"]) == {number}
        change_code(tmp_path / "models" / "1", 7)
        assert server.post(LOADS.format("a")).status_code == 200


def test_loads_of_changed_files(serve: Serve, saved: Path, tmp_path: Path) -> None:
    """Within one second and with the same file size, so that a .pyc file would look current."""
    model = tmp_path / "models" / "only"
    shutil.copytree(saved / "1", model)
    serve_model(tmp_path / "only", model, "only")
    server = serve(tmp_path, workers=1)
    assert answer(server, "only") == [1]
    change_code(model, 4)
    assert server.post(LOADS.format("only")).status_code == 200
    assert answer(server, "only") == [4]
    change_code(model, 5)
    assert server.post("/v2/repository/models/only/unload").status_code == 200
    assert server.post(LOADS.format("only")).status_code == 200
    assert answer(server, "only") == [5]
    assert len(server.workers) == 2, (
        "the pools of replaced loads have ended: the default pool and one more are left"
    )
    assert not list((model / "code").rglob("__pycache__"))


@pytest.mark.slow
def test_code_that_hides_an_installed_package(serve: Serve, saved: Path, tmp_path: Path) -> None:
    serve_model(tmp_path / "hiding", saved / "hiding", "hiding")
    serve_model(tmp_path / "plain", saved / "plain", "plain")
    server = serve(tmp_path, workers=1)
    assert answer(server, "hiding") == [1]
    assert answer(server, "plain") == ["<class 'iniconfig.IniConfig'>"]
    assert "Model 'plain': runs in" not in server.log


@pytest.mark.slow
def test_groups_share_equal_code_only(serve: Serve, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "1", tmp_path / "models" / "1")
    for name, uri in (("a", saved / "1"), ("b", tmp_path / "models" / "1"), ("c", saved / "2")):
        serve_model(tmp_path / name, uri, name, parameters={"inference_pool_gid": "team"})
    server = serve(tmp_path, workers=1)
    assert [answer(server, name) for name in "abc"] == [[1], [1], [2]]
    assert len(server.workers) == 3, "the default pool, one for a and b, one for c"
    change_code(tmp_path / "models" / "1", 6)
    assert server.post(LOADS.format("b")).status_code == 200
    assert [answer(server, name) for name in "abc"] == [[1], [6], [2]]
    before = server.workers
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    # Until the server has noticed the deaths, the models still count as ready.
    server.wait(
        lambda: str(server.log).count("ended unexpectedly") >= len(before), "the deaths are logged"
    )
    for name in "abc":
        server.wait_until(f"/v2/models/{name}/ready")
    assert [answer(server, name) for name in "abc"] == [[1], [6], [2]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's registry
def test_an_alias_that_moves(serve: Serve, tmp_path: Path) -> None:
    """The code is known only after the download, so the worker requests a pool of its own."""
    registry = MLflowRegistry(tmp_path)
    for number in (1, 2):
        with model_options(tmp_path / str(number), number) as options:
            registry.add("team", number, options)
    registry.point("team", "champion", 1)
    following = {
        "uri": "models:/team@champion",
        "extra": {"follow": 0.3, "cache_dir": str(tmp_path / "cache")},
    }
    serve_model(tmp_path / "repository" / "team", "", "team", parameters=following)
    server = serve(tmp_path / "repository", workers=2, env=registry.env)
    assert answer(server, "team") == [1]
    registry.point("team", "champion", 2)
    server.wait(lambda: answer(server, "team") == [2], "version 2 answered")
    assert server.get("/v2/models/team").json()["parameters"]["source"] == "models:/team/2"
    assert str(server.log).count("Model 'team': runs in a worker pool of its own") == 2


@pytest.mark.slow
def test_changed_script_of_a_model_from_code(serve: Serve, tmp_path: Path) -> None:
    model = save_plain(tmp_path / "models" / "only", "return [1]")
    serve_model(tmp_path / "only", model, "only")
    server = serve(tmp_path, workers=1)
    assert answer(server, "only") == [1]
    script = model / "script-of-only.py"
    script.write_text(script.read_text().replace("return [1]", "return [2]"))
    assert server.post(LOADS.format("only")).status_code == 200
    assert answer(server, "only") == [2]
    script.write_text(script.read_text().replace("mlflow.models.set_model(Plain())", ""))
    assert "set_model" in server.post(LOADS.format("only")).json()["error"]
    assert answer(server, "only") == [2]


# -- in the server's own process --


@pytest.fixture(scope="module")
def inline(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models that are not loaded yet, in a server without workers."""
    folder = tmp_path_factory.mktemp("inline")
    shutil.copytree(saved / "1", folder / "models" / "1")
    serve_model(folder / "a", folder / "models" / "1", "a")
    serve_model(folder / "equal", saved / "1", "equal")
    serve_model(folder / "b", saved / "2", "b")
    serve_model(folder / "hiding", saved / "hiding", "hiding")
    env = {"MLSERVER_LOAD_MODELS_AT_STARTUP": "false"}
    with Server(folder, workers=0, env=env, tracebacks=True) as server:
        yield server


@pytest.fixture
def empty(inline: Server) -> Iterator[Server]:
    yield inline
    for model in inline.post("/v2/repository/index", {"ready": True}).json():
        assert inline.post(f"/v2/repository/models/{model['name']}/unload").status_code == 200


def load(server: Server, name: str) -> str:
    """The error of a load, "" without one."""
    response = server.post(LOADS.format(name))
    return "" if response.status_code == 200 else response.json()["error"]


def test_inline_other_code_of_one_name_is_rejected(empty: Server) -> None:
    assert load(empty, "b") == ""
    assert answer(empty, "b") == [2]
    refusal = load(empty, "a")
    assert "a module 'prep', which model b has too, with other content" in refusal
    assert refusal.endswith("set 'parallel_workers' to 1 or more")
    assert answer(empty, "b") == [2]
    assert empty.post("/v2/repository/models/b/unload").status_code == 200
    assert load(empty, "a") == ""
    assert answer(empty, "a") == [1]


def test_inline_equal_code_is_loaded(empty: Server) -> None:
    assert [load(empty, name) for name in ("a", "equal", "a")] == ["", "", ""]
    assert [answer(empty, name) for name in ("a", "equal")] == [[1], [1]]


def test_inline_changed_files_are_rejected_until_unloaded(empty: Server, saved: Path) -> None:
    model = empty.folder / "models" / "1"
    assert load(empty, "a") == ""
    assert answer(empty, "a") == [1]
    change_code(model, 8)
    try:
        assert "which the loaded version of this model has too" in load(empty, "a")
        assert answer(empty, "a") == [1]
        assert empty.post("/v2/repository/models/a/unload").status_code == 200
        assert load(empty, "a") == ""
        assert answer(empty, "a") == [8]
    finally:
        change_code(model, 1)


def test_inline_hiding_an_installed_package_is_rejected(empty: Server) -> None:
    assert "a module 'iniconfig', which is also an installed module" in load(empty, "hiding")


# -- the command line --


@pytest.mark.slow
def test_check_of_a_folder(saved: Path, tmp_path: Path) -> None:
    """The shape of the response shows which code ran."""
    for number in (1, 2):
        text = "def _load_pyfunc(path):\n    import rows\n    return rows\n"
        rows = f"def predict(data, params=None):\n    return list(range({number}))\n"
        sources = tmp_path / "sources" / str(number)
        sources.mkdir(parents=True)
        (sources / "rows_loader.py").write_text(text)
        (sources / "rows.py").write_text(rows)
        mlflow.pyfunc.save_model(
            tmp_path / "models" / str(number),
            loader_module="rows_loader",
            code_paths=[str(path) for path in sources.iterdir()],
            pip_requirements=[],
        )
        folder = tmp_path / "repository" / str(number)
        serve_model(folder, tmp_path / "models" / str(number), f"m{number}")
        (folder / "sample-request.json").write_text(json.dumps({"inputs": ROW}))
    code, printed = run_mlserver("check", str(tmp_path / "repository"))
    assert code == 0, printed
    assert "INT64[1, 1]" in printed, printed
    assert "INT64[2, 1]" in printed, printed
