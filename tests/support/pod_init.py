"""First process of a container in tests: builds the file system, brings the network up, drops all
privileges, and becomes the container's command.

`support/pod.py` runs it as root in namespaces of its own, with the `Container` as JSON. It imports
the standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

DEVICES = ("null", "zero", "full", "random", "urandom")
SIOCSIFADDR, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x8913, 0x8914, 1
PR_SET_DUMPABLE, CLONE_NEWNS = 4, 0x20000
SHARED_MEMORY = "64k"
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    container = json.loads(sys.argv[1])
    root = Path(container["new_root"])
    build_root(root, container)
    if container["address"]:
        start_network(container["address"])
    if container["modelcar"]:
        start_modelcar(container, root)
    os.chroot(root)
    os.chdir(container["cwd"])
    os.execve("/usr/bin/setpriv", make_command(container), container["env"])


def build_root(root: Path, container: dict[str, Any]) -> None:
    """Mount the root, `/proc`, `/dev`, a small `/dev/shm`, and the volumes at `root`."""
    mount("--bind", container["root"], root)
    mount("-t", "proc", "proc", root / "proc")
    build_devices(root / "dev")
    for path in container["hidden"]:
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", below(root, path))
    for volume in container["volumes"]:
        mount_volume(below(root, volume["path"]), volume)
    for path in container["kept"]:
        # Binds of what a mount above hides, such as the interpreter.
        target = below(root, path)
        target.mkdir(parents=True, exist_ok=True)
        mount("--bind", path, target)
        mount("-o", "remount,bind,ro", target)
    for path in container["hidden"]:
        mount("-o", "remount,ro", below(root, path))
    if container["read_only"]:
        mount("-o", "remount,bind,ro", root)


def build_devices(folder: Path) -> None:
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for name in DEVICES:
        (folder / name).touch()
        mount("--bind", f"/dev/{name}", folder / name)
    (folder / "shm").mkdir()
    mount("-t", "tmpfs", "-o", f"mode=1777,size={SHARED_MEMORY}", "tmpfs", folder / "shm")
    (folder / "fd").symlink_to("/proc/self/fd")


def mount_volume(target: Path, volume: dict[str, Any]) -> None:
    """Mount a folder, or without a source an empty folder that every user may write to."""
    target.mkdir(parents=True, exist_ok=True)
    if volume["source"] is None:
        mount("-t", "tmpfs", "-o", "mode=777", "tmpfs", target)
        return
    mount("--bind", volume["source"], target)
    if volume["read_only"]:
        mount("-o", "remount,bind,ro", target)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def start_network(address: str) -> None:
    """Bring the loopback interface up, and give it the pod's address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, request)
        name = struct.pack("16s", b"lo:pod")
        fields = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, SIOCSIFADDR, name + fields)


def start_modelcar(container: dict[str, Any], root: Path) -> None:
    """Start KServe's second container, whose image has the model in /models, as a sidecar.

    It shares the pod's processes and the volume of /mnt, where it makes `models` a link into its
    own file system, and sleeps. The link is made when the writer of a named pipe closes it.
    """
    if os.fork():
        return
    os.setsid()
    own_root = Path(container["modelcar"]["new_root"])
    _libc.unshare(CLONE_NEWNS)
    mount("-t", "tmpfs", "tmpfs", own_root)
    (own_root / "models").mkdir()
    mount("--bind", container["modelcar"]["source"], own_root / "models")
    (own_root / "mnt").mkdir()
    mount("--bind", root / "mnt", own_root / "mnt")
    with open(container["modelcar"]["start"]) as start:
        os.chroot(own_root)
        os.chdir("/")
        os.setgroups([])
        os.setgid(container["gid"])
        os.setuid(container["uid"])
        # As after `exec`: processes of the same user may look at its root.
        _libc.prctl(PR_SET_DUMPABLE, 1)
        start.read()
    os.symlink(f"/proc/{os.getpid()}/root/models", "/mnt/models")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()


def make_command(container: dict[str, Any]) -> list[str]:
    groups = ",".join(map(str, container["groups"]))
    return [
        "setpriv",
        f"--reuid={container['uid']}",
        f"--regid={container['gid']}",
        f"--groups={groups}" if groups else "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        *container["command"],
    ]


if __name__ == "__main__":
    main()
