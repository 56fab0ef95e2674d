"""`mlserver dockerfile` and `build`: the Dockerfile is parsed as by Docker, and checked."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest

from mlserver.cli.build import make_arguments
from mlserver.cli.image_spec import ImageSpec
from mlserver.cli.image_text import render_dockerfile
from mlserver.version import __version__
from support.dockerfile import Dockerfile, make_dockerfile
from support.models import Models
from support.repository import write_model, write_server_settings
from support.server import run_mlserver
from support.slow import slow


def test_a_folder_with_a_model(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    write_server_settings(tmp_path, http_port=9000)
    dockerfile = make_dockerfile(tmp_path)
    assert dockerfile["CMD"] == [["mlserver", "start", "/mnt/models"]]
    assert dockerfile["EXPOSE"] == ["9000 8081 8082"]
    assert "127.0.0.1:9000/v2/health/live" in dockerfile["HEALTHCHECK"][0][-1]
    assert dockerfile.installed == [f"mlserver=={__version__}"]
    assert dockerfile.copied == ["."]


def test_the_standard_library_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Official images have no bytecode of it; pip compiles what it installs."""
    write_model(tmp_path / "echo")
    *_, (python, option, code) = make_dockerfile(tmp_path)["RUN"]
    assert (python, option) == ("python", "-c")
    for path in ("module.py", "package/part.py", "site-packages/installed.py", "broken.py"):
        (tmp_path / "lib" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / path).write_text("(" if path == "broken.py" else "")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path / "lib")}.get)
    exec(code, {})
    compiled = {path.name.partition(".")[0] for path in (tmp_path / "lib").rglob("*.pyc")}
    assert compiled == {"module", "part"}


def test_the_healthcheck_uses_the_tls_settings(tmp_path: Path) -> None:
    tls = {"certificate": "cert.pem", "key": "key.pem"}
    write_server_settings(tmp_path, tls=tls)
    assert (
        "'https://127.0.0.1:8080/v2/health/live', context="
        in make_dockerfile(tmp_path)["HEALTHCHECK"][0][-1]
    )
    write_server_settings(tmp_path, tls={**tls, "client_ca": "ca.pem"})
    assert make_dockerfile(tmp_path)["HEALTHCHECK"] == []


def test_an_mlflow_model(models: Models) -> None:
    dockerfile = make_dockerfile(models["wine"])
    assert f"mlserver-mlflow=={__version__}" in dockerfile.installed
    assert dockerfile.installed[-2:] == ["--requirement", "/opt/requirements/requirements.txt"]
    assert dockerfile.copied == ["requirements.txt", "."]


