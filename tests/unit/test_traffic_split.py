"""Traffic split: its settings, and the selected versions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.registry.traffic_split import TrafficSplit, read_traffic_split
from mlserver.settings import ModelParameters, ModelSettings


def read(traffic: Any) -> TrafficSplit | None:
    parameters = ModelParameters(extra={"traffic": traffic})
    return read_traffic_split(
        ModelSettings(name="m", implementation="mlserver.MLModel", parameters=parameters)
    )


def test_settings() -> None:
    assert read_traffic_split(ModelSettings(name="m", implementation="mlserver.MLModel")) is None
    assert read(None) is None
    config = {"weights": {"1": 90, "2": 10}, "sticky_header": "X-User", "shadow": "3"}
    assert read(config) == TrafficSplit((("1", 90.0), ("2", 10.0)), "x-user", "3")
    assert read({"shadow": "3"}) == TrafficSplit(shadow="3")


@pytest.mark.parametrize(
    "config, text",
    [
        ([], "traffic: expected an object"),
        ({}, "'weights', 'shadow' or both"),
        ({"weight": {}}, "received 'weight'"),
        ({"weights": {}}, "traffic.weights: expected an object of versions"),
        ({"weights": {"1": -1}}, "weights of version '1': expected a number from 0"),
        ({"weights": {"1": True}}, "weights of version '1'"),
        ({"weights": {"1": float("nan")}}, "weights of version '1'"),
        ({"weights": {"1": 0}}, "at least one weight above 0"),
        ({"weights": {"1": 1}, "shadow": "1"}, "shadow: expected a version without a weight"),
        ({"weights": {"1": 1}, "shadow": 3}, "shadow: expected a text"),
        ({"weights": {"1": 1}, "sticky_header": ""}, "sticky_header: expected a text"),
    ],
)
def test_invalid_settings(config: Any, text: str) -> None:
    with pytest.raises(MLServerError, match=text):
        read(config)


def test_shares() -> None:
    split = TrafficSplit((("1", 9), ("2", 1), ("3", 0)), "x-user")
    counts = Counter(split.choose(("1", "2", "3"), f"user {number}") for number in range(2000))
    assert set(counts) == {"1", "2"}
    assert 100 < counts["2"] < 320
    assert {split.choose(("1", "2"), None) for _ in range(500)} == {"1", "2"}


def test_equal_keys_select_the_same_version() -> None:
    split = TrafficSplit((("1", 1), ("2", 1), ("3", 1)), "x-user")
    keys = [f"user {number}" for number in range(100)]
    before = {key: split.choose(("1", "2", "3"), key) for key in keys}
    assert before == {key: split.choose(("3", "2", "1"), key) for key in keys}
    without = {key: split.choose(("1", "2"), key) for key in keys}
    assert all(without[key] == before[key] for key in keys if before[key] != "3")
    assert {without[key] for key in keys if before[key] == "3"} == {"1", "2"}
    assert split.choose((), "user") is None
