"""CloudEvents and Server-Timing as text."""

from __future__ import annotations

from pathlib import Path

from mlserver.pipeline import Timings
from mlserver.wire.headers import CloudEvents, get_namespace, server_timing


def test_response_events() -> None:
    assert CloudEvents("mlserver").response("iris", "42") == {
        "Ce-Specversion": "0.3",
        "Ce-Source": "io.seldon.serving.deployment.mlserver",
        "Ce-Type": "io.seldon.serving.inference.response",
        "Ce-Modelid": "iris",
        "Ce-Inferenceservicename": "mlserver",
        "Ce-Endpoint": "iris",
        "Ce-Id": "42",
        "Ce-Requestid": "42",
    }


def test_namespace_and_request_type() -> None:
    events = CloudEvents("mlserver", "prod").request("iris", "")

    assert events["Ce-Source"] == "io.seldon.serving.deployment.mlserver.prod"
    assert events["Ce-Namespace"] == "prod"
    assert events["Ce-Type"] == "io.seldon.serving.inference.request"
    assert "Ce-Id" not in events


def test_each_answer_has_headers_of_its_own() -> None:
    events = CloudEvents("mlserver")
    events.response("iris", None)["Ce-Modelid"] = "changed"

    assert events.response("iris", None)["Ce-Modelid"] == "iris"


def test_namespace_file(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    assert get_namespace(str(file)) is None
    file.write_text("prod\n")
    assert get_namespace(str(file)) == "prod"


def test_server_timing_is_in_milliseconds() -> None:
    timings = Timings(
        queue_ns=1_500_000,
        model_ns=20_000_000,
        transport_ns=250_000,
        batch_requests=3,
        batch_rows=12,
    )

    assert server_timing(timings, 31_000) == (
        'queue;dur=1.500, batch;desc="3 requests, 12 rows", model;dur=20.000, transport;dur=0.250, codec;dur=0.031'
    )
