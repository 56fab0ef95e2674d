"""Images built by buildah without a daemon, and a base image made by debootstrap.

Everything is below build/image: a second run finds the base image there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.pod import why_not as why_no_pod

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "build" / "image"
BASE = "localhost/python-base:latest"
# As in `python:3.X-slim`: Debian's smallest system, Python and venv.
PACKAGES = "ca-certificates,python3,python3-venv"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def why_not() -> str:
    """The reason why this machine cannot build and run images, or ""."""
    missing = [name for name in ("buildah", "debootstrap") if not shutil.which(name)]
    return f"{missing[0]} is not installed" if missing else why_no_pod()


@dataclass(frozen=True)
class Image:
    """Configuration of an image.

    Attributes:
        size: Bytes, the base image included.
    """

    name: str
    env: dict[str, str]
    command: list[str]
    user: str
    folder: str
    labels: dict[str, str]
    health_check: list[str]
    size: int


class Buildah:
    """buildah with its storage in build/image; layers are folders (the driver `vfs`)."""

    def __init__(self) -> None:
        STORE.mkdir(parents=True, exist_ok=True)
        configuration = STORE / "storage.conf"
        lines = ("[storage]", 'driver = "vfs"', f'runroot = "{STORE}/run"')
        configuration.write_text("\n".join([*lines, f'graphroot = "{STORE}/storage"', ""]))
        self.env = {
            **os.environ,
            "BUILDAH_FORMAT": "docker",  # the OCI format has no health check
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(configuration),
            "STORAGE_DRIVER": "vfs",
            "XDG_RUNTIME_DIR": str(STORE / "run"),
        }

    def run(self, *arguments: str) -> str:
        """Run buildah. Returns its output, without the last line break."""
        command = ["buildah", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def make_base(self) -> str:
        """Return the name of a base image with Debian and Python, made once."""
        if BASE in self.run("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
            return BASE
        folder = STORE / "base"
        shutil.rmtree(folder, ignore_errors=True)
        release = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines()
        )
        options = ["--variant=minbase", f"--include={PACKAGES}"]
        run_program(["debootstrap", *options, release["VERSION_CODENAME"], str(folder)])
        for path in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(folder / path)
        # pip in the image trusts whom this machine trusts, a proxy for example.
        shutil.copyfile(AUTHORITIES, folder / AUTHORITIES.relative_to("/"))
        (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(folder), "/")
        self.run("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        self.run("commit", "--quiet", container, BASE)
        self.run("rm", container)
        shutil.rmtree(folder)
        return BASE

    def build(self, name: str, *arguments: str) -> Image:
        """Run `mlserver build` with the wheels of dist/; return the image's configuration."""
        wheels = ("--wheels", str(ROOT / "dist"))
        command = [sys.executable, "-m", "mlserver", "build", *arguments, *wheels]
        run_program([*command, "--engine=buildah", f"--base={BASE}", f"--tag={name}"], self.env)
        return self.inspect(name)

    def inspect(self, name: str) -> Image:
        """Return the configuration of an image."""
        description: dict[str, Any] = json.loads(self.run("inspect", "--type=image", name))[
            "Docker"
        ]
        config = description["config"]
        [listed] = json.loads(self.run("images", "--json", name))
        return Image(
            name,
            dict(variable.split("=", 1) for variable in config["Env"]),
            config["Cmd"],
            config["User"],
            config["WorkingDir"],
            config["Labels"],
            config["Healthcheck"]["Test"],
            parse_size(listed["size"]),
        )

    @contextmanager
    def mount(self, image: Image) -> Iterator[Path]:
        """Yield the root folder of a container of the image, which is removed at the end."""
        container = self.run("from", image.name)
        try:
            yield Path(self.run("mount", container))
        finally:
            self.run("rm", container)


def run_program(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}"


def parse_size(text: str) -> int:
    """Bytes of a size as buildah prints it, such as `1.16 GB`."""
    number, unit = text.split()
    return round(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])
