"""Warnings about requirements: those of MLflow, without its scan if there is nothing to report."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from mlflow import pyfunc as mlflow_pyfunc
from mlflow.exceptions import MlflowException
from mlflow.utils import requirements_utils

from mlserver_mlflow.loading import requirements_check
from mlserver_mlflow.loading.pyfunc import load_model
from mlserver_mlflow.loading.requirements_check import DeferredWarnings, is_satisfied
from support.models import save_function

pytestmark = pytest.mark.filterwarnings("ignore")
BODY = """
    def predict(self, context, model_input, params=None):
        return model_input
"""
TIME_LIMIT = 30.0


class Records(logging.Handler):
    """The warnings that MLflow logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.arrived = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if "mismatches" in self.texts[-1]:
            self.arrived.set()


@pytest.fixture
def records() -> Iterator[Records]:
    handler, logger = Records(), logging.getLogger("mlflow")
    level = logger.level  # the fixture `mlflow_models` of other tests has changed it
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_function(folder, BODY, [1.0], [1.0])
    return folder


@pytest.mark.parametrize(
    "line",
    [
        f"numpy=={numpy.__version__}",
        "numpy>=1",
        "numpy",
        "NumPy!=0.1",
        "mlflow",
        "mlflow>=2.15",
        "./wheels/some.whl",
        "git+https://example.com/some.git",
        "no-such-package==1; python_version < '3'",
        "numpy<1",
        "mlflow==0.1",
        "no-such-package-of-anyone==1.0",
        "scikit_learn",
    ],
)
def test_what_is_satisfied_is_so_for_mlflow(line: str) -> None:
    reported = requirements_utils._check_requirement_satisfied(line)
    assert is_satisfied(line) == (reported is None)


@pytest.mark.parametrize("line", ["pyspark==3.5.0", "mlflow[gateway]"])
def test_special_requirements_are_left_to_mlflow(line: str) -> None:
    assert not is_satisfied(line)


def test_nothing_is_scanned_without_a_mismatch(
    model: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[list[str]] = []
    monkeypatch.setattr(requirements_check, "_warn_of_mismatches", scanned.append)
    later = DeferredWarnings(quiet_seconds=0.0)
    monkeypatch.setattr(requirements_check, "_later", later)
    (model / "requirements.txt").write_text(f"mlflow\nnumpy=={numpy.__version__}\n")
    load_model(str(model))
    assert not later._waiting
    assert not scanned
    assert not records.texts


def test_a_mismatch_is_reported_with_mlflows_text_after_the_load(
    model: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements_check, "_later", DeferredWarnings(quiet_seconds=0.0))
    (model / "requirements.txt").write_text("mlflow\nnumpy<1\nno-such-package==3\n")
    mlflow_pyfunc.load_model(str(model))
    expected = list(records.texts)
    assert len(expected) == 1
    records.texts.clear()
    records.arrived.clear()
    load_model(str(model))
    assert records.arrived.wait(TIME_LIMIT)
    assert records.texts == expected


def test_a_mismatch_is_reported_before_the_error_of_a_load(model: Path, records: Records) -> None:
    (model / "requirements.txt").write_text("numpy<1\n")
    mlmodel = model / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("  python_function:", "  other_flavor:"))
    with pytest.raises(MlflowException):
        load_model(str(model))
    assert "numpy (current:" in records.texts[-1]


def test_another_python_version_is_reported(model: Path, records: Records) -> None:
    mlmodel = model / "MLmodel"
    text = re.sub(
        r"^ +python_version: .*", "    python_version: 3.6.1", mlmodel.read_text(), flags=re.M
    )
    mlmodel.write_text(text)
    mlflow_pyfunc.load_model(str(model))
    expected = list(records.texts)
    assert "3.6.1" in expected[0]
    records.texts.clear()
    load_model(str(model))
    assert records.texts == expected


def test_lists_added_during_the_pause_are_reported_once_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[list[str]] = []
    done = threading.Event()

    def report(requirements: list[str]) -> None:
        reported.append(requirements)
        if len(reported) == 3:
            done.set()

    monkeypatch.setattr(requirements_check, "_warn_of_mismatches", report)
    later = DeferredWarnings(quiet_seconds=0.01)
    for number in range(3):
        later.add([str(number)])
        time.sleep(0)
    assert done.wait(TIME_LIMIT)
    assert sorted(reported) == [["0"], ["1"], ["2"]]
