"""Published runtimes of MLServer 1.x, unchanged, in one process and with workers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.published import IndexUnreachable, install, train
from support.repository import tensor, write_settings
from support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IMPLEMENTATIONS = {
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "catboost": "mlserver_catboost.CatboostModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
}


@pytest.fixture(scope="module")
def packages() -> Path:
    try:
        return install()
    except IndexUnreachable as error:
        pytest.skip(
            "the published runtimes are not installed and the package index cannot be reached: "
            f"{error}"
        )


@pytest.fixture(scope="module")
def trained(
    packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("published")
    return folder, train(folder, packages)


@pytest.fixture(scope="module", params=[0, 2], ids=["in-process", "two-workers"])
def server(
    request: pytest.FixtureRequest,
    packages: Path,
    trained: tuple[Path, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder, models = tmp_path_factory.mktemp("repository"), trained[0]
    for name in ("lightgbm", "catboost", "xgboost"):
        _write(folder / name, name, models / name)
    for version in ("1", "2"):
        _write(
            folder / "sklearn" / version, "sklearn", models / f"sklearn-{version}", version=version
        )
    _write(
        folder / "batched", "sklearn", models / "sklearn-1", max_batch_size=8, max_batch_time=0.05
    )
    with Server(folder, workers=request.param, env={"PYTHONPATH": str(packages)}) as running:
        yield running


def _write(
    folder: Path, kind: str, model: Path, version: str | None = None, **settings: Any
) -> None:
    parameters = {"uri": str(model)} | ({"version": version} if version else {})
    name = "sklearn" if version else folder.name
    write_settings(
        folder, name=name, implementation=IMPLEMENTATIONS[kind], parameters=parameters, **settings
    )


@pytest.fixture
def answers(trained: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return trained[1]


def rows(values: list[list[float]], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return tensor(
        "features",
        [value for row in values for value in row],
        datatype,
        [len(values), len(values[0])],
        **more,
    )


def outputs(response: Any) -> dict[str, list[Any]]:
    """The outputs of a response by name, as lists of rows, or of values for one column."""
    assert response.status_code == 200, response.text
    actual = {}
    for output in response.json()["outputs"]:
        data, width = output["data"], output["shape"][-1] if len(output["shape"]) > 1 else 1
        actual[output["name"]] = (
            data if width == 1 else [data[at : at + width] for at in range(0, len(data), width)]
        )
    return actual


@pytest.mark.parametrize("name", ["sklearn", "lightgbm", "catboost", "xgboost"])
@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_predict(server: Server, answers: dict[str, Any], name: str, datatype: str) -> None:
    expected = answers["sklearn-2" if name == "sklearn" else name]
    (values,) = outputs(server.infer(name, [rows(answers["rows"], datatype)])).values()
    for got, reference in zip(values, expected, strict=True):
        assert got == pytest.approx(reference, rel=1e-6)


@pytest.mark.parametrize("name", ["sklearn", "xgboost"])
def test_a_requested_predict_proba_output(
    server: Server, answers: dict[str, Any], name: str
) -> None:
    response = server.infer(
        name, [rows(answers["rows"])], outputs=[{"name": "predict_proba"}, {"name": "predict"}]
    )
    actual = outputs(response)
    assert list(actual) == ["predict_proba", "predict"]
    key = "sklearn-2" if name == "sklearn" else name
    assert actual["predict"] == answers[key]
    for got, reference in zip(actual["predict_proba"], answers[f"{key}-proba"], strict=True):
        assert got == pytest.approx(reference, rel=1e-5)


def test_an_output_that_the_runtime_does_not_know(server: Server, answers: dict[str, Any]) -> None:
    response = server.infer("sklearn", [rows(answers["rows"])], outputs=[{"name": "zz"}])
    assert response.status_code == 400
    assert "only supports 'predict', 'predict_proba' and 'transform'" in response.json()["error"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_versions(server: Server, answers: dict[str, Any], version: str) -> None:
    body = {"inputs": [rows(answers["rows"])]}
    response = server.post(f"/v2/models/sklearn/versions/{version}/infer", body)
    assert outputs(response) == {"predict": answers[f"sklearn-{version}"]}
    assert response.json()["model_version"] == version


def test_requests_in_one_batch_get_their_own_rows(server: Server, answers: dict[str, Any]) -> None:
    with ThreadPoolExecutor(5) as callers:
        responses = list(
            callers.map(lambda row: server.infer("batched", [rows([row])]), answers["rows"] * 4)
        )
    assert [outputs(response)["predict"] for response in responses] == [
        [label] for label in answers["sklearn-1"] * 4
    ]


def test_a_dataframe(server: Server, answers: dict[str, Any]) -> None:
    columns = [
        tensor(f"c{at}", [row[at] for row in answers["rows"]], "FP64", [len(answers["rows"]), 1])
        for at in range(4)
    ]
    response = server.infer("sklearn", columns, parameters={"content_type": "pd"})
    assert outputs(response)["predict"] == answers["sklearn-2"]


def test_ready_and_metadata(server: Server) -> None:
    for name in ("sklearn", "lightgbm", "catboost", "xgboost", "batched"):
        assert server.get(f"/v2/models/{name}/ready").status_code == 200
        assert server.get(f"/v2/models/{name}").json()["name"] == name