def test_included_requirements_files_are_copied(tmp_path: Path) -> None:
    write_model(tmp_path / "a model")
    (tmp_path / "base.txt").write_text("numpy<3  # a comment\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("scipy<2\n")
    (tmp_path / "requirements.txt").write_text("-r base.txt\nscipy; python_version > '3'\n")
    (tmp_path / "a model" / "requirements.txt").write_text("pandas\n")
    dockerfile = make_dockerfile(tmp_path)
    assert sorted(dockerfile.copied) == [
        ".",
        "a model/requirements.txt",
        "base.txt",
        "limits.txt",
        "requirements.txt",
    ]
    assert dockerfile.installed.count("--requirement") == 2
    assert dockerfile.copied[-1] == "."  # a change of the models does not install everything again


def test_a_requirement_that_is_part_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("./wheels/mine.whl\n")
    dockerfile = make_dockerfile(tmp_path)
    copy, install = dockerfile.text.index("COPY --chown=1000:0"), dockerfile.text.index('"pip"')
    assert copy < install
    assert "COPY --chown=1000:0" in dockerfile.image
    assert dockerfile.installed[-1] == "/mnt/models/requirements.txt"


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
    spec = ImageSpec.from_folder(tmp_path)
    dockerfile = Dockerfile(tmp_path, render_dockerfile(spec))
    assert dockerfile["FROM"][-1] == "python:3.12-slim"
    assert dockerfile.installed[1:] == ["scikit-learn==1.5.0", "numpy<3; python_version >= '3.11'"]
    assert [note for note in spec.notes if "libgomp=1" in note]


def test_pip_options_of_a_conda_file(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("scipy\n")
    (tmp_path / "conda.yaml").write_text("dependencies: [pip: ['-r more.txt', '--find-links x']]\n")
    dockerfile = make_dockerfile(tmp_path)
    assert dockerfile.copied == ["more.txt", "."]
    assert dockerfile.installed[1:] == [
        "--requirement",
        "/opt/requirements/more.txt",
        "--find-links",
        "x",
    ]


def test_the_python_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: 3.13.1\nbuild_dependencies: [pip]\n")
    assert make_dockerfile(tmp_path)["FROM"][-1] == "python:3.13-slim"
    assert make_dockerfile(tmp_path, "3.12")["FROM"][-1] == "python:3.12-slim"
    (tmp_path / "python_env.yaml").write_text("python: '3.8.18'\n")
    assert [note for note in ImageSpec.from_folder(tmp_path).notes if "requires Python 3.8" in note]


def test_a_model_outside_of_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "a", parameters={"uri": "../../elsewhere"})
    write_model(tmp_path / "models" / "b", parameters={"uri": "s3://bucket/model"})
    write_model(tmp_path / "models" / "c", parameters={"uri": "models:/wine@champion"})
    write_model(tmp_path / "models" / "d", parameters={"uri": "models:/wine@champion"})
    (tmp_path / "models" / "d" / "requirements.txt").write_text("scikit-learn")
    outside, *downloaded = sorted(ImageSpec.from_folder(tmp_path / "models").notes)
    assert outside == "a: uri ../../elsewhere is outside of the folder, so it is not in the image"
    assert [note.partition(", so")[0] for note in downloaded] == [
        "b: s3://bucket/model is downloaded at the start",
        "c: models:/wine@champion is downloaded at the start",
    ]


def test_system_packages(tmp_path: Path) -> None:
    dockerfile = make_dockerfile(tmp_path, system_packages=("libgomp1",))
    assert any(
        "apt-get install --yes --no-install-recommends libgomp1 " in run[-1]
        for run in dockerfile["RUN"]
    )


def test_the_requirement_of_the_server(tmp_path: Path) -> None:
    assert make_dockerfile(tmp_path, mlserver="mlserver[arrow]>=2,<3").installed == [
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
        (["--system-package", "x; rm -rf /"], 1, "expected a Debian package"),
        (["--python", "3.12\nUSER root"], 2, "--python: expected a version"),
        (["--base", "python\nUSER root"], 2, "--base: expected the name of an image"),
        (["--label", "a=1\nUSER root"], 1, "--label: expected KEY=VALUE"),
        (["--label", "a b=1"], 1, "--label: expected KEY=VALUE"),
    ],
)
def test_options_that_would_break_the_dockerfile_are_rejected(
    tmp_path: Path, more: list[str], code: int, expected: str
) -> None:
    exit_code, text = run_mlserver("dockerfile", str(tmp_path), *more)
    assert (exit_code, text.count("\n"), expected in text) == (code, 1, True), text
    assert not list(tmp_path.iterdir())


def test_no_folder() -> None:
    code, text = run_mlserver("dockerfile", "/no/such/folder")
    assert (code, text.count("\n")) == (1, 1)


# -- build --


def test_values_are_not_read_as_options(tmp_path: Path) -> None:
    words = make_arguments("docker", tmp_path / "Dockerfile", Path("-f"), "--push; reboot", True)
    assert words[:2] == ["docker", "build"]
    assert "--tag=--push; reboot" in words
    assert words[-1].startswith("/")
    assert "--no-cache" in words


