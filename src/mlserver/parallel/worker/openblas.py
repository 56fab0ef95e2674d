"""Number of threads of the OpenBLAS libraries that this process has loaded.

OpenBLAS starts its threads when it is loaded, so a template process loads it with one thread
(`OPENBLAS_NUM_THREADS`), and its forks set the number that a new interpreter would have. Other
libraries start threads at the first computation and read their environment variables in the fork.
"""

from __future__ import annotations

import ctypes
import os
import re

_LIBRARY = re.compile(r"openblas[^/]*\.so")
# Names in NumPy's and SciPy's wheels, and in distributions.
_SETTERS = tuple(
    f"{prefix}openblas_set_num_threads{suffix}"
    for prefix in ("", "scipy_")
    for suffix in ("", "64_", "_64")
)


def set_threads(count: int) -> None:
    """Set the number of threads of each loaded OpenBLAS; 0 = unchanged."""
    for path in _list_libraries() if count else ():
        library = ctypes.CDLL(path)
        for setter in _SETTERS:
            if hasattr(library, setter):
                getattr(library, setter)(ctypes.c_int(count))
                break


def _list_libraries() -> list[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if _LIBRARY.search(line)}
    except OSError:
        return []
    return [path for path in sorted(paths) if os.path.exists(path)]
