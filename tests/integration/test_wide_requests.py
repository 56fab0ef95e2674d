"""Requests with more inputs than the default limit, over every protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.protocols import PROTOCOLS, infer
from support.repository import tensor, write_model
from support.server import Serve


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_number_of_inputs_is_a_setting(serve: Serve, tmp_path: Path, protocol: str) -> None:
    write_model(tmp_path / "echo")
    wide = [tensor(f"x{number}", [0.5]) for number in range(12_000)]
    with_default, with_more = serve(tmp_path), serve(tmp_path, env={"MLSERVER_MAX_INPUTS": "12000"})
    refusal = infer(with_default, "echo", wide, protocol)
    assert (
        refusal
        == "Invalid inputs: expected at most 10000 inputs (setting 'max_inputs'), received 12000"
    )
    answer = infer(with_more, "echo", wide, protocol)
    assert isinstance(answer, list), answer
    assert len(answer) == 12_000
    assert "at most 12000" in infer(with_more, "echo", [*wide, tensor("last", [0.5])], protocol)
