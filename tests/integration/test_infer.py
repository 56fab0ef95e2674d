"""`mlserver infer` against a real server.

Every kind of input, transport and output, and failures.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.models import WINE, Models
from support.ports import free_ports
from support.repository import tensor, write_model
from support.server import Serve, Server, clean_environment

# Doubles its input, counts the requests in `calls`, and rejects negative numbers.
PICKY = """
import numpy as np

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse


class Picky(MLModel):
    calls = 0

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        Picky.calls += 1
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        if (values < 0).any():
            raise MLServerError("no negative numbers", 422)
        calls = NumpyCodec.encode_output("calls", np.full(len(values), Picky.calls))
        outputs = [NumpyCodec.encode_output("double", values * 2), calls]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""
# Answers 503 to the first two requests.
BUSY = """
from mlserver import MLModel
from mlserver.errors import Overloaded
from mlserver.types import InferenceRequest, InferenceResponse


class Busy(MLModel):
    calls = 0

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        Busy.calls += 1
        if Busy.calls <= 2:
            raise Overloaded("come again", retry_after=0.01)
        return InferenceResponse(model_name=self.name, outputs=[])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "picky", "Picky", source=PICKY)
    write_model(folder / "echo")
    write_model(folder / "busy", "Busy", source=BUSY)
    with Server(folder) as started:
        yield started


class Run:
    """One run of the command in a folder of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder

    def command(self, model: str, source: str, output: str, *more: str) -> list[str]:
        port = self.server.grpc_port if "grpc" in more else self.server.http_port
        where = ["-i", str(self.folder / source), "-o", str(self.folder / output)]
        words = [
            "infer",
            "-u",
            f"127.0.0.1:{port}",
            "-m",
            model,
            *where,
            "--retry-pause",
            "0",
            *more,
        ]
        return [sys.executable, "-m", "mlserver", *words]

    def __call__(self, model: str, source: str, output: str, *more: str) -> tuple[int, str]:
        words = self.command(model, source, output, *more)
        done = subprocess.run(
            words, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == ""
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr

    def write(self, name: str, *requests: Any) -> str:
        lines = [each if isinstance(each, str) else json.dumps(each) for each in requests]
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))
        return name

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Run:
    return Run(server, tmp_path)


def request(*values: float, **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor("x", list(values))], **more}


def data(line: Any, output: str = "double") -> Any:
    return next(each["data"] for each in line["outputs"] if each["name"] == output)


@pytest.mark.parametrize("more", [(), ("-b",), ("-t", "grpc"), ("-t", "grpc", "-b")], ids=" ".join)
def test_lines_keep_their_order(run: Run, more: tuple[str, ...]) -> None:
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
def test_lines_are_sent_in_batches(run: Run, more: tuple[str, ...]) -> None:
    run.write("in.jsonl", request(1, 2, id="a"), request(3), request(4, id="c"), request(5))
    code, _ = run("picky", "in.jsonl", "out.jsonl", "-s", "3", "-w", "1", *more)
    lines = run.lines("out.jsonl")
    assert code == 0
    assert [data(line) for line in lines] == [[2.0, 4.0], [6.0], [8.0], [10.0]]
    assert [lines[0]["id"], lines[2]["id"]] == ["a", "c"]
    sent = [line["parameters"]["inference_id"] for line in lines]
    assert sent[0] == sent[1] == sent[2] != sent[3]


def test_only_the_failing_lines_fail(run: Run) -> None:
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
def test_resume_keeps_results_and_retries_failures(run: Run, more: tuple[str, ...]) -> None:
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


def test_an_interrupted_job_is_resumed(run: Run) -> None:
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


def test_a_busy_server_is_retried(run: Run) -> None:
    run.write("in.jsonl", request(1))
    assert run("busy", "in.jsonl", "out.jsonl", "-r", "2")[0] == 0
    assert run.lines("out.jsonl")[0]["outputs"] == []


