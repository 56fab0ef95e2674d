"""Coverage-guided fuzzing of one format: `python tests/fuzz/atheris_run.py TARGET [CORPUS] [options of libFuzzer]`.

Needs atheris (`pip install atheris`). The targets and the corpus are those of this folder, which runs them as plain tests; what is
found here is added to tests/corpus/TARGET, named by what it did.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.path.insert(0, str(TESTS))
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["mlserver", "mlserver_mlflow"]):
        from fuzz.targets import TARGETS

    names = [name for name in sys.argv[1:2] if name in TARGETS]
    if not names:
        raise SystemExit(f"usage: {sys.argv[0]} {{{','.join(TARGETS)}}} [corpus folder] [options of libFuzzer]")
    name = names[0]
    rest = sys.argv[2:] or [str(TESTS / "corpus" / name)]
    atheris.Setup([sys.argv[0], *rest], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
