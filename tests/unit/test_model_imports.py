"""Imports of model code: each folder gets its own modules and `sys.path` is restored."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserver import model_imports
from mlserver.settings import SettingsError


@pytest.fixture(autouse=True)
def _restore_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, **files: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return str(folder)


RUNTIME = "import helper\nclass Model:\n    who = helper.WHO\n"
LATE = """
class Model:
    def plain(self):
        import helper
        return helper.WHO
    def member(self):
        from helper import WHO
        return WHO
    def deep(self):
        import pack.inner
        return pack.inner.WHO
    def deep_member(self):
        from pack import inner
        return inner.WHO
    def relative(self):
        from pack.inner import SIBLING
        return SIBLING
    def world(self):
        import os.path, json
        from collections import OrderedDict
        return os.path.sep + json.dumps(1) + OrderedDict.__name__
"""


def late(folder: Path, who: str) -> str:
    return write(
        folder,
        runtime=LATE,
        helper=f"WHO = {who!r}",
        pack__in____init__="",
        pack__in__inner=f"from .sibling import SIBLING\nWHO = {who!r}",
        pack__in__sibling=f"SIBLING = {who!r}",
    )


def test_installed_class_by_dot_and_colon() -> None:
    assert model_imports.import_class("pathlib.Path", None, "x") is Path
    assert model_imports.import_class("pathlib:Path", None, "x") is Path


def test_files_of_an_installed_runtime_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation is outside site-packages, like the folder of a model."""
    monkeypatch.setattr(model_imports, "compute_fingerprint", None)
    cls = model_imports.import_class("mlserver_mlflow.MLflowRuntime", None, "x")
    assert cls.__module__ == "mlserver_mlflow.runtime"


def test_nested_class(tmp_path: Path) -> None:
    folder = write(tmp_path, nested_runtime="class Outer:\n    class Inner: pass\n")
    inner = model_imports.import_class("nested_runtime.Outer.Inner", folder, "x")
    assert model_imports.import_class("nested_runtime:Outer.Inner", folder, "x") is inner
    assert model_imports.get_import_path(inner) == "nested_runtime.Outer.Inner"


def test_importing_twice_returns_the_same_class(tmp_path: Path) -> None:
    folder = write(tmp_path, stable_runtime="class Model: pass")
    first = model_imports.import_class("stable_runtime.Model", folder, "x")
    assert model_imports.import_class("stable_runtime.Model", folder, "x") is first
    assert first.__module__ == "stable_runtime"


def test_equal_module_names_in_two_folders(tmp_path: Path) -> None:
    a = write(tmp_path / "a", runtime=RUNTIME, helper="WHO = 'a'")
    b = write(tmp_path / "b", runtime=RUNTIME, helper="WHO = 'b'")
    first = model_imports.import_class("runtime.Model", a, "x")
    second = model_imports.import_class("runtime.Model", b, "x")
    assert (first.who, second.who) == ("a", "b")
    assert model_imports.import_class("runtime.Model", a, "x") is first
    assert model_imports.import_class("runtime.Model", b, "x") is second


@pytest.mark.parametrize("call", ["plain", "member", "deep", "deep_member", "relative"])
def test_imports_inside_functions_stay_in_the_folder(call: str, tmp_path: Path) -> None:
    # The first folder gets ordinary imports; the second and third become packages.
    models = [
        model_imports.import_class("runtime.Model", late(tmp_path / who, who), "x")
        for who in ("a", "b", "c")
    ]
    assert [getattr(model(), call)() for model in models[1:]] == ["b", "c"]
    assert models[1]().world() == "/1OrderedDict"


def test_equal_names_of_helper_modules(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a",
        only_a="import helper\nclass Model:\n    who = helper.WHO",
        helper="WHO = 'a'",
    )
    b = write(
        tmp_path / "b",
        only_b="import helper\nclass Model:\n    who = helper.WHO",
        helper="WHO = 'b'",
    )
    assert model_imports.import_class("only_a.Model", a, "x").who == "a"
    assert model_imports.import_class("only_b.Model", b, "x").who == "b"


def test_changed_files_are_imported_again_and_the_old_class_still_works(tmp_path: Path) -> None:
    folder = write(tmp_path, runtime=RUNTIME, helper="WHO = 'old'")
    old = model_imports.import_class("runtime.Model", folder, "x")
    write(tmp_path, helper="WHO = 'newer'")
    new = model_imports.import_class("runtime.Model", folder, "x")
    assert (old.who, new.who) == ("old", "newer")


def test_changes_within_one_second_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python validates compiled code by the size of the source and its time in whole seconds."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for who in ("one", "two", "six"):
        folder = write(tmp_path, runtime=RUNTIME, helper=f"WHO = '{who}'")
        second = 1_700_000_000 * 10**9 + sum(map(ord, who))
        os.utime(tmp_path / "helper.py", ns=(second, second))
        assert model_imports.import_class("runtime.Model", folder, "x").who == who


@pytest.mark.parametrize("runtime", [RUNTIME.replace("import helper", "from loose import helper")])
def test_namespace_packages_belong_to_their_folder(runtime: str, tmp_path: Path) -> None:
    for who in ("a", "b"):
        folder = write(tmp_path / who, runtime=runtime, loose__in__helper=f"WHO = '{who}'")
        model = model_imports.import_class("runtime.Model", folder, "x")
        assert model.who == who
        assert model_imports.import_class("runtime.Model", folder, "x") is model


