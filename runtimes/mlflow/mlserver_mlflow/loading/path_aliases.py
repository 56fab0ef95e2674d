"""Alias paths for folders whose own paths MLflow misreads.

MLflow parses a folder's path as a URI: it decodes `%20`, and so loads the folder `a b` in place of
`a%20b`, and refuses `#`. Such a folder is passed through a symbolic link with a plain path.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid

from mlserver.errors import MLServerError

from .artifact_cache import ArtifactCache

_MISREAD_CHARACTERS = re.compile(r"[%#?;\\\x00-\x1f\x7f]")


def readable_path(folder: str, cache_dir: str | None = None) -> str:
    """Return the folder's path, or that of a link to it in the model cache if MLflow misreads it.

    Raises:
        MLServerError: the link cannot be created.
    """
    if not _MISREAD_CHARACTERS.search(folder):
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()
    link = ArtifactCache.open(cache_dir).links / name
    if not link.is_symlink() or os.readlink(link) != folder:
        partial = link.with_name(f"{name}.{uuid.uuid4().hex}")
        try:
            link.parent.mkdir(mode=0o700, exist_ok=True)
            partial.symlink_to(folder)
            os.replace(partial, link)
        except OSError as error:
            text = f"Cannot create a link to {folder}, whose path MLflow misreads: {error.strerror}"
            raise MLServerError(text, 500) from None
    return f"{link}/"  # MLflow refuses a path whose last part is a link
