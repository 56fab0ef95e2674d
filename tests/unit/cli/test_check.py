"""`mlserver check`: loads every model in a worker, runs inference, and fails if one model fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlserver.cli.requirements import find_unmet
from support.models import Models
from support.repository import tensor, write_model
from support.server import run_mlserver
from support.slow import slow

DYING = """
import os

from mlserver import MLModel


class Dying(MLModel):
    async def load(self):
        os._exit(3)
"""
SLOW = """
import asyncio

from mlserver import MLModel


class Slow(MLModel):
    async def load(self):
        await asyncio.Event().wait()
"""


PICKY = """
from mlserver import MLModel
from mlserver.errors import InferenceError


class Picky(MLModel):
    async def predict(self, payload):
        if self.version == "raises":
            raise ValueError("no zeros")
        raise InferenceError("no zeros")
"""
FATAL = """
import os

from mlserver import MLModel


class Fatal(MLModel):
    async def predict(self, payload):
        os._exit(3)
"""


def block(text: str, name: str) -> str:
    """Return the printed lines of one model."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{name}: "))
    end = next(
        (index for index in range(start + 1, len(lines)) if not lines[index].startswith("  ")),
        len(lines),
    )
    return "\n".join(lines[start:end])


def test_a_folder_of_good_and_bad_models(tmp_path: Path) -> None:
    named = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    write_model(
        tmp_path / "synthetic", inputs=[named, {"name": "s", "datatype": "BYTES", "shape": [-1]}]
    )
    sampled = write_model(tmp_path / "sampled", "Sum", parameters={"version": "v1"})
    (sampled / "sample-request.json").write_text(json.dumps({"inputs": [tensor("x", [1.0, 2.0])]}))
    write_model(tmp_path / "silent")
    write_model(tmp_path / "broken", "Broken")
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "model-settings.json").write_text("{")
    wrong = write_model(tmp_path / "wrong-sample")
    (wrong / "sample-request.json").write_text('{"inputs": [{"name": "x"}]}')

    code, text = run_mlserver("check", str(tmp_path))
    assert code == 1
    assert "mlserver: 3 of 6 models failed: " in text
    assert "ok\n  loaded in " in block(text, "synthetic")
    assert "inference with synthetic data in" in block(text, "synthetic")
    assert "x FP32[1, 2], s BYTES[1]" in block(text, "synthetic")
    assert "inference with sample-request.json in" in block(text, "sampled (v1)")
    assert "note: no inference: " in block(text, "silent")
    assert "FAILED" in block(text, "broken")
    assert "the weights are missing" in block(text, "broken")
    assert "not valid JSON" in block(text, "unreadable")
    assert "sample-request.json: Invalid inputs[0]" in block(text, "wrong-sample")
    assert "Traceback" not in text
    table = [line.split() for line in text.partition("\n\n")[2].splitlines()[:7]]
    assert table[0] == ["model", "load", "inference", "result"]
    assert {row[0]: row[-1] for row in table[1:]} == {
        "unreadable": "FAILED",
        "synthetic": "ok",
        "sampled": "ok",
        "silent": "note",
        "broken": "FAILED",
        "wrong-sample": "FAILED",
    }


def test_hints_are_those_of_start(tmp_path: Path) -> None:
    write_model(tmp_path / "echo", extra_setting=1)
    (tmp_path / "settings.json").write_text('{"http_port": 1, "grcp_port": 2}')
    code, text = run_mlserver("check", str(tmp_path), env={"MLSERVER_HTTP_PORT": "9"})
    assert code == 0
    assert "hint: MLSERVER_HTTP_PORT has no effect: " in text
    assert "unknown setting 'grcp_port' is ignored; did you mean 'grpc_port'?" in text
    assert "unknown setting 'extra_setting' is ignored" in text


@pytest.mark.slow
def test_unknown_keys_of_extra_are_named(tmp_path: Path) -> None:
    settings = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {}}
    settings["parameters"] = {"extra": {"folow": 5, "_note": "mine"}}
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    code, text = run_mlserver("check", str(tmp_path))
    assert code == 1
    assert "unknown key 'folow' of 'parameters.extra' is ignored; did you mean 'follow'?" in text
    assert "_note" not in text


