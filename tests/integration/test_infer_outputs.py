"""Outputs of `mlserver infer`: never replaced in silence; a job that only fails stops early."""

from __future__ import annotations

import pytest

from support.infer_command import InferCommand, request


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_an_existing_output_is_not_overwritten_unless_asked(run: InferCommand, name: str) -> None:
    run.write("in.jsonl", request(1.0), request(2.0))
    (run.folder / name).write_text("mine\n")
    code, printed = run("picky", "in.jsonl", name)
    assert (code, printed.count("\n")) == (1, 1)
    assert f"{name} exists: --resume continues its job, --overwrite replaces it" in printed
    assert (run.folder / name).read_text() == "mine\n"
    for option in ("--overwrite", "--force"):
        code, printed = run("picky", "in.jsonl", name, option)
        assert code == 0, printed
        assert "mine" not in (run.folder / name).read_text()


def test_the_log_of_an_interrupted_job_is_not_overwritten(run: InferCommand) -> None:
    run.write("in.jsonl", request(1.0))
    (run.folder / "out.csv.part").write_text("{}\n")
    code, printed = run("picky", "in.jsonl", "out.csv")
    assert code == 1
    assert "out.csv.part exists: --resume" in printed


def test_the_input_is_not_overwritten(run: InferCommand) -> None:
    run.write("in.jsonl", request(1.0))
    code, printed = run("picky", "in.jsonl", "in.jsonl", "--overwrite")
    assert code == 1
    assert "the output is the input" in printed
    assert run.lines("in.jsonl")[0]["inputs"]


def test_a_job_stops_early_if_everything_fails(run: InferCommand) -> None:
    """2000 failures would tell no more than 20."""
    run.write("in.jsonl", *[request(-1.0) for _ in range(2000)])
    code, printed = run("picky", "in.jsonl", "out.jsonl")
    assert code == 1
    first, *_, last = printed.splitlines()
    assert first.startswith("first failure (item 0): ")
    assert "stopped: all of the first" in last
    assert "--resume continues the job" in last
    assert 20 <= len(run.lines("out.jsonl")) < 2000


def test_a_job_goes_on_after_a_response(run: InferCommand) -> None:
    run.write("in.jsonl", request(1.0), *[request(-1.0) for _ in range(100)])
    code, printed = run("picky", "in.jsonl", "out.jsonl", "-w", "1")
    assert code == 1
    assert "100 of 101 failed" in printed.splitlines()[-1]
    assert len(run.lines("out.jsonl")) == 101
