"""Results of a model's trial predictions as plain values, for its loads in other workers.

A pool's workers hold the same model, so one of them makes the trials and the others, replacements
included, use its results (`MLModel.trial_results`). They count for the files that they were made
with: another fingerprint means new trials.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

_FILES, _PLAN, _EXAMPLES = "files", "plan", "examples"


def pack(fingerprint: str, plan: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of one load.

    Args:
        fingerprint: Of the model's files.
        plan: Of `selection.describe_plan`.
        examples: Of `openapi_trials.choose_examples`.
    """
    return {_FILES: fingerprint, _PLAN: dict(plan), _EXAMPLES: dict(examples)}


class KnownTrials:
    """Results of another worker's load of the same files.

    Attributes:
        plan, examples: See `pack`; None = not known.
    """

    def __init__(self, results: Mapping[str, Any] | None, fingerprint: str) -> None:
        is_same = results is not None and results.get(_FILES) == fingerprint
        known = results if is_same and results is not None else {}
        self.plan: dict[str, Any] | None = known.get(_PLAN)
        self.examples: dict[str, Any] | None = known.get(_EXAMPLES)


def fingerprint_files(folder: str) -> str:
    """Return a digest of the names, sizes and modification times of a model's files. Blocks."""
    digest = hashlib.sha256()
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            relative = os.path.relpath(path, folder)
            digest.update(f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()
