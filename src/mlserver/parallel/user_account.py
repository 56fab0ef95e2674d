"""Home folder and user name for processes without them (containers with any user id).

Some libraries read the home folder or the user name at import and raise if it is missing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Variables that `getpass.getuser` reads before the password database.
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def provide_user() -> None:
    """Set `HOME` and `USER` if they are unset and the password database has no entry.

    `HOME` is a new private temporary folder, because other users could place files in caches below
    a shared one. It is removed when this process ends.
    """
    entry = _find_password_entry()
    if not os.environ.get("HOME") and entry is None:
        os.environ["HOME"] = _create_home()
    if not any(os.environ.get(name) for name in _NAMES) and entry is None:
        os.environ["USER"] = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"


def _find_password_entry() -> object | None:
    try:
        import pwd

        return pwd.getpwuid(os.getuid())
    except (ImportError, KeyError):
        return None


def _create_home() -> str:
    try:
        home = tempfile.mkdtemp(prefix="mlserver-home-")
    except OSError:
        return os.sep  # no folder is writable; imports need only a value
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home
