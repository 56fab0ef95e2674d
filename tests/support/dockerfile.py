"""Parser of the Dockerfiles that `mlserver dockerfile` writes, with the rules that all follow."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlserver.cli.image_spec import ImageSpec
from mlserver.cli.image_text import render_dockerfile

WORDS = {"FROM", "ENV", "LABEL", "RUN", "COPY", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "CMD"}
PYTHON = "/opt/mlserver/bin/python"


@dataclass
class Dockerfile:
    """Instructions of a Dockerfile; parsing checks the rules that every Dockerfile must follow."""

    context: Path
    text: str
    steps: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for line in self.text.splitlines():
            if not line or line.startswith("#"):
                continue
            word, _, rest = line.partition(" ")
            assert word in WORDS, line
            self.steps.append((word, self.read(word, rest)))
        build, image = self["FROM"]
        assert self.steps[0] == ("FROM", build)
        assert build == f"{image} AS build"
        assert [word for word, _ in self.steps].count("CMD") == 1
        self.check_user()

    def read(self, word: str, rest: str) -> Any:
        options = re.match(r"((?:--\S+ )*)(?:CMD )?", rest)
        assert options is not None
        arguments = rest[options.end() :]
        if word in ("RUN", "CMD", "HEALTHCHECK", "COPY"):
            array = json.loads(arguments)  # Docker runs anything else in a shell
            assert all(isinstance(each, str) for each in array)
            if word == "COPY" and not options[1].startswith("--from"):
                assert (self.context / array[0]).exists()
            return array
        return arguments

    def check_user(self) -> None:
        """The server does not run as root, and cannot write to installed packages."""
        words = [word for word, _ in self.steps]
        assert self["USER"] == ["1000"]
        assert words.index("USER") < words.index("CMD")
        assert "RUN" not in words[words.index("USER") :]

    def __getitem__(self, word: str) -> list[Any]:
        return [value for name, value in self.steps if name == word]

    @property
    def installed(self) -> list[str]:
        [words] = [run for run in self["RUN"] if run[:4] == [PYTHON, "-m", "pip", "install"]]
        return list(words[4:])

    @property
    def copied(self) -> list[str]:
        """What is copied from the context and other contexts, in the stage `build` and after it."""
        return [source for source, _ in self["COPY"] if source != "/opt/mlserver"]

    @property
    def image(self) -> str:
        """Text of the last stage: what is in the image."""
        return self.text[self.text.rindex("FROM ") :]


def make_dockerfile(folder: Path, python: str | None = None, **options: Any) -> Dockerfile:
    return Dockerfile(folder, render_dockerfile(ImageSpec.from_folder(folder, python), **options))
