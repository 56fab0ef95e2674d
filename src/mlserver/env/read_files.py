"""Reads the requirements in a model's files, in a separate process.

The server starts `python -m mlserver.env.read_files`, because reading may import the model's
libraries. stdin: the model's settings as a frame. stdout: one JSON object, `EnvironmentFiles` or
`{"error", "status"}`.
"""

from __future__ import annotations

import json
import os
import sys

from ..errors import MLServerError
from ..runtime_hooks import EnvironmentFiles, find_hooks
from ..settings import ModelSettings


def main() -> None:
    # Libraries that fetch models print to stdout too: their text goes to stderr.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = ModelSettings.from_frame(sys.stdin.buffer.read())
    result: EnvironmentFiles | dict[str, str | int]
    try:
        result = find_hooks(settings.implementation_).read_environment(settings)
    except MLServerError as error:
        result = {"error": error.message, "status": error.status_code}
    with output:
        json.dump(result, output)


if __name__ == "__main__":
    main()