def test_verbose_prints_the_log_of_a_model(tmp_path: Path) -> None:
    write_model(tmp_path, "Broken")
    assert "Traceback" in run_mlserver("check", str(tmp_path), "--verbose")[1]


def test_a_model_that_exits_its_process(tmp_path: Path) -> None:
    write_model(tmp_path / "dying", "Dying", source=DYING)
    write_model(tmp_path / "echo")
    code, text = run_mlserver("check", str(tmp_path))
    assert code == 1
    assert "FAILED" in block(text, "dying")
    assert "ok" in block(text, "echo")


def test_a_model_that_never_loads(tmp_path: Path) -> None:
    write_model(tmp_path / "slow", "Slow", source=SLOW)
    code, text = run_mlserver("check", str(tmp_path), "--timeout", "0.5")
    assert code == 1
    assert "load exceeded 0.5 s (option --timeout)" in block(text, "slow")


@pytest.mark.parametrize("version", ["raises", slow("refuses")])
def test_a_rejection_of_synthetic_data_is_a_note(tmp_path: Path, version: str) -> None:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    folder = write_model(
        tmp_path / "picky", "Picky", source=PICKY, inputs=inputs, parameters={"version": version}
    )
    code, text = run_mlserver("check", str(tmp_path))
    assert code == 0, text
    assert "note: inference failed for synthetic data: " in text
    assert "no zeros" in text
    assert "1 model: ready to serve" in text
    assert run_mlserver("check", str(tmp_path), "--strict")[0] == 1

    (folder / "sample-request.json").write_text(json.dumps({"inputs": [tensor("x", [1.0])]}))
    code, text = run_mlserver("check", str(tmp_path))
    assert code == 1
    assert "inference failed for sample-request.json: " in block(text, f"picky ({version})")


def test_a_worker_crash_with_synthetic_data_is_a_failure(tmp_path: Path) -> None:
    write_model(
        tmp_path / "fatal",
        "Fatal",
        source=FATAL,
        inputs=[{"name": "x", "datatype": "FP32", "shape": [-1]}],
    )
    code, text = run_mlserver("check", str(tmp_path))
    assert code == 1
    assert "FAILED" in block(text, "fatal")


def test_an_mlflow_model_is_checked_with_its_input_example(models: Models, tmp_path: Path) -> None:
    folder = models.copy("frame", tmp_path / "frame")
    columns = {"columns": ["name", "count", "ratio", "flag"], "data": [["a", 1, 0.5, True]]}
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": columns}))
    (folder / "requirements.txt").write_text("numpy\nno-such-package==1.0\npydantic<2\n")
    code, text = run_mlserver("check", str(folder))
    assert code == 0, text
    assert "inference with its input example in" in text
    assert "note: requirements.txt: no-such-package==1.0 is required, but not installed" in text
    assert "pydantic<2 is required, but " in text
    assert run_mlserver("check", str(folder), "--strict", "--no-predict")[0] == 1


@pytest.mark.slow
def test_a_uri(models: Models, tmp_path: Path) -> None:
    code, text = run_mlserver("check", models["array"].as_uri(), cwd=tmp_path)
    assert code == 0, text
    assert "array: ok" in text


def test_a_folder_of_mlflow_models_without_settings(models: Models, tmp_path: Path) -> None:
    for folder in ("pair/1", "pair/2", "single"):
        models.copy("array", tmp_path / folder)
    code, text = run_mlserver("check", str(tmp_path))
    assert code == 0, text
    assert [line for line in text.splitlines() if line.endswith(": ok")] == [
        "pair (1): ok",
        "pair (2): ok",
        "single: ok",
    ]
    assert "3 models: ready to serve" in text


def test_no_models(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    assert run_mlserver("check", str(tmp_path)) == (1, f"mlserver: {tmp_path}: no models found\n")
    assert run_mlserver("check", str(tmp_path / "none"))[0] == 2


def test_only_requirements_of_this_platform_are_compared(tmp_path: Path) -> None:
    lines = [
        "# a comment",
        "--index-url x",
        "-r other.txt",
        "./folder",
        "nothing-here; python_version < '3'",
        "pydantic>=2  # here",
        "mlserver==0.1",
        "not a requirement at all",
    ]
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    [line] = find_unmet(str(tmp_path / "requirements.txt"))
    assert line.startswith("mlserver==0.1 is required, but 2.")
