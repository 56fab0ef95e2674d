"""Traffic split: the shares of a model's versions in the requests that name no version.

Plain data, without models.

`parameters.extra.traffic` of one of the versions configures it:

    {"weights": {"1": 90, "2": 10}, "sticky_header": "x-user", "shadow": "3"}
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from ..settings import ModelSettings

FIELD = "parameters.extra.traffic"
_KEYS = ("weights", "sticky_header", "shadow")


@dataclass(frozen=True)
class TrafficSplit:
    """The shares of the versions.

    Attributes:
        weights: Version and share, in the order of the settings; () = all requests to the default
            version.
        sticky_header: Requests with equal values of this header are routed to the same version;
            None = at random.
        shadow: Version that gets a copy of each request (mirrored traffic); None = no copies.
    """

    weights: tuple[tuple[str, float], ...] = ()
    sticky_header: str | None = None
    shadow: str | None = None

    def choose(self, usable: Collection[str], key: str | None) -> str | None:
        """Return a version by the shares; None if no version with a share is usable.

        Args:
            usable: Versions that can run requests.
            key: Value of the sticky header. If a version becomes unusable, only its own keys are
                routed elsewhere.
        """
        seed = f"{self.sticky_header}\0{key}"
        candidates = [(version, share) for version, share in self.weights if share]
        while candidates:
            point = _hash_to_unit(seed, len(candidates)) if key is not None else random.random()
            version = _pick(candidates, point * sum(share for _, share in candidates))
            if version in usable:
                return version
            candidates = [entry for entry in candidates if entry[0] != version]
        return None


def read_traffic_split(settings: ModelSettings) -> TrafficSplit | None:
    """Return the traffic split of a model's settings, or None.

    Raises `InvalidInput` if it is invalid.
    """
    config = settings.parameters.extra.get("traffic") if settings.parameters else None
    if config is None:
        return None
    if not isinstance(config, dict):
        raise InvalidInput(FIELD, "an object", repr(config))
    unknown = [str(key) for key in config if key not in _KEYS]
    if unknown:
        raise InvalidInput(FIELD, f"the keys {', '.join(_KEYS)}", f"'{unknown[0]}'")
    header, shadow = _read_text(config, "sticky_header"), _read_text(config, "shadow")
    split = TrafficSplit(
        _read_weights(config.get("weights")), header.lower() if header else None, shadow
    )
    if shadow is not None and shadow in dict(split.weights):
        raise InvalidInput(f"{FIELD}.shadow", "a version without a weight", f"'{shadow}'")
    if not split.weights and shadow is None:
        raise InvalidInput(FIELD, "'weights', 'shadow' or both", "neither")
    return split


def _read_weights(config: Any) -> tuple[tuple[str, float], ...]:
    field = f"{FIELD}.weights"
    if config is None:
        return ()
    if not isinstance(config, dict) or not config:
        raise InvalidInput(field, "an object of versions and their weights", repr(config))
    for version, weight in config.items():
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight <= 1e9:
            raise InvalidInput(
                f"{field} of version '{version}'", "a number from 0 to 1e9", repr(weight)
            )
    if not any(config.values()):
        raise InvalidInput(field, "at least one weight above 0", repr(config))
    return tuple((str(version), float(weight)) for version, weight in config.items())


def _read_text(config: dict[str, Any], key: str) -> str | None:
    value = config.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidInput(f"{FIELD}.{key}", "a text", repr(value))
    return value


def _hash_to_unit(seed: str, draw: int) -> float:
    """Return a number in [0, 1), equal for equal arguments in every process."""
    digest = hashlib.blake2b(f"{draw}\0{seed}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _pick(weights: list[tuple[str, float]], point: float) -> str:
    for version, share in weights:
        point -= share
        if point < 0:
            return version
    return weights[-1][0]
