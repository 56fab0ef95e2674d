"""`mlserver dockerfile` and `build`: the file is read as Docker reads it, and checked for what an image should be."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlserver.cli.build import arguments
from mlserver.cli.image_spec import dockerfile, look_at
from mlserver.version import __version__
from support.models import Models
from support.repository import write_model, write_server_settings
from support.server import run_mlserver

WORDS = {"FROM", "ENV", "RUN", "COPY", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "CMD"}


@dataclass
class Dockerfile:
    """A Dockerfile's instructions, with the rules that each must keep checked while it is read."""

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
        assert self.steps[0][0] == "FROM"
        assert re.fullmatch(r"python:3\.\d+-slim", self.steps[0][1])
        assert [word for word, _ in self.steps].count("CMD") == 1
        self.check_user()

    def read(self, word: str, rest: str) -> Any:
        options = re.match(r"((?:--\S+ )*)(?:CMD )?", rest)
        assert options is not None
        arguments = rest[options.end() :]
        if word in ("RUN", "CMD", "HEALTHCHECK", "COPY"):
            array = json.loads(arguments)  # Docker runs anything else in a shell
            assert all(isinstance(each, str) for each in array)
            if word == "COPY":
                assert (self.context / array[0]).exists()
            return array
        return arguments

    def check_user(self) -> None:
        """What serves is not root, and cannot write to what is installed."""
        words = [word for word, _ in self.steps]
        assert self["USER"] == ["1000"]
        assert words.index("USER") < words.index("CMD")
        assert "RUN" not in words[words.index("USER") :]

    def __getitem__(self, word: str) -> list[Any]:
        return [value for name, value in self.steps if name == word]

    @property
    def installed(self) -> list[str]:
        [words] = [run for run in self["RUN"] if run[:4] == ["python", "-m", "pip", "install"]]
        return list(words[4:])

    @property
    def copied(self) -> list[str]:
        return [source for source, _ in self["COPY"]]


def made_for(folder: Path, python: str | None = None, **options: Any) -> Dockerfile:
    return Dockerfile(folder, dockerfile(look_at(folder, python), **options))


