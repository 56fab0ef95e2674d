"""CloudEvents headers of requests and responses."""

from __future__ import annotations

from pathlib import Path

from mlserver.cloudevents import CloudEvents, get_namespace


def test_response_headers() -> None:
    assert CloudEvents("mlserver").build_response_headers("iris", "42") == {
        "Ce-Specversion": "0.3",
        "Ce-Source": "io.seldon.serving.deployment.mlserver",
        "Ce-Type": "io.seldon.serving.inference.response",
        "Ce-Modelid": "iris",
        "Ce-Inferenceservicename": "mlserver",
        "Ce-Endpoint": "iris",
        "Ce-Id": "42",
        "Ce-Requestid": "42",
    }


def test_request_headers_with_a_namespace() -> None:
    events = CloudEvents("mlserver", "prod").build_request_headers("iris", "")

    assert events["Ce-Source"] == "io.seldon.serving.deployment.mlserver.prod"
    assert events["Ce-Namespace"] == "prod"
    assert events["Ce-Type"] == "io.seldon.serving.inference.request"
    assert "Ce-Id" not in events


def test_callers_may_change_the_returned_headers() -> None:
    events = CloudEvents("mlserver")
    events.build_response_headers("iris", None)["Ce-Modelid"] = "changed"

    assert events.build_response_headers("iris", None)["Ce-Modelid"] == "iris"


def test_namespace_file(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    assert get_namespace(str(file)) is None
    file.write_text("prod\n")
    assert get_namespace(str(file)) == "prod"
