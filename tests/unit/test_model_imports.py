"""Models' code in folders: the right module for each, however many share its name, and a clean search path."""

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
def _modules_as_before() -> Iterator[None]:
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


def test_an_installed_class() -> None:
    assert model_imports.load("pathlib.Path", None, "x") is Path
    assert model_imports.load("pathlib:Path", None, "x") is Path


def test_a_nested_class(tmp_path: Path) -> None:
    folder = write(tmp_path, nested_runtime="class Outer:\n    class Inner: pass\n")
    inner = model_imports.load("nested_runtime.Outer.Inner", folder, "x")
    assert model_imports.load("nested_runtime:Outer.Inner", folder, "x") is inner
    assert model_imports.path_of(inner) == "nested_runtime.Outer.Inner"


def test_the_same_class_each_time(tmp_path: Path) -> None:
    folder = write(tmp_path, stable_runtime="class Model: pass")
    first = model_imports.load("stable_runtime.Model", folder, "x")
    assert model_imports.load("stable_runtime.Model", folder, "x") is first
    assert first.__module__ == "stable_runtime"


def test_two_folders_with_the_same_names(tmp_path: Path) -> None:
    a = write(tmp_path / "a", runtime=RUNTIME, helper="WHO = 'a'")
    b = write(tmp_path / "b", runtime=RUNTIME, helper="WHO = 'b'")
    first = model_imports.load("runtime.Model", a, "x")
    second = model_imports.load("runtime.Model", b, "x")
    assert (first.who, second.who) == ("a", "b")
    assert model_imports.load("runtime.Model", a, "x") is first
    assert model_imports.load("runtime.Model", b, "x") is second


@pytest.mark.parametrize("call", ["plain", "member", "deep", "deep_member", "relative"])
def test_imports_inside_functions_stay_in_the_folder(call: str, tmp_path: Path) -> None:
    # The first claims the names, so the second and third are kept apart.
    models = [
        model_imports.load("runtime.Model", late(tmp_path / who, who), "x")
        for who in ("a", "b", "c")
    ]
    assert [getattr(model(), call)() for model in models[1:]] == ["b", "c"]
    assert models[1]().world() == "/1OrderedDict"


def test_a_helper_alone_may_share_its_name(tmp_path: Path) -> None:
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
    assert model_imports.load("only_a.Model", a, "x").who == "a"
    assert model_imports.load("only_b.Model", b, "x").who == "b"


def test_changed_files_are_read_and_the_old_class_lives_on(tmp_path: Path) -> None:
    folder = write(tmp_path, runtime=RUNTIME, helper="WHO = 'old'")
    old = model_imports.load("runtime.Model", folder, "x")
    write(tmp_path, helper="WHO = 'newer'")
    new = model_imports.load("runtime.Model", folder, "x")
    assert (old.who, new.who) == ("old", "newer")


def test_changes_within_a_second_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes compiled code for current by the source's size and its time in whole seconds."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for who in ("one", "two", "six"):
        folder = write(tmp_path, runtime=RUNTIME, helper=f"WHO = '{who}'")
        second = 1_700_000_000 * 10**9 + sum(map(ord, who))
        os.utime(tmp_path / "helper.py", ns=(second, second))
        assert model_imports.load("runtime.Model", folder, "x").who == who


@pytest.mark.parametrize("runtime", [RUNTIME.replace("import helper", "from loose import helper")])
def test_packages_without_init_are_the_folders_own(runtime: str, tmp_path: Path) -> None:
    for who in ("a", "b"):
        folder = write(tmp_path / who, runtime=runtime, loose__in__helper=f"WHO = '{who}'")
        model = model_imports.load("runtime.Model", folder, "x")
        assert model.who == who
        assert model_imports.load("runtime.Model", folder, "x") is model