def test_a_folder_with_a_model(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_server_settings(tmp_path, http_port=9000)
    found = made_for(tmp_path)
    assert found["CMD"] == [["mlserver", "start", "/mnt/models"]]
    assert found["EXPOSE"] == ["9000 8081 8082"]
    assert "127.0.0.1:9000/v2/health/live" in found["HEALTHCHECK"][0][-1]
    assert found.installed == [f"mlserver=={__version__}"]
    assert found.copied == ["."]


def test_health_is_asked_as_the_server_speaks(tmp_path: Path) -> None:
    tls = {"certificate": "cert.pem", "key": "key.pem"}
    write_server_settings(tmp_path, tls=tls)
    assert (
        "'https://127.0.0.1:8080/v2/health/live', context="
        in made_for(tmp_path)["HEALTHCHECK"][0][-1]
    )
    write_server_settings(tmp_path, tls={**tls, "client_ca": "ca.pem"})
    assert made_for(tmp_path)["HEALTHCHECK"] == []


def test_an_mlflow_model(models: Models) -> None:
    found = made_for(models["wine"])
    assert f"mlserver-mlflow=={__version__}" in found.installed
    assert found.installed[-2:] == ["--requirement", "/opt/requirements/requirements.txt"]
    assert found.copied == ["requirements.txt", "."]


def test_requirements_files_are_followed(tmp_path: Path) -> None:
    write_model(tmp_path / "a model")
    (tmp_path / "base.txt").write_text("numpy<3  # a comment\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("scipy<2\n")
    (tmp_path / "requirements.txt").write_text("-r base.txt\nscipy; python_version > '3'\n")
    (tmp_path / "a model" / "requirements.txt").write_text("pandas\n")
    found = made_for(tmp_path)
    assert sorted(found.copied) == [
        ".",
        "a model/requirements.txt",
        "base.txt",
        "limits.txt",
        "requirements.txt",
    ]
    assert found.installed.count("--requirement") == 2
    assert found.copied[-1] == "."  # a change of the models does not install everything again


def test_a_requirement_that_is_part_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("./wheels/mine.whl\n")
    found = made_for(tmp_path)
    words = [word for word, _ in found.steps]
    assert words.index("COPY") < max(index for index, word in enumerate(words) if word == "RUN")
    assert found.installed[-1] == "/mnt/models/requirements.txt"


@pytest.mark.parametrize("name", ["environment.yml", "environment.yaml", "conda.yml", "conda.yaml"])
def test_the_pip_section_of_a_conda_file(tmp_path: Path, name: str) -> None:
    content = """
name: env
channels: [conda-forge]
dependencies:
- python=3.12.4
- pip<=23
- libgomp=1
- pip:
  - scikit-learn==1.5.0
  - "numpy<3; python_version >= '3.11'"
  - scikit-learn==1.5.0
"""
    (tmp_path / name).write_text(content)
    image = look_at(tmp_path)
    found = Dockerfile(tmp_path, dockerfile(image))
    assert found["FROM"] == ["python:3.12-slim"]
    assert found.installed[1:] == ["scikit-learn==1.5.0", "numpy<3; python_version >= '3.11'"]
    assert [remark for remark in image.remarks if "libgomp=1" in remark]


def test_pip_options_of_a_conda_file(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("scipy\n")
    (tmp_path / "conda.yaml").write_text("dependencies: [pip: ['-r more.txt', '--find-links x']]\n")
    found = made_for(tmp_path)
    assert found.copied == ["more.txt", "."]
    assert found.installed[1:] == [
        "--requirement",
        "/opt/requirements/more.txt",
        "--find-links",
        "x",
    ]


def test_the_python_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: 3.13.1\nbuild_dependencies: [pip]\n")
    assert made_for(tmp_path)["FROM"] == ["python:3.13-slim"]
    assert made_for(tmp_path, "3.12")["FROM"] == ["python:3.12-slim"]
    (tmp_path / "python_env.yaml").write_text("python: '3.8.18'\n")
    assert [remark for remark in look_at(tmp_path).remarks if "asks for Python 3.8" in remark]


def test_a_model_outside_of_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "a", parameters={"uri": "../../elsewhere"})
    write_model(tmp_path / "models" / "b", parameters={"uri": "s3://bucket/model"})
    assert [remark.partition(":")[0] for remark in look_at(tmp_path / "models").remarks] == ["a"]


def test_system_packages(tmp_path: Path) -> None:
    found = made_for(tmp_path, system_packages=("libgomp1",))
    assert any(
        "apt-get install --yes --no-install-recommends libgomp1 " in run[-1] for run in found["RUN"]
    )


def test_the_server_can_be_another(tmp_path: Path) -> None:
    assert made_for(tmp_path, mlserver="mlserver[arrow]>=2,<3").installed == [
        "mlserver[arrow]>=2,<3"
    ]


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    code, text = run_mlserver("dockerfile", str(tmp_path), "-i")
    assert code == 0, text
    Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert "**/__pycache__" in (tmp_path / "Dockerfile.dockerignore").read_text()


@pytest.mark.parametrize(
    "more, code, expected",
    [
        (["--system-package", "x; rm -rf /"], 1, "not the name of a Debian package"),
        (["--python", "3.12\nUSER root"], 2, "--python: expected a version"),
    ],
)
def test_what_cannot_be_in_a_dockerfile_is_refused(
    tmp_path: Path, more: list[str], code: int, expected: str
) -> None:
    found, text = run_mlserver("dockerfile", str(tmp_path), *more)
    assert (found, text.count("\n"), expected in text) == (code, 1, True), text
    assert not list(tmp_path.iterdir())


def test_no_folder() -> None:
    code, text = run_mlserver("dockerfile", "/no/such/folder")
    assert (code, text.count("\n")) == (1, 1)


# -- build --


def test_nothing_poses_as_an_option(tmp_path: Path) -> None:
    words = arguments("docker", tmp_path / "Dockerfile", Path("-f"), "--push; reboot", True)
    assert words[:2] == ["docker", "build"]
    assert "--tag=--push; reboot" in words
    assert words[-1].startswith("/")
    assert "--no-cache" in words


def test_build_calls_the_engine(tmp_path: Path) -> None:
    """The engine is a script that tells how it was called: what Docker would do is Docker's business."""
    engine = tmp_path / "engine"
    told = tmp_path / "told"
    engine.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > "{told}"\ncat "${{2#--file=}}" >> "{told}"\n'
    )
    engine.chmod(0o755)
    write_model(tmp_path / "models" / "echo")
    code, text = run_mlserver(
        "build", str(tmp_path / "models"), "-t", "mine:1", "--engine", str(engine)
    )
    assert (code, text) == (0, "built mine:1\n")
    words = told.read_text().splitlines()
    assert words[0] == "build"
    assert words[2:4] == ["--tag=mine:1", str(tmp_path / "models")]
    assert 'CMD ["mlserver", "start", "/mnt/models"]' in words
    assert not list((tmp_path / "models").glob("Dockerfile*"))


@pytest.mark.parametrize(
    "engine, expected", [("false", "exit code 1"), ("no-such-engine", "cannot be run")]
)
def test_build_fails_in_one_line(tmp_path: Path, engine: str, expected: str) -> None:
    code, text = run_mlserver("build", str(tmp_path), "--engine", engine)
    assert (code, text.count("\n"), expected in text) == (1, 1, True), text


def test_an_arbitrary_user_may_serve(tmp_path: Path) -> None:
    """As OpenShift runs it: any user id, group 0, no entry in the password file."""
    write_model(tmp_path / "echo")
    text = dockerfile(look_at(tmp_path))
    assert "ENV HOME=/home/mlserver" in text
    assert 'RUN ["useradd", "--create-home", "--uid", "1000", "--gid", "0", "mlserver"]' in text
    assert 'RUN ["chmod", "0775", "/home/mlserver"]' in text
    assert 'COPY --chown=1000:0 --chmod=755 [".", "/mnt/models"]' in text
    assert "WORKDIR /home/mlserver" in text


def test_a_generic_image(tmp_path: Path) -> None:
    """Without models; what is in the folder does not count."""
    write_model(tmp_path / "echo")
    (tmp_path / "requirements.txt").write_text("numpy<3")
    code, text = run_mlserver("dockerfile", str(tmp_path), "--runtime", "mlflow")
    assert code == 0, text
    found = Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert found.installed == [
        f"mlserver=={__version__}",
        f"mlserver-mlflow[full,uv]=={__version__}",
    ]
    assert found.copied == []
    assert found["CMD"] == [["mlserver", "start", "/mnt/models"]]
    code, text = run_mlserver("dockerfile", str(tmp_path), "--runtime", "sklearn")
    assert (code, "--runtime" in text) == (2, True)


def test_wheels_of_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / f"mlserver-{__version__}-py3-none-any.whl").touch()
    code, text = run_mlserver("dockerfile", str(tmp_path), "--wheels", str(tmp_path / "wheels"))
    assert code == 0, text
    found = Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert found.installed == ["--find-links", "/opt/wheels", f"mlserver=={__version__}"]
    assert ["wheels", "/opt/wheels"] in found["COPY"]


