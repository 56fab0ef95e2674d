"""Imports skops without the array libraries that it does not need. Import this before MLflow.

- skops calls scikit-learn's `all_estimators()`, which imports every subpackage of scikit-learn,
  also `array_api_compat.torch`, and with it all of PyTorch if that is installed. The trusted types
  are the same without it.
- skops looks up each function of NumPy and SciPy in all loaded modules, of which MLflow adds 1,000.

Measured with `python -m benchmarks.load_steps`, in seconds of processor time and megabytes
of one worker: import order 0.4 s; PyTorch 1.5 s and 180 MB.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

_ARRAY_LIBRARIES = tuple(
    f"sklearn.externals.array_api_compat.{name}" for name in ("torch", "cupy", "dask")
)


@contextmanager
def without_modules(names: tuple[str, ...]) -> Iterator[None]:
    """Make imports of modules that are not loaded yet fail, until the block ends.

    `pkgutil.walk_packages`, which scikit-learn calls, skips a package that fails to import.
    """
    blocked = [name for name in names if name not in sys.modules]
    # `None` makes an import raise `ModuleNotFoundError` (Python's reference of `sys.modules`).
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in blocked:
            sys.modules.pop(name, None)


# Without skops, loading the model reports the import error.
with without_modules(_ARRAY_LIBRARIES), suppress(ImportError):
    import_module("skops.io")
