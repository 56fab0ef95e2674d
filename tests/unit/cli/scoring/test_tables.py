"""CSV tables: columns become inputs, cells are parsed by datatype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver.cli.scoring.csv_table import get_parser
from mlserver.cli.scoring.items import WorkItem
from mlserver.cli.scoring.source import open_source
from mlserver.cli.terminal import CommandError
from mlserver.types import MetadataModelResponse, MetadataTensor, Parameters


def model(*inputs: MetadataTensor, content_type: str | None = None) -> MetadataModelResponse:
    parameters = Parameters(content_type=content_type) if content_type else None
    return MetadataModelResponse(name="m", platform="", inputs=list(inputs), parameters=parameters)


def named(name: str, datatype: str, shape: list[int], **parameters: Any) -> MetadataTensor:
    return MetadataTensor(
        name=name,
        datatype=datatype,
        shape=shape,
        parameters=Parameters(**parameters) if parameters else None,
    )


def read_work_items(
    tmp_path: Path, text: str, metadata: MetadataModelResponse | None = None, size: int = 100
) -> list[WorkItem]:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return list(open_source(path, metadata).read_work_items(size, set()))


def inputs(work_item: WorkItem) -> list[tuple[str, str, list[int], Any]]:
    assert work_item.request is not None
    return [
        (each.name, str(each.datatype), each.shape, each.data.root)
        for each in work_item.request.inputs
    ]


def test_the_metadata_defines_columns_and_datatypes(tmp_path: Path) -> None:
    metadata = model(
        named("a", "FP32", [-1, 1]),
        named("b", "BYTES", [-1], content_type="str"),
        content_type="pd",
    )
    [work_item] = read_work_items(tmp_path, "b,extra,a\n1,x,2\n3,y,\n", metadata)
    assert inputs(work_item) == [
        ("b", "BYTES", [2], ["1", "3"]),
        ("a", "FP32", [2, 1], [2.0, None]),
    ]
    assert work_item.request is not None
    assert work_item.request.parameters == Parameters(content_type="pd")
    assert work_item.request.inputs[0].parameters == Parameters(content_type="str")


def test_one_wide_input_has_the_whole_row(tmp_path: Path) -> None:
    [work_item] = read_work_items(
        tmp_path, "a,b\n1,2\n3,4\n", model(named("input-0", "FP64", [-1, 2]))
    )
    assert inputs(work_item) == [("input-0", "FP64", [2, 2], [1.0, 2.0, 3.0, 4.0])]


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    metadata = model(named("a", "FP32", [-1, 1]), named("b", "FP32", [-1, 1], required=False))
    [work_item] = read_work_items(tmp_path, "a\n1\n", metadata)
    assert [name for name, *_ in inputs(work_item)] == ["a"]
    with pytest.raises(CommandError, match="no column 'a'"):
        read_work_items(tmp_path, "b\n1\n", metadata)


def test_datatypes_are_inferred_from_values(tmp_path: Path) -> None:
    text = "\ufeffint,big,float,flag,text\n1,9223372036854775808,1e3,yes,ä\n-2,1,,no,\n"
    [work_item] = read_work_items(tmp_path, text)
    kinds = {name: datatype for name, datatype, *_ in inputs(work_item)}
    assert kinds == {
        "int": "INT64",
        "big": "FP64",
        "float": "FP64",
        "flag": "BOOL",
        "text": "BYTES",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(tmp_path: Path, delimiter: str) -> None:
    [work_item] = read_work_items(tmp_path, f"a{delimiter}b\n1{delimiter}2\n")
    assert [name for name, *_ in inputs(work_item)] == ["a", "b"]


def test_invalid_rows_fail_alone(tmp_path: Path) -> None:
    metadata = model(named("a", "INT8", [-1]))
    [work_item] = read_work_items(tmp_path, "a,b\n1,x\n300,x\n1.5,x\n2\n7.0,x\n", metadata)
    assert work_item.items == [0, 4]
    assert inputs(work_item) == [("a", "INT8", [2], [1, 7])]
    messages = {number: failure.message for number, failure in work_item.failed.items()}
    assert messages == {
        1: "column 'a': expected a number in the range of INT8, received 300",
        2: "column 'a': expected an integer, received '1.5'",
        3: "expected 2 values, received 1",
    }


def test_rows_are_grouped_without_finished_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "\n".join(map(str, range(7))) + "\n")
    source = open_source(path, None)
    assert source.count() == 7
    assert [work_item.items for work_item in source.read_work_items(2, {1, 2, 3})] == [
        [0, 4],
        [5, 6],
    ]


def test_halves_have_all_rows(tmp_path: Path) -> None:
    [work_item] = read_work_items(tmp_path, "a\n1\n2\n3\n")
    assert work_item.halves is not None
    first, second = work_item.halves()
    assert (first.items, second.items) == ([0], [1, 2])
    assert inputs(second) == [("a", "INT64", [2, 1], [2, 3])]


@pytest.mark.parametrize("text", ["", "a,a\n1,2\n"])
def test_a_table_needs_a_header(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match="header"):
        read_work_items(tmp_path, text)


@pytest.mark.parametrize(
    "datatype, text, value",
    [
        ("FP64", "1e300", 1e300),
        ("FP32", "inf", float("inf")),
        ("INT64", str(2**63 - 1), 2**63 - 1),
        ("UINT8", "255", 255),
        ("BOOL", " True ", True),
        ("BYTES", " as is ", " as is "),
    ],
)
def test_cells(datatype: str, text: str, value: object) -> None:
    assert get_parser(datatype)(text) == value


@pytest.mark.parametrize(
    "datatype, text",
    [
        ("FP64", "1_0"),
        ("INT64", "1_0"),
        ("INT64", ""),
        ("UINT8", "-1"),
        ("FP32", "1e300"),
        ("FP16", "70000"),
        ("BOOL", ""),
    ],
)
def test_cells_that_do_not_fit(datatype: str, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        get_parser(datatype)(text)