@pytest.mark.parametrize("more", [(), ("--runtime", "mlflow")], ids=" ".join)
def test_wheels_from_elsewhere(tmp_path: Path, more: tuple[str, ...]) -> None:
    """They are a build context of their own; `build` passes it on, and `dockerfile` says how."""
    folder, wheels = write_model(tmp_path / "models"), tmp_path / "dist"
    wheels.mkdir()
    assert run_mlserver("dockerfile", str(folder), "--wheels", str(wheels))[0] == 1
    (wheels / "mlserver-2-py3-none-any.whl").touch()
    code, text = run_mlserver("dockerfile", str(folder), "--wheels", str(wheels), *more)
    assert code == 0, text
    assert f"docker build --build-context wheels-of-the-server={wheels} {folder}" in text
    written = (folder / "Dockerfile").read_text()
    assert 'COPY --from=wheels-of-the-server [".", "/opt/wheels"]' in written

    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$(dirname "$0")/called"\n')
    engine.chmod(0o755)
    code, text = run_mlserver(
        "build", str(folder), "--wheels", str(wheels), "--engine", str(engine), *more
    )
    assert code == 0, text
    called = (tmp_path / "called").read_text().splitlines()
    assert called[-2:] == [f"--build-context=wheels-of-the-server={wheels}", str(folder)]
