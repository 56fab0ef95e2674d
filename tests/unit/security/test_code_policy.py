"""The code policy: runtimes, sources and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mlserver.security.code_policy import CodeNotAllowed, CodePolicy, compute_digest
from mlserver.settings import ModelSettings, Settings

FLOW = "mlserver_mlflow.MLflowRuntime"


def model(folder: Path, implementation: str = FLOW, **parameters: Any) -> ModelSettings:
    path = folder / "model-settings.json"
    return ModelSettings.load(
        {"name": "m", "implementation": implementation, "parameters": parameters}, str(path)
    )


def is_allowed(policy: CodePolicy, settings: ModelSettings) -> bool:
    try:
        policy.check(settings)
    except CodeNotAllowed as error:
        return error.status_code != 403 or "allowed_" not in error.message
    return True


def test_everything_is_allowed_by_default(tmp_path: Path) -> None:
    policy = CodePolicy(Settings())
    assert is_allowed(policy, model(tmp_path, "any.Thing", uri="s3://anywhere/x"))
    policy.check_files("m", str(tmp_path), ["model.pkl"])


@pytest.mark.parametrize(
    "implementation, allowed, expected",
    [
        (FLOW, None, True),
        ("other.Model", None, False),
        ("other.Model", ["other.Model"], True),
        ("other:Model", ["other.Model"], True),
        ("other.deep.Model", ["other."], True),
        ("otherwise.Model", ["other."], False),
        ("other.Model2", ["other.Model"], False),
        (FLOW, [], False),
    ],
)
def test_runtimes(
    tmp_path: Path, implementation: str, allowed: list[str] | None, expected: bool
) -> None:
    policy = CodePolicy(
        Settings(production=True, model_repository_root=str(tmp_path), allowed_runtimes=allowed)
    )
    assert is_allowed(policy, model(tmp_path, implementation)) is expected


@pytest.mark.parametrize(
    "name",
    ["mlserver_mlflow.py", "mlserver_mlflow", "mlserver_mlflow.cpython-311-x86_64-linux-gnu.so"],
)
def test_runtime_is_not_shadowed_by_a_file_of_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    policy = CodePolicy(Settings(production=True, model_repository_root=str(tmp_path)))
    (folder / name).mkdir()
    assert not is_allowed(policy, model(folder))


SOURCES = ["s3://models/", "models:/wine", "models:/beer/"]


@pytest.mark.parametrize(
    "uri, expected",
    [
        ("s3://models/a/1", True),
        ("s3://models-of-others/a", False),
        ("s3://models/../others/a", False),
        ("s3://models/%2e%2e/others/a", False),
        ("s3:models/a", False),
        ("models:/wine", True),
        ("models:/wine@champion", True),
        ("models:/wine/3", True),
        ("models:/winery", False),
        ("runs:/1/model", False),
        ("https://example.org/s3://models/", False),
        ("./inside", False),
    ],
)
def test_addresses(tmp_path: Path, uri: str, expected: bool) -> None:
    policy = CodePolicy(Settings(allowed_model_sources=SOURCES))
    assert is_allowed(policy, model(tmp_path, uri=uri)) is expected


def test_folders(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "root-2"
    for folder in (root / "m", outside):
        folder.mkdir(parents=True)
    os.symlink(outside, root / "m" / "link")
    policy = CodePolicy(Settings(production=True, model_repository_root=str(root)))
    assert is_allowed(policy, model(root / "m", uri="."))
    assert is_allowed(policy, model(root / "m", uri="./not-there-yet"))
    assert is_allowed(policy, model(root / "m", uri=f"file://{root}/m/x"))
    for uri in (
        "../..",
        str(outside),
        f"file://{outside}",
        "link",
        "/etc/passwd",
        "file:///etc",
        "s3://a/b",
    ):
        assert not is_allowed(policy, model(root / "m", uri=uri)), uri
    assert not is_allowed(
        policy, model(root / "m", uri=".", environment_tarball=str(outside / "env.tar.gz"))
    )
    assert not is_allowed(policy, model(root / "m", uri=".", environment_path=str(outside)))


def test_models_with_code(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"\x80\x05.")
    settings: dict[str, Any] = {"production": True, "model_repository_root": str(tmp_path)}
    CodePolicy(Settings(**settings)).check_files("m", str(tmp_path), [])
    with pytest.raises(CodeNotAllowed, match=r"model\.pkl.*trusted_models"):
        CodePolicy(Settings(**settings)).check_files("m", str(tmp_path), ["model.pkl"])
    digest = compute_digest(str(tmp_path))
    CodePolicy(Settings(**settings, trusted_models=[str(tmp_path)])).check_files(
        "m", str(tmp_path), ["model.pkl"]
    )
    CodePolicy(Settings(**settings, trusted_models=[digest])).check_files(
        "m", str(tmp_path), ["model.pkl"]
    )
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(CodeNotAllowed):
        CodePolicy(Settings(**settings, trusted_models=[digest])).check_files(
            "m", str(tmp_path), ["model.pkl"]
        )
