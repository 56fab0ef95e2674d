"""Requests with more inputs than the default limit, over every protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.protocols import PROTOCOLS, infer
from support.repository import tensor, write_model
from support.server import Server
from support.slow import slow

WIDE = [tensor(f"x{number}", [0.5]) for number in range(12_000)]


@pytest.fixture(scope="module", params=[10_000, slow(12_000)])
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, Server]]:
    """A limit of inputs, the default one first, and a server with it."""
    folder = tmp_path_factory.mktemp("wide")
    write_model(folder / "echo")
    limit: int = request.param
    env = {} if limit == 10_000 else {"MLSERVER_MAX_INPUTS": str(limit)}
    with Server(folder, env=env) as server:
        yield limit, server


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_number_of_inputs_is_a_setting(limited: tuple[int, Server], protocol: str) -> None:
    limit, server = limited
    response = infer(server, "echo", WIDE[:limit], protocol)
    assert isinstance(response, list), response
    assert len(response) == limit
    error = infer(server, "echo", [*WIDE[:limit], tensor("last", [0.5])], protocol)
    assert error == (
        f"Invalid inputs: expected at most {limit} inputs (setting 'max_inputs'), "
        f"received {limit + 1}"
    )
