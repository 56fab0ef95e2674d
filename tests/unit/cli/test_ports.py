"""`mlserver start` with a port that another program has."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.repository import write_model
from support.server import run_mlserver


@pytest.mark.parametrize("setting", ["http_port", "grpc_port", "metrics_port", "admin_port"])
def test_a_port_in_use_is_reported_before_anything_starts(tmp_path: Path, setting: str) -> None:
    write_model(tmp_path / "echo")
    names = ("http_port", "grpc_port", "metrics_port")
    variables = {f"MLSERVER_{name.upper()}": "0" for name in names}
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        variables[f"MLSERVER_{setting.upper()}"] = address.rpartition(":")[2]
        variables["MLSERVER_HOST"] = "127.0.0.1"
        code, text = run_mlserver("start", str(tmp_path), env=variables)
    assert (code, text) == (
        1,
        f"mlserver: Cannot listen on {address} (setting '{setting}'): Address already in use;"
        " choose another port, or end the program that has it\n",
    )


def test_one_port_for_two_settings(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    code, text = run_mlserver("start", str(tmp_path), "--http-port", "9", "--grpc-port", "9")
    assert (code, text) == (
        2,
        "mlserver: Settings 'http_port' and 'grpc_port': expected different ports, received 9\n",
    )
