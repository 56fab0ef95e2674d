"""Texts of errors: limited length, no paths of the server."""

from __future__ import annotations

import pytest

from mlserver.errors import (
    MAX_MESSAGE_CHARS,
    MLServerError,
    remove_paths,
    serialization_error,
)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[Errno 2] No such file: '/srv/models/model.pkl'", "[Errno 2] No such file: 'model.pkl'"),
        ("cannot open /home/me/x.bin, sorry", "cannot open x.bin, sorry"),
        ("a folder: /srv/models/a/", "a folder: "),
        ("~/models/a", "a"),
        ("two: /a/b and (/c/d/e)", "two: b and (e)"),
        ("https://example.org/a/b stays", "https://example.org/a/b stays"),
        ("no file:///srv/models/a/x.pkl here", "no x.pkl here"),
        ("file://localhost/srv/x.pkl and file:/srv/y.pkl", "x.pkl and y.pkl"),
        ("sqlite:////srv/mlflow/mlflow.db", "mlflow.db"),
        ("s3://bucket/a/b stays", "s3://bucket/a/b stays"),
        ("1/2, a/b/c and ./a/b stay", "1/2, a/b/c and ./a/b stay"),
        ("shape (2, 3) / 4", "shape (2, 3) / 4"),
        ("", ""),
    ],
)  # fmt: skip
def test_absolute_paths_are_reduced_to_their_last_part(text: str, expected: str) -> None:
    assert remove_paths(text) == expected


def test_errors_of_serialization_have_no_paths() -> None:
    error = serialization_error("m", FileNotFoundError(2, "No such file", "/srv/models/m/x.csv"))
    assert error.message.endswith("cannot be serialized: [Errno 2] No such file: 'x.csv'")


def test_long_texts_are_truncated_in_the_middle() -> None:
    message = MLServerError("begin " + "x" * 10_000_000 + " end").message
    assert len(message) <= MAX_MESSAGE_CHARS
    assert message.startswith("begin ")
    assert message.endswith(" end")
    assert MLServerError("x" * MAX_MESSAGE_CHARS).message == "x" * MAX_MESSAGE_CHARS
