"""Try it: the form of each datatype, its response, streams, errors, tables, keyboard, code."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import Console
from support.models import WINE, Models
from support.repository import write_model, write_settings
from support.server import Server

INPUTS = [
    {"name": "amount", "datatype": "FP32", "shape": [-1, 1]},
    {"name": "count", "datatype": "INT64", "shape": [-1, 1]},
    {"name": "words", "datatype": "BYTES", "shape": [-1, 1], "parameters": {"content_type": "str"}},
    {"name": "flag", "datatype": "BOOL", "shape": [-1, 1]},
    {
        "name": "when",
        "datatype": "BYTES",
        "shape": [-1, 1],
        "parameters": {"content_type": "datetime"},
    },
    {
        "name": "picture",
        "datatype": "BYTES",
        "shape": [-1, 1],
        "parameters": {"content_type": "base64"},
    },
    {"name": "matrix", "datatype": "FP64", "shape": [-1, 3]},
    {"name": "pixels", "datatype": "UINT8", "shape": [-1, 4, 4]},
]
STREAM = """
import asyncio

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Stream(MLModel):
    async def predict_stream(self, payloads):
        async for payload in payloads:
            for word in payload.inputs[0].data.root[0].split():
                output = ResponseOutput(name="word", datatype="BYTES", shape=[1], data=[word])
                yield InferenceResponse(model_name=self.name, outputs=[output])