def test_a_folder_of_files_hides_no_installed_package(tmp_path: Path) -> None:
    for who in ("a", "b"):
        text = "import iniconfig\nclass Model:\n    who = iniconfig.IniConfig.__name__\n"
        folder = write(tmp_path / who, runtime=text, iniconfig__in__other="")
        assert model_imports.load("runtime.Model", folder, "x").who == "IniConfig"


def test_a_file_that_was_wrong_and_is_mended(tmp_path: Path) -> None:
    folder = write(tmp_path, mended="class Model(:")
    with pytest.raises(SyntaxError):
        model_imports.load("mended.Model", folder, "x")
    write(tmp_path, mended="class Model: good = True")
    assert model_imports.load("mended.Model", folder, "x").good


def test_another_models_module_is_never_an_answer(tmp_path: Path) -> None:
    model_imports.load(
        "runtime.Model", write(tmp_path / "a", runtime=RUNTIME, helper="WHO = 'a'"), "x"
    )
    with pytest.raises(SettingsError, match="No module named 'runtime'"):
        model_imports.load("runtime.Model", write(tmp_path / "b", other=""), "x")


def test_a_module_on_the_search_path_is_found_though_another_model_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(
        write(tmp_path / "shared", runtime=RUNTIME, helper="WHO = 'shared'")
    )
    own = write(tmp_path / "own", runtime=RUNTIME, helper="WHO = 'own'")
    assert model_imports.load("runtime.Model", own, "x").who == "own"
    assert model_imports.load("runtime.Model", str(tmp_path), "x").who == "shared"


def test_the_standard_library_is_not_hidden(tmp_path: Path) -> None:
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
    assert model_imports.load("runtime.Model", a, "x").who("s") == '"s"'
    assert model_imports.load("runtime.Model", b, "x").who("s") == '"s"'


@pytest.mark.parametrize(
    "text", ["class Model: pass", "raise RuntimeError('no')", "import not_there_at_all"]
)
@pytest.mark.parametrize("kept_apart", [False, True])
def test_the_search_path_is_as_before(text: str, kept_apart: bool, tmp_path: Path) -> None:
    if kept_apart:
        model_imports.load(
            "runtime.Model", write(tmp_path / "first", runtime="class Model: pass"), "x"
        )
    before = list(sys.path)
    with contextlib.suppress(RuntimeError, SettingsError):
        model_imports.load("runtime.Model", write(tmp_path / "second", runtime=text), "x")
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
def test_what_cannot_be_imported_is_said_in_one_line(
    path: str, expected: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, broken="import not_there_at_all")
    with pytest.raises(SettingsError) as caught:
        model_imports.load(path, folder, "model 'm': implementation")
    assert caught.value.message.startswith("model 'm': implementation: ")
    assert expected in caught.value.message


def test_types_of_a_class_kept_apart_can_be_resolved(tmp_path: Path) -> None:
    from typing import get_type_hints

    text = "from __future__ import annotations\nclass Own: pass\nclass Model:\n    field: Own\n"
    classes: list[Any] = [
        model_imports.load("typed_runtime.Model", write(tmp_path / who, typed_runtime=text), "x")
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
def test_a_module_that_imports_late_tells_the_true_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str, reason: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(tmp_path, lazy_outer=LAZY, lazy_inner=inner)
    with pytest.raises(SettingsError) as failed:
        model_imports.load("lazy_outer.Model", folder, "model 'm': implementation")
    assert f"'lazy_outer.Model' cannot be imported: {reason}" in failed.value.message


@pytest.mark.parametrize(
    "path", ["lazy_outer.Nothing", "lazy_outer.Nothing.Inner", "lazy_outer:Nothing"]
)
def test_a_module_without_the_name_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = write(tmp_path, lazy_outer=LAZY, lazy_inner="class Model: pass\n")
    with pytest.raises(SettingsError, match=r"has no 'Nothing|No module named"):
        model_imports.load(path, folder, "model 'm': implementation")
    assert model_imports.load("lazy_outer.Model", folder, "x").__name__ == "Model"