def test_columns_of_a_csv_file(models: Models, serve: Serve, tmp_path: Path) -> None:
    run = Run(serve(models.copy("wine", tmp_path / "wine")), tmp_path)
    extra = {"note": "kept at home", **WINE}
    rows = [";".join(extra), *(";".join(str(value) for value in extra.values()) for _ in range(5))]
    run.write("in.csv", rows[0], *rows[1:])
    code, text = run("wine", "in.csv", "out.csv", "-s", "2")
    assert code == 0, text
    table = run.table("out.csv")
    assert [list(row) for row in table] == [["quality"]] * 5
    assert [float(row["quality"]) for row in table] == [pytest.approx(models.wine_answer)] * 5
    assert not (run.folder / "out.csv.part").exists()

    run.write("in.csv", "pH,alcohol", "1,2")
    code, text = run("wine", "in.csv", "out.csv")
    assert code == 1
    assert "no column 'fixed acidity'" in text


def test_types_of_csv_cells(run: Run) -> None:
    run.write("in.csv", "i,f,b,s", "1,1,true,a", "2,,false,", "3,1.5,TRUE,7")
    code, text = run("echo", "in.csv", "out.jsonl")
    assert code == 0, text
    kinds = [
        (output["name"], output["datatype"]) for output in run.lines("out.jsonl")[0]["outputs"]
    ]
    assert kinds == [("i", "INT64"), ("f", "FP64"), ("b", "BOOL"), ("s", "BYTES")]
    second = {output["name"]: output["data"] for output in run.lines("out.jsonl")[1]["outputs"]}
    assert second == {"i": [2], "f": [None], "b": [False], "s": [""]}


def test_failed_rows_of_a_table(run: Run) -> None:
    run.write("in.csv", "x", "1", "-1", "3")
    code, text = run("picky", "in.csv", "out.csv")
    assert (code, "1 of 3 failed" in text) == (1, True)
    assert [row["error"] for row in run.table("out.csv")] == ["", "no negative numbers", ""]
    assert [row["double"] for row in run.table("out.csv")] == ["2", "", "6"]
    run.write("in.csv", "x", "1", "2", "3")
    assert run("picky", "in.csv", "out.csv", "--resume")[0] == 0
    assert [row["double"] for row in run.table("out.csv")] == ["2", "4", "6"]


