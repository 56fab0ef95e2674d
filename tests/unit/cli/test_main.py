"""The command `mlserver`: help, usage errors in one line, exit codes, completion."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlserver.cli import main
from mlserver.cli.serve import get_model_name
from mlserver.errors import MLServerError
from support.server import run_mlserver

COMMANDS = [
    "start",
    "demo",
    "check",
    "infer",
    "drift",
    "init",
    "settings",
    "dockerfile",
    "build",
    "key",
    "trust",
    "completion",
    "version",
]


def test_help_lists_every_command() -> None:
    code, text = run_mlserver("--help")
    assert code == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in text] == []


def test_no_command_shows_the_help() -> None:
    assert run_mlserver() == run_mlserver("--help")


def test_help_is_fast() -> None:
    """Measures CPU time, which does not depend on the load of the machine."""
    code = (
        "import resource, subprocess, sys\n"
        "command = [sys.executable, '-m', 'mlserver', '--help']\n"
        "subprocess.run(command, stdout=subprocess.DEVNULL, check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    code, text = run_mlserver(name, "--help")
    assert code == 0
    assert f"mlserver {name}" in text
    examples = text.partition("Examples:")[2].partition("Options:")[0]
    expected = 1 if name == "version" else 2
    assert examples.count(f"mlserver {name}") >= expected, text


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["strat"], "mlserver: No such command 'strat'. Did you mean 'start'?"),
        (["xyzzy"], "mlserver: No such command 'xyzzy'. See"),
        (["start", "--http-prt", "1"], "--http-port"),
        (
            ["start", "/no/such/folder"],
            "/no/such/folder: expected a folder with models, but it does not exist",
        ),
        (["start", "models:/"], "models:/: expected a model URI"),
        (["start", "--http-port", "99999", "."], "--http-port"),
        (["start", "--name", "x", "."], "is not an MLflow model"),
        (["infer"], "mlserver infer: Missing option"),
        (["completion", "tcsh"], "mlserver completion: Invalid value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors_are_one_line(arguments: list[str], expected: str) -> None:
    code, text = run_mlserver(*arguments)
    assert code == 2
    assert expected in text
    assert text.startswith("mlserver")
    assert text.count("\n") == 1


def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run_mlserver("start", ".", env={"MLSERVER_HTTP_PORT": "many"})
    assert (code, text.count("\n")) == (2, 1)
    assert "MLSERVER_HTTP_PORT" in text


def test_main_raises_system_exit() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["version"])
    assert ended.value.code == 0


def test_version_prints_related_packages() -> None:
    code, text = run_mlserver("version")
    assert code == 0
    assert text.startswith("mlserver 2.")
    assert "\npydantic " in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    code, text = run_mlserver("completion", shell)
    assert code == 0
    assert "_MLSERVER_COMPLETE" in text


def test_completion_returns_commands() -> None:
    environment = {
        "_MLSERVER_COMPLETE": "bash_complete",
        "COMP_WORDS": "mlserver comp",
        "COMP_CWORD": "1",
    }
    code = "from mlserver.cli import main; main(prog_name='mlserver')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "plain,completion"


@pytest.mark.parametrize(
    "uri, name",
    [
        ("models:/wine@champion", "wine"),
        ("models:/wine/3", "wine"),
        ("models:/wine/Production", "wine"),
        ("models:/m-0123abcd", "m-0123abcd"),
        ("runs:/0123abcd/model", "model"),
        ("runs:/0123abcd/some/path/", "path"),
        ("s3://bucket/models/wine", "wine"),
        ("file:///srv/models/wine?x=1", "wine"),
    ],
)
def test_the_model_name_of_a_uri(uri: str, name: str) -> None:
    assert get_model_name(uri) == name


def test_a_uri_without_a_model_is_refused() -> None:
    with pytest.raises(MLServerError, match=r"models:/name@alias"):
        get_model_name("runs:/")
