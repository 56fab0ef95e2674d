"""Requirements of MLflow models with mlflow-skinny in place of mlflow (`--slim`).

mlflow-skinny is MLflow's code without the libraries of its tracking server and its tools. It loads
and scores models of SLIM_FLAVORS; `make test-image` builds such an image and sends it requests.
"""

from __future__ import annotations

import re
from typing import Any

# Flavors whose loading and scoring needs mlflow-skinny and the flavor's own library only.
SLIM_FLAVORS = frozenset({"python_function", "sklearn", "xgboost", "lightgbm"})
# Before, MLflow's scoring code needs packages that only the full distribution requires.
FIRST_SLIM_VERSION = (2, 21)
# What a generic slim image has for mounted models, beside NumPy and pandas.
GENERIC_REQUIREMENTS = ("scikit-learn", "skops")
_MLFLOW = re.compile(r"mlflow(?P<extras>\s*\[[^]]*\])?(?P<rest>\s*(?:[=<>!~;].*)?)", re.IGNORECASE)
_LOWEST_VERSION = re.compile(r"(?:===?|>=|~=)\s*(?P<major>\d+)\.(?P<minor>\d+)")


class NotSlim(Exception):
    """A model needs all of MLflow; the text is the reason."""


def make_slim(model: dict[str, Any], requirements: list[str]) -> list[str]:
    """Return a model's requirements with mlflow-skinny in place of mlflow.

    Args:
        model: Content of the model's file MLmodel.
        requirements: Requirements without comments.

    Raises:
        NotSlim: the flavor, an option of pip, an extra of MLflow, or its version does not allow it.
    """
    flavors = model.get("flavors")
    if not isinstance(flavors, dict):
        raise NotSlim("MLmodel names no flavors")
    others = sorted(map(str, flavors.keys() - SLIM_FLAVORS))
    if others:
        raise NotSlim(f"flavor {others[0]}")
    slim = [_replace_mlflow(requirement) for requirement in requirements]
    if _uses_skops(flavors) and not any(map(_names_skops, slim)):
        slim.append("skops")  # required by mlflow, and not listed in the model's requirements
    return slim


def _replace_mlflow(requirement: str) -> str:
    if requirement.startswith("-"):
        raise NotSlim(f"its requirements have the line '{requirement}'")
    match = _MLFLOW.fullmatch(requirement)
    if match is None:
        return requirement
    if match["extras"]:
        raise NotSlim(f"its requirements have extras of mlflow ('{requirement}')")
    lowest = _LOWEST_VERSION.search(match["rest"])
    if lowest and (int(lowest["major"]), int(lowest["minor"])) < FIRST_SLIM_VERSION:
        first = ".".join(map(str, FIRST_SLIM_VERSION))
        raise NotSlim(f"{requirement}; mlflow-skinny suffices from {first} on")
    return f"mlflow-skinny{match['rest']}"


def _uses_skops(flavors: dict[str, Any]) -> bool:
    sklearn = flavors.get("sklearn")
    return isinstance(sklearn, dict) and sklearn.get("serialization_format") == "skops"


def _names_skops(requirement: str) -> bool:
    return re.match(r"skops\b", requirement, re.IGNORECASE) is not None
