"""`mlserver infer` against a real server.

Every kind of input, transport and output, and failures.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.infer_command import InferCommand, data, request
from support.ports import free_ports
from support.repository import tensor
from support.server import Server, clean_environment


@pytest.mark.parametrize("more", [(), ("-b",), ("-t", "grpc"), ("-t", "grpc", "-b")], ids=" ".join)
def test_lines_keep_their_order(run: InferCommand, more: tuple[str, ...]) -> None:
    count = 200
    run.write("in.jsonl", *(request(float(number), id=f"id-{number}") for number in range(count)))
    code, text = run("picky", "in.jsonl", "out.jsonl", *more)
    assert (code, "200 answered, 0 failed" in text) == (0, True)
    lines = run.lines("out.jsonl")
    assert [data(line) for line in lines] == [[2.0 * number] for number in range(count)]
    assert [line["parameters"]["batch_index"] for line in lines] == list(range(count))
    assert [line["id"] for line in lines] == [line["parameters"]["inference_id"] for line in lines]
    assert lines[7]["id"] == "id-7"


@pytest.mark.parametrize("more", [(), ("-b",), ("-t", "grpc")], ids=" ".join)
def test_lines_are_sent_in_batches(run: InferCommand, more: tuple[str, ...]) -> None:
    run.write("in.jsonl", request(1, 2, id="a"), request(3), request(4, id="c"), request(5))
    code, _ = run("picky", "in.jsonl", "out.jsonl", "-s", "3", "-w", "1", *more)
    lines = run.lines("out.jsonl")
    assert code == 0
    assert [data(line) for line in lines] == [[2.0, 4.0], [6.0], [8.0], [10.0]]
    assert [lines[0]["id"], lines[2]["id"]] == ["a", "c"]
    sent = [line["parameters"]["inference_id"] for line in lines]
    assert sent[0] == sent[1] == sent[2] != sent[3]


def test_only_the_failing_lines_fail(run: InferCommand) -> None:
    run.write(
        "in.jsonl",
        request(1),
        "no JSON",
        request(-1),
        request(3),
        {"inputs": [tensor("x", [1], shape=[2])]},
    )
    code, text = run("picky", "in.jsonl", "out.jsonl", "-s", "5", "-v")
    assert code == 1
    assert "3 of 5 failed" in text
    assert "2: no negative numbers" in text
    first, broken, refused, third, wrong = run.lines("out.jsonl")
    assert (data(first), data(third)) == ([2.0], [6.0])
    assert broken["error"]["status"] == wrong["error"]["status"] == "preprocessing error"
    assert refused == {
        "parameters": {"batch_index": 2},
        "error": {"status": "inference error", "msg": "no negative numbers"},
    }
    assert "'x'" in wrong["error"]["msg"]


@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_resume_keeps_results_and_retries_failures(
    run: InferCommand, more: tuple[str, ...]
) -> None:
    run.write("in.jsonl", request(1), request(-2), request(3))
    assert run("picky", "in.jsonl", "out.jsonl")[0] == 1
    before = run.lines("out.jsonl")
    run.write("in.jsonl", request(1), request(2), request(3), request(4))
    with (run.folder / "out.jsonl").open("a") as file:
        file.write('{"model_name": "picky", "outputs": [')  # truncated by a crash
    code, text = run("picky", "in.jsonl", "out.jsonl", "--resume", *more)
    assert (code, "2 answered, 0 failed, 2 kept from before" in text) == (0, True)
    lines = run.lines("out.jsonl")
    assert [data(line) for line in lines] == [[2.0], [4.0], [6.0], [8.0]]
    assert (lines[0], lines[2]) == (before[0], before[2])


def test_an_interrupted_job_is_resumed(run: InferCommand) -> None:
    count = 60
    run.write("in.jsonl", *(request(float(number)) for number in range(count)))
    words = run.command(
        "picky", "in.jsonl", "out.jsonl", "-w", "1", "--batch-interval", "0.05", "-vv"
    )
    with subprocess.Popen(words, env=clean_environment(), stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr is not None
        assert job.stderr.readline() == "0: answered\n"
        job.send_signal(signal.SIGTERM)
        assert "interrupted" in job.stderr.read()
        assert job.wait() == 130
    there = len(run.lines("out.jsonl"))
    assert 0 < there < count
    code, text = run("picky", "in.jsonl", "out.jsonl", "--resume")
    assert (code, f"{there} kept from before" in text) == (0, True)
    assert [data(line) for line in run.lines("out.jsonl")] == [
        [2.0 * number] for number in range(count)
    ]


def test_a_busy_server_is_retried(run: InferCommand) -> None:
    run.write("in.jsonl", request(1))
    assert run("busy", "in.jsonl", "out.jsonl", "-r", "2")[0] == 0
    assert run.lines("out.jsonl")[0]["outputs"] == []


@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_an_unknown_model(run: InferCommand, more: tuple[str, ...]) -> None:
    run.write("in.jsonl", request(1))
    code, text = run("nothing", "in.jsonl", "out.jsonl", *more)
    assert (code, text) == (1, "mlserver: Model nothing not found\n")
    assert not (run.folder / "out.jsonl").exists()


@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_no_server_is_running(run: InferCommand, more: tuple[str, ...]) -> None:
    run.write("in.jsonl", request(1))
    code, text = run("picky", "in.jsonl", "out.jsonl", "-u", f"127.0.0.1:{free_ports(1)[0]}", *more)
    assert (code, text.count("\n")) == (1, 1), text


def test_variables_and_headers(infer_server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(request(1)))
    variables = {
        "URL": f"http://127.0.0.1:{infer_server.http_port}/",
        "MODEL_NAME": "echo",
        "INPUT_DATA_PATH": str(tmp_path / "in.jsonl"),
        "OUTPUT_DATA_PATH": str(tmp_path / "out.jsonl"),
        "BINARY_DATA": "true",
        "BATCH_SIZE": "4",
        "REQUEST_HEADERS": "X-One: 1\nX-Two: a b",
    }
    env = clean_environment({f"MLSERVER_INFER_{name}": value for name, value in variables.items()})
    done = subprocess.run(
        [sys.executable, "-m", "mlserver", "infer"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert data(json.loads((tmp_path / "out.jsonl").read_text()), "x") == [1.0]


@pytest.mark.parametrize(
    "more, expected",
    [
        (("-t", "kafka"), "--transport"),
        (("-H", "nonsense"), "Name: value"),
        (("-t", "grpc", "--insecure"), "--insecure"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_invalid_arguments(run: InferCommand, more: tuple[str, ...], expected: str) -> None:
    run.write("in.jsonl", request(1))
    code, text = run("picky", "in.jsonl", "out.jsonl", *more)
    assert (code, text.count("\n"), expected in text) == (2, 1, True), text


def test_no_such_input(run: InferCommand) -> None:
    """It is found before a connection is tried."""
    server = ("-u", f"127.0.0.1:{free_ports(1)[0]}")
    code, text = run("picky", "none.jsonl", "out.jsonl", *server)
    assert code == 1
    assert "none.jsonl: no such file" in text