def test_folder_without_init_does_not_hide_an_installed_package(tmp_path: Path) -> None:
    for who in ("a", "b"):
        text = "import iniconfig\nclass Model:\n    who = iniconfig.IniConfig.__name__\n"
        folder = write(tmp_path / who, runtime=text, iniconfig__in__other="")
        assert model_imports.import_class("runtime.Model", folder, "x").who == "IniConfig"


def test_corrected_file_after_a_syntax_error(tmp_path: Path) -> None:
    folder = write(tmp_path, mended="class Model(:")
    with pytest.raises(SyntaxError):
        model_imports.import_class("mended.Model", folder, "x")
    write(tmp_path, mended="class Model: good = True")
    assert model_imports.import_class("mended.Model", folder, "x").good


def test_module_of_another_model_is_not_found(tmp_path: Path) -> None:
    model_imports.import_class(
        "runtime.Model", write(tmp_path / "a", runtime=RUNTIME, helper="WHO = 'a'"), "x"
    )
    with pytest.raises(SettingsError, match="No module named 'runtime'"):
        model_imports.import_class("runtime.Model", write(tmp_path / "b", other=""), "x")


def test_module_on_the_search_path_with_the_name_of_another_models_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(
        write(tmp_path / "shared", runtime=RUNTIME, helper="WHO = 'shared'")
    )
    local = write(tmp_path / "own", runtime=RUNTIME, helper="WHO = 'own'")
    assert model_imports.import_class("runtime.Model", local, "x").who == "own"
    assert model_imports.import_class("runtime.Model", str(tmp_path), "x").who == "shared"


def test_standard_library_is_not_hidden(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a",
        runtime="import json\nclass Model:\n    who = json.dumps",
        json="raise RuntimeError",
    )
    b = write(
        tmp_path / "b",
        runtime="import json\nclass Model:\n    who = json.dumps",
        json="raise RuntimeError",
    )
    assert model_imports.import_class("runtime.Model", a, "x").who("s") == '"s"'
    assert model_imports.import_class("runtime.Model", b, "x").who("s") == '"s"'


@pytest.mark.parametrize(
    "text", ["class Model: pass", "raise RuntimeError('no')", "import not_there_at_all"]
)
@pytest.mark.parametrize("is_isolated", [False, True])
def test_search_path_is_restored(text: str, is_isolated: bool, tmp_path: Path) -> None:
    if is_isolated:
        model_imports.import_class(
            "runtime.Model", write(tmp_path / "first", runtime="class Model: pass"), "x"
        )
    before = list(sys.path)
    with contextlib.suppress(RuntimeError, SettingsError):
        model_imports.import_class("runtime.Model", write(tmp_path / "second", runtime=text), "x")
    assert sys.path == before


@pytest.mark.parametrize(
    "path, expected",
    [
        ("Model", "expected an import path such as 'package.module.Class', received 'Model'"),
        ("", "expected an import path"),
        (
            "no_such_module.Model",
            "'no_such_module.Model' cannot be imported: No module named 'no_such_module'",
        ),
        (
            "pathlib.Nothing",
            "'pathlib.Nothing' cannot be imported: module 'pathlib' has no 'Nothing'",
        ),
        ("broken.Model", "'broken.Model' cannot be imported: No module named 'not_there_at_all'"),
    ],
)
def test_error_in_one_line(path: str, expected: str, tmp_path: Path) -> None:
    folder = write(tmp_path, broken="import not_there_at_all")
    with pytest.raises(SettingsError) as caught:
        model_imports.import_class(path, folder, "model 'm': implementation")
    assert caught.value.message.startswith("model 'm': implementation: ")
    assert expected in caught.value.message


def test_type_hints_of_an_isolated_class(tmp_path: Path) -> None:
    from typing import get_type_hints

    text = "from __future__ import annotations\nclass Own: pass\nclass Model:\n    field: Own\n"
    classes: list[Any] = [
        model_imports.import_class(
            "typed_runtime.Model", write(tmp_path / who, typed_runtime=text), "x"
        )
        for who in "ab"
    ]
    hints = [get_type_hints(each)["field"] for each in classes]
    assert hints[0] is not hints[1]


LAZY = """
def __getattr__(name):
    if name == "Model":
        from lazy_inner import Model
        return Model
    raise AttributeError(f"module has no attribute {name!r}")
"""


@pytest.mark.parametrize(
    "inner, reason",
    [
        (
            "import json\njson.no_such_function\n",
            "AttributeError: module 'json' has no attribute 'no_such_function'",
        ),
        ("raise AttributeError('the true reason')\n", "AttributeError: the true reason"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("Other = 1\n", "ImportError: cannot import name 'Model'"),
    ],
)
def test_failed_import_in_module_getattr_reports_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str, reason: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(tmp_path, lazy_outer=LAZY, lazy_inner=inner)
    with pytest.raises(SettingsError) as failed:
        model_imports.import_class("lazy_outer.Model", folder, "model 'm': implementation")
    assert f"'lazy_outer.Model' cannot be imported: {reason}" in failed.value.message


@pytest.mark.parametrize(
    "path", ["lazy_outer.Nothing", "lazy_outer.Nothing.Inner", "lazy_outer:Nothing"]
)
def test_missing_name_in_a_module_with_getattr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(tmp_path, lazy_outer=LAZY, lazy_inner="class Model: pass\n")
    with pytest.raises(SettingsError, match=r"has no 'Nothing|No module named"):
        model_imports.import_class(path, folder, "model 'm': implementation")
    assert model_imports.import_class("lazy_outer.Model", folder, "x").__name__ == "Model"
