"""Coverage-guided fuzzing of one format: `python tests/fuzz/atheris_run.py TARGET [FOLDER]
[options of libFuzzer]`.

It needs atheris, in a separate environment that has access to this one's packages:

    python3.11 -m venv .venvs/atheris && .venvs/atheris/bin/pip install atheris
    PYTHONPATH=src:runtimes/mlflow:$(echo .venv/lib/python3*/site-packages) \\
        .venvs/atheris/bin/python tests/fuzz/atheris_run.py json -max_total_time=60 -max_len=8192

The targets are those that `test_fuzz.py` runs over tests/corpus. The search starts with that
corpus; bodies of new coverage are written to FOLDER (default: a temporary one), a body that raised,
hung or used too much memory to the current folder. Add such a body to tests/corpus/TARGET, named
after its effect.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
# Instrument the modules that the targets import late, too.
LATE = (
    "mlserver.wire.arrow.stream",
    "mlserver.wire.large_json",
    "mlserver_mlflow.invocations",
    "mlserver_mlflow.invocations.scoring",
)


def main() -> None:
    sys.path.insert(0, str(TESTS))
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=["mlserver", "mlserver_mlflow", "mlflow.pyfunc.scoring_server"]
    ):
        from fuzz.targets import TARGETS

        for name in LATE:
            importlib.import_module(name)
    names = [name for name in sys.argv[1:2] if name in TARGETS]
    if not names:
        raise SystemExit(
            f"usage: {sys.argv[0]} {{{','.join(TARGETS)}}} [folder] [options of libFuzzer]"
        )
    rest = sys.argv[2:]
    if not rest or rest[0].startswith("-"):
        rest.insert(0, tempfile.mkdtemp(prefix="mlserver-fuzz-"))
    atheris.Setup(
        [sys.argv[0], rest[0], str(TESTS / "corpus" / names[0]), *rest[1:]], TARGETS[names[0]]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