"""
CHOOSY = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InvalidInput
from mlserver.types import InferenceResponse


class Choosy(MLModel):
    async def predict(self, payload):
        value = payload.inputs[1].data.root[0]
        if value < 0:
            raise InvalidInput("input 'second'", "a positive number", str(value))
        import numpy as np

        output = NumpyCodec.encode_output("probabilities", np.array([[0.125, 0.625, 0.25]]))
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
# Names of inputs that are text, whatever they hold.
HOSTILE = ["<img src=x onerror=alert(1)>", "שלום עולם", "</label><script>alert(1)</script>"]
LONG = "n" * 1000
PAIR = [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in ("first", "second")]
# A picture of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("try")
    write_model(folder / "echo", inputs=INPUTS)
    write_model(folder / "any")
    names = [LONG, *HOSTILE]
    inputs = [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in names]
    write_model(folder / "names", inputs=inputs)
    text = [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
    write_model(folder / "stream", "Stream", source=STREAM, inputs=text)
    write_model(folder / "choosy", "Choosy", source=CHOOSY, inputs=PAIR)
    shutil.copytree(models["wine"], folder / "wine" / "model")
    body = {"dataframe_split": {"columns": list(WINE), "data": [list(WINE.values())]}}
    (folder / "wine" / "model" / "serving_input_example.json").write_text(json.dumps(body))
    mlflow = "mlserver_mlflow.MLflowRuntime"
    write_settings(
        folder / "wine", name="wine", implementation=mlflow, parameters={"uri": "./model"}
    )
    with Server(folder) as running:
        yield running


@pytest.fixture
def console(browser: Any, server: Server) -> Iterator[Console]:
    opened = Console(
        browser,
        server.url,
        viewport={"width": 1440, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield opened
    opened.close()


def send(page: Any) -> Any:
    """Press Send, and return the region of the response."""
    page.get_by_role("button", name="Send").click()
    return page.get_by_role("status", name="Response")


def read_sent(page: Any) -> Any:
    """Press Send, and return the body of the request that the page sent."""
    with page.expect_request(
        lambda request: request.method == "POST" and "/v2/models/" in request.url
    ) as sent:
        page.get_by_role("button", name="Send").click()
    return sent.value.post_data_json


def test_a_new_user_gets_an_answer(console: Console, models: Models) -> None:
    page = console.open()
    page.get_by_role("link", name="Try it: wine").click()
    for name, value in WINE.items():  # filled with the model's example
        assert float(page.get_by_label(name, exact=True).input_value()) == value
    response = send(page)
    response.get_by_text("200").wait_for()
    assert str(models.wine_answer).rstrip("0").rstrip(".") in response.inner_text()
    for stage in ("queue", "model", "transport", "total"):
        response.get_by_text(stage, exact=False).first.wait_for()


def test_every_datatype(console: Console) -> None:
    page = console.open("try/echo")
    page.get_by_label("amount", exact=True).fill("1.5e3")
    page.get_by_label("count", exact=True).fill("9007199254740993")  # not a double
    page.get_by_label("words", exact=True).fill('שלום "<b>"')
    page.get_by_label("flag", exact=True).check()
    page.get_by_label("when", exact=True).fill("2026-02-03T04:05:06")
    page.get_by_label("picture", exact=True).fill("aGVsbG8=")
    page.get_by_role("button", name="Add row").click()
    for index in range(6):
        label = f"matrix, row {index // 3 + 1}, column {index % 3 + 1}"
        page.get_by_label(label, exact=True).fill(str(index + 1))
    page.get_by_label("pixels", exact=True).fill(json.dumps([[[7] * 4] * 4]))
    response = send(page)
    response.get_by_text("200").wait_for()
    response.get_by_role("tab", name="JSON").click()
    body = json.loads(
        response.locator("pre.body").inner_text().replace("9007199254740992", "9007199254740993")
    )
    outputs = {tensor["name"]: tensor for tensor in body["outputs"]}
    assert outputs["amount"]["data"] == [1500.0]
    assert outputs["words"]["data"] == ['שלום "<b>"']
    assert outputs["flag"]["data"] == [True]
    assert outputs["when"]["data"] == ["2026-02-03T04:05:06"]
    assert outputs["matrix"]["shape"] == [2, 3]
    assert outputs["matrix"]["data"] == [1, 2, 3, 4, 5, 6]
    assert outputs["pixels"]["shape"] == [1, 4, 4]


def test_integers_are_sent_as_typed(console: Console) -> None:
    page = console.open("try/echo")
    page.get_by_label("count", exact=True).fill("9007199254740993")
    body = read_sent(page)
    (count,) = [tensor for tensor in body["inputs"] if tensor["name"] == "count"]
    assert count["data"] == [9007199254740993]


@pytest.mark.slow
def test_files(console: Console) -> None:
    page = console.open("try/echo")
    picture = page.locator(".control.file input[type=file]")
    picture.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PNG})
    page.wait_for_function(
        "document.querySelector('[data-field=picture]').value.startsWith('iVBOR')"
    )
    pixels = page.locator(".control.tensor input[type=file]")
    pixels.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PNG})
    page.wait_for_function("document.querySelector('[data-field=pixels]').value.startsWith('[[[')")
    response = send(page)
    response.get_by_text("200").wait_for()
    response.get_by_role("tab", name="Picture").wait_for()
    assert response.locator("img").get_attribute("src").startswith("data:image/png;base64,")
    assert not console.list_violations()


PASTE = """text => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const event = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
  document.activeElement.dispatchEvent(event);
}"""


def read_cells(page: Any) -> Any:
    return page.locator("[data-field=matrix]").evaluate_all("cells => cells.map(c => c.value)")


@pytest.mark.slow
def test_cells_of_a_tensor(console: Console) -> None:
    page = console.open("try/echo")
    first = page.get_by_label("matrix, row 1, column 1", exact=True)
    first.focus()
    page.evaluate(PASTE, "1\t2\t3\r\n4\t5\t6\r\n")
    page.get_by_label("matrix, row 2, column 3", exact=True).wait_for()
    assert read_cells(page) == ["1", "2", "3", "4", "5", "6"]
    page.keyboard.press("ArrowDown")  # from row 1 to row 2, then over the selected text
    page.keyboard.type("40")
    page.keyboard.press("ArrowRight")
    page.keyboard.type("x")
    page.keyboard.press("Enter")  # the last row: does not send
    assert read_cells(page) == ["1", "2", "3", "40", "x", "6"]
    page.keyboard.press("Control+Enter")
    page.get_by_role("alert").filter(has_text="Expected a number, received “x”").wait_for()
    page.wait_for_function("document.activeElement.dataset.cell === '1 1'")
    assert page.locator("[data-field=matrix][aria-invalid=true]").count() == 1
    assert not console.list_violations()
    page.locator(":focus").fill("50")
    page.get_by_role("button", name="Remove row 1 of matrix").click()
    first.focus()
    page.evaluate(PASTE, "1\t2\t3\t4")
    page.get_by_role("alert").filter(has_text="expected at most 3 from column 1").wait_for()
    body = read_sent(page)
    (matrix,) = [tensor for tensor in body["inputs"] if tensor["name"] == "matrix"]
    assert (matrix["shape"], matrix["data"]) == ([1, 3], [40, 50, 6])
    page.get_by_role("button", name="As text").click()
    text = page.get_by_label("matrix", exact=True)
    assert text.input_value() == "40, 50, 6"
    text.fill("1 2 3\n" * 67)  # 201 cells
    assert page.get_by_role("button", name="As cells").is_disabled()
    text.fill("7 8 9")
    page.get_by_role("button", name="As cells").click()
    assert read_cells(page) == ["7", "8", "9"]


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("amount", "much", "Expected a number, received “much”"),
        ("count", "1.5", "Expected an integer"),
        ("when", "", "Expected a date and time, received nothing"),
        ("pixels", "[[1, 2]]", "Expected shape [any, 4, 4], received “[1, 1, 2]”"),
    ],
)
def test_a_value_that_does_not_fit(console: Console, name: str, value: str, text: str) -> None:
    page = console.open("try/echo")
    field = page.get_by_label(name, exact=True)
    field.fill(value)
    page.get_by_role("button", name="Send").click()
    page.get_by_role("alert").filter(has_text=text).wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    described = field.get_attribute("aria-describedby").split()[0]
    assert text in page.locator(f"[id='{described}']").inner_text()
    assert field.evaluate("element => document.activeElement === element")
    assert not console.list_violations()


def test_an_error_of_the_server_marks_its_field(console: Console) -> None:
    page = console.open("try/choosy", allow=(400,))
    page.get_by_label("second", exact=True).fill("-4")
    response = send(page)
    response.get_by_text("400").wait_for()
    page.get_by_role("alert").filter(has_text="expected a positive number").wait_for()
    field = page.get_by_label("second", exact=True)
    assert field.get_attribute("aria-invalid") == "true"
    page.wait_for_function("document.activeElement.dataset.field === 'second'")
    field.fill("4")
    response = send(page)
    response.get_by_text("200").wait_for()
    response.get_by_text("63 %").wait_for()  # bars of probabilities
    assert not console.list_violations()


def test_a_model_without_declared_inputs(console: Console) -> None:
    page = console.open("try/any", allow=(400,))
    send(page).get_by_text("200").wait_for()
    page.get_by_label("Request body", exact=True).fill("{")
    send(page).get_by_text("400").wait_for()
    page.get_by_role("alert").first.wait_for()


def test_names_of_inputs_are_text(console: Console) -> None:
    page = console.open("try/names")
    for index, name in enumerate((LONG, *HOSTILE)):
        page.get_by_label(name, exact=True).fill(str(index + 1))
    page.set_viewport_size({"width": 390, "height": 844})
    response = send(page)
    response.get_by_text("200").wait_for()
    # On a narrow screen it is below the form: the page scrolls to it.
    page.wait_for_function(
        "document.querySelector('.response').getBoundingClientRect().top < innerHeight - 100"
    )
    for name in (LONG, *HOSTILE):
        response.get_by_text(name, exact=True).wait_for()
    assert page.locator("img").count() == 0
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not console.list_violations()


@pytest.mark.slow
def test_streams(console: Console) -> None:
    page = console.open("try/stream")
    page.get_by_role("tab", name="Stream").click()
    page.get_by_label("text", exact=True).fill("one two three")
    response = send(page)
    response.get_by_text("word: three").wait_for()
    assert response.locator("li").filter(has_text="word:").count() == 3


@pytest.mark.parametrize("form", ["MLflow", "CSV"])
def test_invocations(console: Console, form: str, models: Models) -> None:
    page = console.open("try/wine")
    page.get_by_role("tab", name=form, exact=True).click()
    response = send(page)
    response.get_by_text("200").wait_for()
    response.get_by_text("predictions").first.wait_for()


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_pasted_table(console: Console, separator: str) -> None:
    page = console.open("try/wine")
    page.get_by_role("button", name="Paste a table").click()
    row = separator.join(map(str, WINE.values()))
    page.get_by_label("Table with a line of column names").fill(
        f"{separator.join(WINE)}\n{row}\n{row}\n{row}\n"
    )
    page.get_by_role("button", name="Use these rows").click()
    page.get_by_text("3 rows").wait_for()
    response = send(page)
    response.get_by_text("200").wait_for()
    assert response.locator("tbody tr").count() == 3


def test_a_table_that_does_not_fit(console: Console) -> None:
    page = console.open("try/wine")
    page.get_by_role("button", name="Paste a table").click()
    page.get_by_label("Table with a line of column names").fill("pH,alcohol\n1,2\n")
    page.get_by_role("button", name="Use these rows").click()
    page.get_by_role("alert").filter(has_text="“fixed acidity” is missing").wait_for()


@pytest.mark.slow
def test_the_code_repeats_the_call(console: Console, server: Server, tmp_path: Path) -> None:
    import subprocess
    import sys

    page = console.open("try/wine")
    page.get_by_role("region", name="As code").wait_for()
    code = page.get_by_role("region", name="Code", exact=True)
    for language in ("Python", "tritonclient", "gRPC"):
        page.get_by_role("tab", name=language, exact=True).click()
        text = code.inner_text()
        assert language != "gRPC" or f":{server.grpc_port}" in text
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", text],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "quality" in done.stdout
    page.get_by_role("tab", name="curl", exact=True).click()
    done = subprocess.run(
        ["bash", "-c", code.inner_text()], capture_output=True, text=True, check=False, timeout=60
    )
    assert '"quality"' in done.stdout
    page.get_by_role("button", name="Copy", exact=True).click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl ")


def test_the_keyboard_alone(console: Console) -> None:
    page = console.open("try/choosy")
    page.get_by_label("first", exact=True).wait_for()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.field") == "first":
            break
    page.keyboard.type("5")
    page.keyboard.press("Control+Enter")
    page.get_by_role("status", name="Response").get_by_text("200").wait_for()


def test_tabs_move_by_arrows(console: Console) -> None:
    page = console.open("try/wine")
    page.get_by_role("tab", name="V2").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="MLflow").get_attribute("aria-selected") == "true"
    page.wait_for_function("document.activeElement.textContent === 'MLflow'")
