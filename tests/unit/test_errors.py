"""Texts of errors: bounded, and without the paths of the server."""

from __future__ import annotations

import pytest

from mlserver.errors import LONGEST, MLServerError, without_paths


@pytest.mark.parametrize(
    "text, expected",
    [
        ("FileNotFoundError: [Errno 2] No such file: '/srv/models/a/model.pkl'", "FileNotFoundError: [Errno 2] No such file: 'model.pkl'"),
        ("cannot open /home/me/x.bin, sorry", "cannot open x.bin, sorry"),
        ("a folder: /srv/models/a/", "a folder: "),
        ("~/models/a", "a"),
        ("two: /a/b and (/c/d/e)", "two: b and (e)"),
        ("https://example.org/a/b stays", "https://example.org/a/b stays"),
        ("s3://bucket/a/b stays", "s3://bucket/a/b stays"),
        ("1/2, a/b/c and ./a/b stay", "1/2, a/b/c and ./a/b stay"),
        ("shape (2, 3) / 4", "shape (2, 3) / 4"),
        ("", ""),
    ],
)  # fmt: skip
def test_paths_are_for_the_log(text: str, expected: str) -> None:
    assert without_paths(text) == expected


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    message = MLServerError("begin " + "x" * 10_000_000 + " end").message
    assert len(message) <= LONGEST
    assert message.startswith("begin ")
    assert message.endswith(" end")
    assert MLServerError("x" * LONGEST).message == "x" * LONGEST
