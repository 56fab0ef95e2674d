"""Code generator for the .proto files: `make proto` (needs grpcio-tools).

protoc's own modules would register their classes in the process-wide descriptor pool, where other
clients of the protocol (tritonclient, kserve) register equal names. The generated modules build the
classes from serialized descriptors in a separate pool; protoc's typed stubs describe them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

SOURCES = Path(__file__).parent
TARGET = SOURCES.parent / "src" / "mlserver" / "wire" / "pb"
# In order of import.
NAMES = ("model_config", "dataplane", "model_repository", "health", "reflection")


def generate(target: Path) -> None:
    """Write all generated modules and stubs into `target`."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = _compile(Path(scratch))
        for name in NAMES:
            stub = (Path(scratch) / f"{name}_pb2.pyi").read_text()
            _write(target / f"{name}_pb2.pyi", _make_imports_relative(stub))
    _write(target / "descriptors_pb2.py", _descriptors_module(descriptors))
    for file in descriptors.file:
        _write(target / file.name.replace(".proto", "_pb2.py"), _messages_module(file))


def _compile(scratch: Path) -> FileDescriptorSet:
    """Run protoc; the stubs go to `scratch`."""
    from grpc_tools import protoc

    compiled = scratch / "descriptors"
    sources = [str(SOURCES / f"{name}.proto") for name in NAMES]
    includes = [f"-I{SOURCES}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--descriptor_set_out={compiled}", f"--pyi_out={scratch}"]
    if protoc.main(["protoc", *includes, *outputs, *sources]):
        raise SystemExit("protoc failed")
    return FileDescriptorSet.FromString(compiled.read_bytes())


def _make_imports_relative(stub: str) -> str:
    return re.sub(r"^import (\w+_pb2) as", r"from . import \1 as", stub, flags=re.MULTILINE)


def _descriptors_module(descriptors: FileDescriptorSet) -> str:
    head = (
        '"""The descriptors of our .proto files, serialized.'
        ' Written by `make proto`."""\n\nFILES = (\n'
    )
    return head + "".join(f"    {_literal(file)},\n" for file in descriptors.file) + ")\n"


def _literal(file: FileDescriptorProto) -> str:
    data = file.SerializeToString(deterministic=True)
    pieces = [data[start : start + 64] for start in range(0, len(data), 64)]
    return "b" + "\n    b".join(repr(piece)[1:] for piece in pieces)


def _messages_module(file: FileDescriptorProto) -> str:
    lines = [
        f'"""Messages of {file.name}. Written by `make proto`."""\n',
        "from . import enum_type, file_descriptor, message_class\n",
        f'DESCRIPTOR = file_descriptor("{file.name}")',
    ]
    lines += [f'{m.name} = message_class("{file.package}.{m.name}")' for m in file.message_type]
    for enum in file.enum_type:
        lines.append(f'{enum.name} = enum_type("{file.package}.{enum.name}")')
        lines += [f"{value.name} = {value.number}" for value in enum.value]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
