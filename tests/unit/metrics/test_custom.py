"""Custom metrics of models: registered, logged, timed, sent by a worker, removed with the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mlserver import metrics
from mlserver.context import model_context
from mlserver.metrics import InvalidMetric, InvalidModelContext, Sample
from mlserver.settings import ModelParameters, ModelSettings

WINE = ModelSettings(name="wine", implementation="a.B", parameters=ModelParameters(version="2"))
PLAIN = ModelSettings(name="plain", implementation="a.B")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    metrics.set_sink(None)
    for model in (WINE, PLAIN):
        metrics.forget(model.name, model.version)


def value(series: str, model: ModelSettings = WINE, **labels: str) -> float | None:
    all_labels = {"model_name": model.name, "model_version": model.version or "", **labels}
    sample: float | None = metrics.REGISTRY.get_sample_value(series, all_labels)
    return sample


def test_log_observes_for_the_running_model() -> None:
    with model_context(WINE):
        metrics.log(t_logged=3, t_other=0.5)
        metrics.log(t_logged=4)
    with model_context(PLAIN):
        metrics.log(t_logged=1)
    assert (value("t_logged_count"), value("t_logged_sum")) == (2, 7)
    assert (value("t_other_count"), value("t_other_sum")) == (1, 0.5)
    assert value("t_logged_sum", PLAIN) == 1
    assert value("t_logged_bucket", le="2.5") == 0
    assert value("t_logged_bucket", le="5.0") == 2
    assert value("t_logged_bucket", le="+Inf") == 2


def test_register_returns_the_same_histogram() -> None:
    first = metrics.register("t_registered", "What it is")
    assert metrics.register("t_registered", "Other words") is first
    with model_context(WINE):
        first.observe(1)
        metrics.log(t_registered=1)
    assert value("t_registered_count") == 2
    (family,) = [each for each in metrics.REGISTRY.collect() if each.name == "t_registered"]
    assert (family.documentation, family.type) == ("What it is", "histogram")


def test_labels_work_outside_of_a_model_as_well() -> None:
    histogram = metrics.register("t_labels", "x")
    histogram.labels("wine", "2").observe(1)
    histogram.labels(model_name="wine", model_version="2").observe(2)
    assert value("t_labels_sum") == 3
    for wrong in ({"model_name": "wine"}, {"model_name": "wine", "colour": "red"}):
        with pytest.raises(ValueError, match="the labels are"):
            histogram.labels(**wrong)
    with pytest.raises(ValueError, match="the labels are"):
        histogram.labels("wine")


def test_time() -> None:
    histogram = metrics.register("t_timed", "x")
    with model_context(WINE), histogram.time():
        pass
    assert value("t_timed_count") == 1
    assert value("t_timed_bucket", le="10.0") == 1


def test_outside_of_a_model_is_an_error() -> None:
    with pytest.raises(InvalidModelContext) as caught:
        metrics.log(t_outside=1)
    assert caught.value.status_code == 500
    with pytest.raises(InvalidModelContext):
        metrics.register("t_outside", "x").time()


@pytest.mark.parametrize(
    "name, all_labels", [("t bad", 1), ("1t", 1), ("t-x", 1), ("t_text", "many"), ("t_none", None)]
)
def test_invalid_names_and_values(name: str, all_labels: Any) -> None:
    with (
        model_context(WINE),
        pytest.raises(InvalidMetric, match=f"Metric '{name}' cannot be logged"),
    ):
        metrics.log(**{name: all_labels})


def test_a_sink_gets_the_samples_and_receive_adds_them() -> None:
    sent: list[Sample] = []
    metrics.set_sink(sent.append)
    metrics.register("t_sent", "Words").labels("wine", "2").observe(1)
    with model_context(PLAIN):
        metrics.log(t_sent=2)
    assert sent == [
        Sample("t_sent", "Words", "wine", "2", 1.0),
        Sample("t_sent", "Words", "plain", "", 2.0),
    ]
    assert value("t_sent_count") is None
    for each in sent:
        metrics.receive(Sample._make(list(each)))
    assert (value("t_sent_sum"), value("t_sent_sum", PLAIN)) == (1, 2)


def test_forget() -> None:
    with model_context(WINE):
        metrics.log(t_forgotten=1)
    metrics.forget("wine", "2")
    assert value("t_forgotten_count") is None


def test_logging_in_a_worker_needs_no_prometheus_client() -> None:
    code = (
        "import sys\nfrom mlserver import metrics\nfrom mlserver.context import model_context\n"
        "from mlserver.settings import ModelSettings\nsent = []\nmetrics.set_sink(sent.append)\n"
        "with model_context(ModelSettings(name='m', implementation='a.B')): metrics.log(x=1)\n"
        "assert len(sent) == 1 and 'prometheus_client' not in sys.modules, sent"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
