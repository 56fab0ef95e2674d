"""Paths that MLflow reads as they are written.

MLflow takes the path of a folder for an address: it decodes `%20` (and so loads the folder `a b` in place of `a%20b`), and
refuses `#`. A folder with such a path is given to it through a link whose own path has no such character.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid

from mlserver.errors import MLServerError

from .artifact_cache import Cache

_MISREAD = re.compile(r"[%#?;\\\x00-\x1f\x7f]")


def readable_path(folder: str, cache_dir: str | None = None) -> str:
    """Return a path of the folder for MLflow: the folder's own, or that of a link in the cache of fetched models.

    Raises:
        MLServerError: the link cannot be made.
    """
    if not _MISREAD.search(folder):
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()
    link = Cache.at(cache_dir).links / name
    if not link.is_symlink() or os.readlink(link) != folder:
        part = link.with_name(f"{name}.{uuid.uuid4().hex}")
        try:
            link.parent.mkdir(mode=0o700, exist_ok=True)
            part.symlink_to(folder)
            os.replace(part, link)
        except OSError as error:
            text = f"The folder {folder} cannot be given to MLflow, which misreads its name: {error.strerror}"
            raise MLServerError(text, 500) from None
    return f"{link}/"  # MLflow refuses a link as the last part of a path
