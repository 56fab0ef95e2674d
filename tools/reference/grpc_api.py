"""Services and messages over gRPC, from the .proto files with their comments."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from .markdown import code, start_page, table

SOURCES = Path(__file__).resolve().parents[2] / "proto"
FILES = ("dataplane", "model_repository", "health")
_REPEATED = FieldDescriptorProto.LABEL_REPEATED
# Numbers of fields in descriptor.proto, which make up the path of a comment.
_MESSAGES, _SERVICES, _FIELDS, _NESTED = 4, 6, 2, 3
_METHODS = 2


def page() -> str:
    lines = start_page(
        "gRPC API",
        "proto/*.proto",
        "The Open Inference Protocol (V2) over gRPC, on the port `grpc_port` (8081). Server "
        "reflection "
        "is on, so that grpcurl and similar tools need no `.proto` files; they are in the folder "
        "`proto/` of the source. Clients: [grpcurl, tritonclient and "
        "others](../how-to/clients.md). "
        "Status codes: [error codes](errors.md).",
    )
    for file in _compile().file:
        if file.name.removesuffix(".proto") in FILES:
            lines += _file(file)
    return "\n".join(lines).rstrip() + "\n"


def _compile() -> FileDescriptorSet:
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors"
        sources = [str(SOURCES / f"{name}.proto") for name in FILES]
        options = [f"-I{SOURCES}", "--include_source_info", f"--descriptor_set_out={target}"]
        if protoc.main(["protoc", *options, *sources]):
            raise SystemExit("protoc failed")
        return FileDescriptorSet.FromString(target.read_bytes())


def _file(file: Any) -> list[str]:
    locations = file.source_code_info.location
    comments = {tuple(location.path): _comment(location) for location in locations}
    lines: list[str] = []
    for number, service in enumerate(file.service):
        lines += [f"## {file.package}.{service.name}", "", f"`proto/{file.name}`", ""]
        rows = []
        for index, method in enumerate(service.method):
            text = comments.get((_SERVICES, number, _METHODS, index), "")
            request = _stream(method.client_streaming) + _message_link(method.input_type)
            response = _stream(method.server_streaming) + _message_link(method.output_type)
            rows.append((code(method.name), request, response, text))
        lines += table(("method", "request", "response", "action"), rows)
    for number, message in enumerate(file.message_type):
        for name, path, nested in _with_nested(message, message.name, (_MESSAGES, number)):
            lines += _message(name, path, nested, comments)
    return lines


def _with_nested(
    message: Any, name: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    yield name, path, message
    for number, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _with_nested(nested, f"{name}.{nested.name}", (*path, _NESTED, number))


def _message(
    name: str, path: tuple[int, ...], message: Any, comments: dict[tuple[int, ...], str]
) -> list[str]:
    lines = [f"### {name}", ""]
    if comments.get(path):
        lines += [comments[path], ""]
    if not message.field:
        return [*lines, "No fields.", ""]
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = []
    for index, field in enumerate(message.field):
        text = comments.get((*path, _FIELDS, index), "")
        rows.append((str(field.number), code(field.name), _field_type(field, maps), text))
    if not any(row[3] for row in rows):
        return lines + table(("number", "field", "type"), [row[:3] for row in rows])
    return lines + table(("number", "field", "type", "meaning"), rows)


def _field_type(field: Any, maps: dict[str, Any]) -> str:
    short = field.type_name.rpartition(".")[2]
    if short in maps:
        key, value = maps[short].field
        return f"map of {_field_type(key, {})} to {_field_type(value, {})}"
    if field.type_name:
        text = _message_link(field.type_name)
    else:
        text = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {text}" if field.label == _REPEATED else text


def _message_link(type_name: str) -> str:
    """Return a link to a message; one of another package or file is plain text."""
    name = re.sub(r"^\.(inference\.model_repository|inference|grpc\.health\.v1)\.", "", type_name)
    if not re.search(rf"^ *message {name.rpartition('.')[2]} ", _sources(), re.MULTILINE):
        return code(name.lstrip("."))
    return f"[{name}](#{name.lower().replace('.', '')})"


@cache
def _sources() -> str:
    return "\n".join((SOURCES / f"{name}.proto").read_text() for name in FILES)


def _stream(is_stream: bool) -> str:
    return "stream of " if is_stream else ""


def _comment(location: Any) -> str:
    return " ".join(location.leading_comments.split())