def test_build_calls_the_engine(tmp_path: Path) -> None:
    """The engine is a script that records its arguments and the Dockerfile."""
    engine = tmp_path / "engine"
    record = tmp_path / "record"
    engine.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > "{record}"\ncat "${{2#--file=}}" >> "{record}"\n'
    )
    engine.chmod(0o755)
    write_model(tmp_path / "models" / "echo")
    code, text = run_mlserver(
        "build", str(tmp_path / "models"), "-t", "mine:1", "--engine", str(engine)
    )
    assert (code, text) == (0, "built mine:1\n")
    words = record.read_text().splitlines()
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
    """OpenShift runs images as any user id of group 0, without an entry in /etc/passwd."""
    write_model(tmp_path / "echo")
    text = make_dockerfile(tmp_path).image
    assert "HOME=/home/mlserver PATH=/opt/mlserver/bin:$PATH" in text
    assert 'RUN ["useradd", "--create-home", "--uid", "1000", "--gid", "0", "mlserver"]' in text
    assert 'RUN ["chmod", "0775", "/home/mlserver"]' in text
    assert 'COPY --chown=1000:0 --chmod=755 [".", "/mnt/models"]' in text
    assert "WORKDIR /home/mlserver" in text


def test_a_generic_image(tmp_path: Path) -> None:
    """An image without models ignores the content of the folder."""
    write_model(tmp_path / "echo")
    (tmp_path / "requirements.txt").write_text("numpy<3")
    code, text = run_mlserver("dockerfile", str(tmp_path), "--runtime", "mlflow")
    assert code == 0, text
    dockerfile = Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert dockerfile.installed == [
        f"mlserver=={__version__}",
        f"mlserver-mlflow[full,uv]=={__version__}",
    ]
    assert dockerfile.copied == []
    assert dockerfile["CMD"] == [["mlserver", "start", "/mnt/models"]]
    code, text = run_mlserver("dockerfile", str(tmp_path), "--runtime", "mlflow", "--slim")
    assert code == 0, text
    dockerfile = Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert dockerfile.installed == [
        f"mlserver=={__version__}",
        f"mlserver-mlflow[uv]=={__version__}",
        "scikit-learn",
        "skops",
    ]
    code, text = run_mlserver("dockerfile", str(tmp_path), "--runtime", "sklearn")
    assert (code, "--runtime" in text) == (2, True)


def test_what_installs_stays_out_of_the_image(tmp_path: Path) -> None:
    """Wheels, requirements files and pip's settings are in the stage `build` only."""
    write_model(tmp_path / "echo")
    (tmp_path / "requirements.txt").write_text("numpy<3")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "mlserver-2-py3-none-any.whl").touch()
    spec = ImageSpec.from_folder(tmp_path)
    spec.add_wheels(tmp_path / "wheels")
    image = Dockerfile(tmp_path, render_dockerfile(spec)).image
    assert not re.search("/opt/wheels|/opt/requirements|PIP_", image)
    assert 'COPY --from=build ["/opt/mlserver", "/opt/mlserver"]' in image


def test_labels(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    labels = ("org.opencontainers.image.source=https://example.org/models", 'a.b=say "$x" \\')
    dockerfile = make_dockerfile(tmp_path, labels=labels)
    written = dict(label.split("=", 1) for label in dockerfile["LABEL"])
    assert written["org.opencontainers.image.version"] == f'"{__version__}"'
    assert written["org.opencontainers.image.base.name"] == f'"{dockerfile["FROM"][-1]}"'
    assert written["org.opencontainers.image.source"] == '"https://example.org/models"'
    assert written["a.b"] == r'"say \"\$x\" \\"'


def test_another_base_image(tmp_path: Path) -> None:
    base = "registry.example.org:5000/python@sha256:0123"
    assert run_mlserver("dockerfile", str(tmp_path), "--base", base)[0] == 0
    dockerfile = Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert dockerfile["FROM"] == [f"{base} AS build", base]


def test_wheels_of_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "echo")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / f"mlserver-{__version__}-py3-none-any.whl").touch()
    code, text = run_mlserver("dockerfile", str(tmp_path), "--wheels", str(tmp_path / "wheels"))
    assert code == 0, text
    dockerfile = Dockerfile(tmp_path, (tmp_path / "Dockerfile").read_text())
    assert dockerfile.installed == ["--find-links", "/opt/wheels", f"mlserver=={__version__}"]
    assert ["wheels", "/opt/wheels"] in dockerfile["COPY"]


@pytest.mark.parametrize(
    "more", [(), slow(("--runtime", "mlflow"), id="--runtime mlflow")], ids=" ".join
)
def test_wheels_outside_the_folder(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Wheels are an additional build context: `build` passes it, `dockerfile` prints the option."""
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
