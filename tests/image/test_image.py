"""Images of `mlserver build`, built by buildah and run under several users with a read-only root.

`make test-image` runs these tests; they need root, buildah, debootstrap and a package index.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserver.version import __version__
from support.image_engine import BASE, STORE, Buildah, Image, why_not
from support.models import WINE, Models
from support.pod import Container, Pod, Volume
from support.repository import tensor

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]
MODELS = "/mnt/models"
# The image's own user, one of OpenShift (group 0), and one that shares nothing with the image.
USERS = ((1000, 0), (1000680000, 0), (65534, 65534))
INPUTS = [tensor(name, [value], "FP64") for name, value in WINE.items()]


@pytest.fixture(scope="module")
def buildah() -> Buildah:
    engine = Buildah()
    engine.make_base()
    return engine


@pytest.fixture(scope="module")
def folder(models: Models) -> Iterator[Path]:
    """A folder with the model `wine` that every user may read."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        models.copy("wine", Path(name) / "wine")
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield Path(name)


@pytest.fixture(scope="module")
def generic_image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Image:
    context = tmp_path_factory.mktemp("context")
    label = "--label=org.opencontainers.image.source=https://example.org"
    return record(buildah.build("localhost/generic:1", str(context), "--runtime=mlflow", label))


@pytest.fixture(scope="module")
def slim_generic_image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Image:
    context = tmp_path_factory.mktemp("context")
    return record(
        buildah.build("localhost/generic:slim", str(context), "--runtime=mlflow", "--slim")
    )


@pytest.fixture(scope="module")
def slim_image(buildah: Buildah, folder: Path) -> Image:
    return record(buildah.build("localhost/wine:slim", str(folder), "--slim"))


def record(image: Image) -> Image:
    """Write the size of an image to build/image/sizes.txt, for docs/how-to/docker.md."""
    with (STORE / "sizes.txt").open("a") as file:
        file.write(f"{image.name}: {image.size / 1e6:.0f} MB\n")
    return image


def check_answers(
    buildah: Buildah,
    image: Image,
    user: tuple[int, int],
    volumes: list[Volume],
    tmp_path: Path,
    expected: float,
) -> None:
    """The image's command, run by a user with a read-only root, answers for the model `wine`."""
    uid, gid = user
    with buildah.mount(image) as root:
        container = Container(
            image.command,
            image.env,
            [Volume("/tmp"), *volumes],
            uid=uid,
            gid=gid,
            root=str(root),
            cwd=image.folder,
            hidden=(),
        )
        with Pod(container, tmp_path) as pod:
            pod.wait_for_line("Ready in")
            status, body = pod.request(8080, "POST", "/v2/models/wine/infer", {"inputs": INPUTS})
            assert (status, f"[{expected}]" in body.decode()) == (200, True), body
            assert run_health_check(pod, image) == 0


def run_health_check(pod: Pod, image: Image) -> int:
    """Run the image's health check in the container. Returns its exit code."""
    kind, *command = image.health_check
    assert kind == "CMD"
    enter = ["nsenter", f"--target={pod.pid}", "--mount", "--net", "--pid", "--root"]
    return subprocess.run(
        [*enter, "env", f"PATH={image.env['PATH']}", *command], check=False
    ).returncode


@pytest.mark.parametrize("user", USERS, ids=str)
def test_the_generic_image(
    buildah: Buildah,
    generic_image: Image,
    folder: Path,
    models: Models,
    user: tuple[int, int],
    tmp_path: Path,
) -> None:
    volumes = [Volume(MODELS, str(folder), True)]
    check_answers(buildah, generic_image, user, volumes, tmp_path, models.wine_answer)


@pytest.mark.parametrize("user", USERS, ids=str)
def test_the_slim_image_of_a_folder(
    buildah: Buildah, slim_image: Image, models: Models, user: tuple[int, int], tmp_path: Path
) -> None:
    check_answers(buildah, slim_image, user, [], tmp_path, models.wine_answer)


def test_the_slim_generic_image(
    buildah: Buildah, slim_generic_image: Image, folder: Path, models: Models, tmp_path: Path
) -> None:
    volumes = [Volume(MODELS, str(folder), True)]
    check_answers(buildah, slim_generic_image, USERS[1], volumes, tmp_path, models.wine_answer)


def test_what_the_images_contain(
    buildah: Buildah, generic_image: Image, slim_generic_image: Image, slim_image: Image
) -> None:
    assert generic_image.user == "1000"
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in generic_image.labels.items()
    }
    assert labels["version"] == __version__
    assert labels["base.name"] == BASE
    assert labels["source"] == "https://example.org"
    with buildah.mount(generic_image) as root:
        assert not list((root / "opt").glob("wheels*"))
        assert list((root / "opt" / "mlserver").glob("lib/python3*/site-packages/flask"))
    with buildah.mount(slim_image) as root:
        [packages] = (root / "opt" / "mlserver").glob("lib/python3*/site-packages")
        assert (packages / "sklearn").is_dir()
        assert not (packages / "flask").exists()  # of all of MLflow
    assert slim_image.size < slim_generic_image.size < generic_image.size
