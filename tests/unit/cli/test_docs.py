"""The pages about the command line and custom runtimes match the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from mlserver.cli import main

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    by_name = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in by_name.items() if command is not None}


@pytest.mark.parametrize("name", commands())
def test_every_command_is_described(name: str) -> None:
    assert f"`{name}`" in (DOCS / "reference" / "cli.md").read_text()


@pytest.mark.parametrize("name", ["start", "check", "infer", "init", "dockerfile", "build"])
def test_every_option_is_described(name: str) -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    options = [
        option
        for param in commands()[name].params
        if isinstance(param, click.Option)
        for option in param.opts
    ]
    assert [option for option in options if f"`{option}`" not in text] == []


def test_code_blocks_are_part_of_the_examples() -> None:
    sources = [
        path.read_text()
        for path in (ROOT / "examples" / "custom-runtimes").rglob("*.*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    blocks = re.findall(
        r"```(?:python|json)\n(.*?)```",
        (DOCS / "tutorials" / "custom-runtime.md").read_text(),
        re.DOTALL,
    )
    assert len(blocks) >= 8
    for block in blocks:
        assert any(block in source for source in sources), block
