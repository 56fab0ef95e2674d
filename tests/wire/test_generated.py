"""Generated protobuf modules equal the .proto files and use a descriptor pool of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "src" / "mlserver" / "wire" / "pb"


def test_generated_modules_are_current(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    # By its path: other packages install a package `proto`.
    script = ROOT / "proto" / "generate.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)

    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in GENERATED.glob("*_pb2.py*")}


def test_the_default_pool_is_unchanged() -> None:
    code = """
from mlserver.wire.pb import dataplane_pb2, health_pb2, model_repository_pb2, reflection_pb2
from google.protobuf import descriptor_pool
for name in ("dataplane.proto", "model_repository.proto", "health.proto", "reflection.proto"):
    try:
        descriptor_pool.Default().FindFileByName(name)
    except KeyError:
        continue
    raise SystemExit(f"{name} is registered")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