def test_parquet_in_and_out(run: Run) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "f": arrow.array([1.5, None, 3.5], "float32"),
        "i": arrow.array([1, 2, 3], "int16"),
        "s": arrow.array(["a", "b", "c"]),
        "v": arrow.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    }
    parquet.write_table(arrow.table(columns), run.folder / "in.parquet")
    code, text = run("echo", "in.parquet", "out.parquet", "-s", "2", "-b")
    assert code == 0, text
    found = parquet.read_table(run.folder / "out.parquet").to_pydict()
    assert found == {
        "f": [1.5, None, 3.5],
        "i": [1, 2, 3],
        "s": ["a", "b", "c"],
        "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    }


@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_an_unknown_model(run: Run, more: tuple[str, ...]) -> None:
    run.write("in.jsonl", request(1))
    code, text = run("nothing", "in.jsonl", "out.jsonl", *more)
    assert (code, text) == (1, "mlserver: Model nothing not found\n")
    assert not (run.folder / "out.jsonl").exists()


@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_no_server_is_running(run: Run, more: tuple[str, ...]) -> None:
    run.write("in.jsonl", request(1))
    code, text = run("picky", "in.jsonl", "out.jsonl", "-u", f"127.0.0.1:{free_ports(1)[0]}", *more)
    assert (code, text.count("\n")) == (1, 1), text


def test_variables_and_headers(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(request(1)))
    variables = {
        "URL": f"http://127.0.0.1:{server.http_port}/",
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
def test_invalid_arguments(run: Run, more: tuple[str, ...], expected: str) -> None:
    run.write("in.jsonl", request(1))
    code, text = run("picky", "in.jsonl", "out.jsonl", *more)
    assert (code, text.count("\n"), expected in text) == (2, 1, True), text


def test_no_such_input(run: Run) -> None:
    code, text = run("picky", "none.jsonl", "out.jsonl")
    assert code == 1
    assert "none.jsonl: no such file" in text


# -- file names --


@pytest.mark.parametrize(
    "text, answers",
    [
        (json.dumps(request(1), indent=2), [[2.0]]),
        (json.dumps(request(1)), [[2.0]]),
        (json.dumps([request(1), request(2, 3)], indent=2), [[2.0], [4.0, 6.0]]),
        (json.dumps(request(1)) + "\n\n" + json.dumps(request(2)) + "\n", [[2.0], [4.0]]),
        ("\ufeff" + json.dumps(request(1), indent=2), [[2.0]]),
        ("[]", []),
    ],
    ids=[
        "object over lines",
        "one line",
        "list over lines",
        "JSON lines",
        "byte order mark",
        "nothing",
    ],
)
@pytest.mark.parametrize("more", [(), ("-t", "grpc")], ids=" ".join)
def test_json_documents(
    run: Run, text: str, answers: list[list[float]], more: tuple[str, ...]
) -> None:
    (run.folder / "in.json").write_text(text)
    code, printed = run("picky", "in.json", "out.jsonl", *more)
    assert code == 0, printed
    assert [data(line) for line in run.lines("out.jsonl")] == answers


@pytest.mark.parametrize(
    "text, reason",
    [("{", "in.json: "), ("5", "expected a V2 request or a list of them"), ("", "in.json: ")],
)
def test_an_invalid_json_document(run: Run, text: str, reason: str) -> None:
    (run.folder / "in.json").write_text(text)
    code, printed = run("picky", "in.json", "out.jsonl")
    assert (code, reason in printed, printed.count("\n")) == (1, True, 1), printed


def test_the_sample_request_of_init(serve: Serve, tmp_path: Path) -> None:
    init = [sys.executable, "-m", "mlserver", "init", str(tmp_path / "prices")]
    subprocess.run(init, check=True, capture_output=True, env=clean_environment())
    server = serve(tmp_path / "prices")  # on the ports that the environment variables name
    run = Run(server, tmp_path / "prices")
    code, printed = run("prices", "sample-request.json", "out.json")
    assert code == 0, printed
    assert len(run.lines("out.json")[0]["outputs"][0]["data"]) == 2


def test_tables_with_tabs(run: Run) -> None:
    (run.folder / "in.tsv").write_text('x\ty, z\n1\ta,b\n2\t"c\td"\n')
    code, printed = run("echo", "in.tsv", "out.tsv")
    assert code == 0, printed
    assert (run.folder / "out.tsv").read_text().splitlines() == ["x\ty, z", "1\ta,b", '2\t"c\td"']


@pytest.mark.parametrize(
    "source, output",
    [
        ("in.jsonl", "out.xlsx"),
        ("in.xlsx", "out.jsonl"),
        ("in.jsonl", "out.feather"),
        ("in.csv.gz", "o"),
    ],
)
def test_file_names_without_a_known_suffix_are_rejected(run: Run, source: str, output: str) -> None:
    run.write(source, request(1))
    code, printed = run("picky", source, output)
    assert code == 1
    assert printed.count("\n") == 1
    assert "expected a name that ends in .csv, .tsv, .parquet" in printed
    assert not (run.folder / output).exists()


@pytest.mark.parametrize("bad, reason", [(request(-1), "no negative numbers"), ("no JSON", "JSON")])
def test_the_first_reason_is_on_standard_error(run: Run, bad: Any, reason: str) -> None:
    run.write("in.jsonl", request(1), bad, request(-5))
    code, printed = run("picky", "in.jsonl", "out.csv", "-w", "1")
    assert code == 1
    last = printed.splitlines()[-1]
    assert "2 of 3 failed, the first (item 1): " in last
    assert reason in last
