"""The helpers of the public API for runtimes."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import uuid
from pathlib import Path

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.errors import InvalidModelURI
from mlserver.types import InferenceRequest, InferenceResponse, Parameters
from mlserver.utils import (
    extract_headers,
    generate_uuid,
    get_model_uri,
    get_wrapped_method,
    insert_headers,
    schedule_with_callback,
    to_absolute_path,
)


def settings(uri: str | None) -> ModelSettings:
    return ModelSettings(name="m", implementation=MLModel, parameters={"uri": uri})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.bin").touch()
    (tmp_path / "model.json").touch()
    return tmp_path


async def test_uri_of_a_file(folder: Path) -> None:
    path = str(folder / "model.bin")
    assert await get_model_uri(settings(path)) == path
    assert await get_model_uri(settings(f"file:{path}")) == path
    assert await get_model_uri(settings(f"file://{path}")) == path


async def test_uri_of_a_folder(folder: Path) -> None:
    assert await get_model_uri(settings(str(folder)), ["none", "model.json", "model.bin"]) == str(
        folder / "model.json"
    )
    assert await get_model_uri(settings(f"{folder}/../{folder.name}/")) == str(folder)
    assert await get_model_uri(settings(str(folder)), ["none"]) == str(folder)


async def test_relative_uris_start_at_the_settings_file(folder: Path) -> None:
    source = folder / "model-settings.json"
    source.write_text(
        json.dumps(
            {
                "name": "m",
                "implementation": "mlserver.MLModel",
                "parameters": {"uri": "./model.bin"},
            }
        )
    )
    loaded = ModelSettings.parse_file(str(source))
    assert await get_model_uri(loaded) == str(folder / "model.bin")
    assert to_absolute_path(loaded, "sub/../x") == str(folder / "x")
    assert to_absolute_path(loaded, "/elsewhere") == "/elsewhere"


@pytest.mark.parametrize(
    "uri", ["s3://bucket/model", "models:/wine@champion", "runs:/1/model", "https://host/m"]
)
async def test_addresses_are_returned_unchanged(uri: str) -> None:
    assert await get_model_uri(settings(uri), ["model.bin"]) == uri


async def test_missing_files(folder: Path) -> None:
    with pytest.raises(InvalidModelURI, match=r"Invalid URI specified for model m \(.*nothing\)"):
        await get_model_uri(settings(str(folder / "nothing")))
    for bare in (settings(None), ModelSettings(name="m", implementation=MLModel)):
        with pytest.raises(
            InvalidModelURI,
            match=r"^Invalid URI specified for model m: 'parameters.uri' is not set$",
        ):
            await get_model_uri(bare)


def test_uuids_differ() -> None:
    first, second = generate_uuid(), generate_uuid()
    assert first != second
    assert uuid.UUID(first).version == 4


def test_insert_headers(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("mlserver"), "propagate", True)
    request = insert_headers(InferenceRequest(inputs=[]), {"a": "1"})
    assert request.parameters == Parameters(headers={"a": "1"})
    assert not caplog.records
    insert_headers(request, {"b": "2"})
    assert request.parameters == Parameters(headers={"b": "2"})
    assert "replaced" in caplog.text


def test_extract_headers() -> None:
    response = InferenceResponse(
        model_name="m", outputs=[], parameters=Parameters(headers={"a": "1"}, k=1)
    )
    assert extract_headers(response) == {"a": "1"}
    assert extract_headers(response) is None
    assert response.parameters is not None
    assert response.parameters.model_dump() == {"k": 1}
    assert extract_headers(InferenceResponse(model_name="m", outputs=[])) is None


def test_get_wrapped_method() -> None:
    def inner() -> None: ...

    @functools.wraps(inner)
    def middle() -> None: ...

    @functools.wraps(middle)
    def outer() -> None: ...

    assert get_wrapped_method(outer) is inner
    assert get_wrapped_method(inner) is inner


async def test_schedule_with_callback() -> None:
    done = asyncio.Event()

    async def work() -> int:
        return 7

    task = schedule_with_callback(work(), lambda finished: done.set())
    await done.wait()
    assert task.result() == 7
