"""A server under an arbitrary user id without a home and a name, as in a container."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from support.server import Server

USER = 12345
# In a mount namespace of its own, the required folders are mounted where inaccessible folders
# (such as /root) hide them. $1: the inaccessible folder or ""; then what to keep of it, up to "--".
SCRIPT = """
set -e
closed=$1; shift
if [ -n "$closed" ]; then
    hold=$(mktemp -d); mount -t tmpfs tmpfs "$hold"; count=0; kept=()
    while [ "$1" != -- ]; do
        mkdir "$hold/$count"; mount --bind "$1" "$hold/$count"
        kept+=("$1"); count=$((count + 1)); shift
    done
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    for index in "${!kept[@]}"; do
        mkdir -p "${kept[$index]}"; mount --bind "$hold/$index" "${kept[$index]}"
    done
    umount -l "$hold"; rmdir "$hold"
fi
while [ "$1" != -- ]; do shift; done; shift
exec setpriv --reuid 12345 --regid 12345 --clear-groups env -u HOME -u USER -u LOGNAME "$@"
"""


@cache
def prefix() -> tuple[str, ...]:
    """The command prefix that runs a command as that user."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), Path(__file__).resolve().parents[2]]
    closed = next(
        (parent for path in needed for parent in reversed(path.parents) if _is_closed(parent)), None
    )
    kept = [str(path) for path in needed if closed is not None and path.is_relative_to(closed)]
    names = ["unshare", "--mount", "--propagation", "private", "bash", "-c", SCRIPT, "bash"]
    return (*names, str(closed or ""), *kept, "--")


@cache
def why_not() -> str:
    """The reason why this machine cannot run a process as another user, or ""."""
    if os.geteuid() != 0:
        return "only root may run a process as another user"
    if not all(map(shutil.which, ("unshare", "setpriv", "bash"))):
        return "unshare or setpriv is not installed"
    done = subprocess.run(
        [*prefix(), sys.executable, "-c", "import mlserver"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        f"another user cannot run this Python: {done.stderr.strip()[-200:]}"
        if done.returncode
        else ""
    )


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IXOTH


class OtherUsersServer(Server):
    """`mlserver start` as that user."""

    def __init__(
        self, folder: Path, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.prefix = prefix()
        super().__init__(
            folder, cwd=cwd, env={"PYTHONDONTWRITEBYTECODE": "1", **(env or {})}, workers=1
        )
