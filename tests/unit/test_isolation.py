"""Code that models ship, prepared for import while other threads import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import FileFinder
from pathlib import Path
from threading import Event, Thread

import pytest

from mlserver.isolation import ShippedCode, claim, release

FINDER = FileFinder("/nowhere")
# Entries of the import cache: with so many, one of two loops without a copy meets a change of it.
ENTRIES = [f"/elsewhere/{number}" for number in range(1000)]


@pytest.fixture
def _imports_in_a_thread() -> Iterator[None]:
    """A thread adds to and removes from the caches of imports, as imports of other models do."""
    is_over, started = Event(), Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads alternate within a loop
    sys.path_importer_cache.update(dict.fromkeys(ENTRIES, FINDER))

    def change_caches() -> None:
        number = 0
        while not is_over.is_set():
            names = [f"/nowhere/{number + index}" for index in range(50)]
            for name in names:
                sys.path_importer_cache[name] = FINDER
            for name in names:
                sys.path_importer_cache.pop(name, None)
            number += 1
            started.set()

    thread = Thread(target=change_caches)
    thread.start()
    started.wait()
    yield
    is_over.set()
    thread.join()
    sys.setswitchinterval(interval)
    for name in ENTRIES:
        sys.path_importer_cache.pop(name, None)


@pytest.mark.usefixtures("_imports_in_a_thread")
def test_models_are_loaded_while_other_threads_import(tmp_path: Path) -> None:
    """CPython raises `RuntimeError` for a loop over a dictionary that another thread changes."""
    (tmp_path / "prep_of_a_test.py").write_text("")
    file, module = "prep_of_a_test.py", "prep_of_a_test"
    code = ShippedCode(str(tmp_path), (file,), frozenset({module}), frozenset(), (file,))
    for _ in range(8):
        release(claim("m", code))
