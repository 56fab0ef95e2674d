"""A home folder and a user name where the machine has none, as in containers that run under an arbitrary user id.

MLflow asks for the home folder when it is imported, and other libraries for the user's name; without either they raise.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Where `getpass.getuser` looks before it asks the password database.
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def provide_user() -> None:
    """Set `HOME` and `USER` for this process and its children, if neither they nor the password database are there.

    The home is a folder of its own among the temporary ones: one that others could write to would let them place files
    in this process's caches. It is removed when this process ends.
    """
    entry = _password_entry()
    if not os.environ.get("HOME") and entry is None:
        os.environ["HOME"] = _temporary_home()
    if not any(os.environ.get(name) for name in _NAMES) and entry is None:
        os.environ["USER"] = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"


def _password_entry() -> object | None:
    try:
        import pwd

        return pwd.getpwuid(os.getuid())
    except (ImportError, KeyError):
        return None


def _temporary_home() -> str:
    try:
        home = tempfile.mkdtemp(prefix="mlserver-home-")
    except OSError:
        return os.sep  # nothing may be written anywhere; a name is enough for an import
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home
