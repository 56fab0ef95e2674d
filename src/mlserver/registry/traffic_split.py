"""How requests that ask for no version are shared among a model's versions: plain data and a choice, without a model in sight.

`parameters.extra.traffic` of one of the versions says it:

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
    """Who gets which share.

    Attributes:
        weights: Version and share, in the order of the settings; () = the default version gets all.
        sticky_header: Requests with the same value of this header go to the same version; None = each by chance.
        shadow: The version that gets a copy of what the others are asked; None = none.
    """

    weights: tuple[tuple[str, float], ...] = ()
    sticky_header: str | None = None
    shadow: str | None = None

    def choose(self, usable: Collection[str], key: str | None) -> str | None:
        """One of the versions that are usable; None if no version with a share is.

        Args:
            key: The value of the sticky header. A version that becomes unusable changes the choice of its own keys only.
        """
        seed = f"{self.sticky_header}\0{key}"
        left = [(version, share) for version, share in self.weights if share]
        while left:
            point = _point(seed, len(left)) if key is not None else random.random()
            version = _at(left, point * sum(share for _, share in left))
            if version in usable:
                return version
            left = [entry for entry in left if entry[0] != version]
        return None


def read_traffic_split(settings: ModelSettings) -> TrafficSplit | None:
    """The split that a model's settings ask for, or None. Raises `InvalidInput` for what is none."""
    said = settings.parameters.extra.get("traffic") if settings.parameters else None
    if said is None:
        return None
    if not isinstance(said, dict):
        raise InvalidInput(FIELD, "an object", repr(said))
    unknown = [str(key) for key in said if key not in _KEYS]
    if unknown:
        raise InvalidInput(FIELD, f"the keys {', '.join(_KEYS)}", f"'{unknown[0]}'")
    header, shadow = _text(said, "sticky_header"), _text(said, "shadow")
    split = TrafficSplit(_weights(said.get("weights")), header.lower() if header else None, shadow)
    if shadow is not None and shadow in dict(split.weights):
        raise InvalidInput(f"{FIELD}.shadow", "a version without a weight", f"'{shadow}'")
    if not split.weights and shadow is None:
        raise InvalidInput(FIELD, "'weights', 'shadow' or both", "neither")
    return split


def _weights(said: Any) -> tuple[tuple[str, float], ...]:
    field = f"{FIELD}.weights"
    if said is None:
        return ()
    if not isinstance(said, dict) or not said:
        raise InvalidInput(field, "an object of versions and their weights", repr(said))
    for version, weight in said.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 1e9:
            raise InvalidInput(
                f"{field} of version '{version}'", "a number from 0 to 1e9", repr(weight)
            )
    if not any(said.values()):
        raise InvalidInput(field, "at least one weight above 0", repr(said))
    return tuple((str(version), float(weight)) for version, weight in said.items())


def _text(said: dict[str, Any], key: str) -> str | None:
    value = said.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidInput(f"{FIELD}.{key}", "a text", repr(value))
    return value


def _point(seed: str, round_: int) -> float:
    """A number in [0, 1) that is the same for the same seed, in every process."""
    digest = hashlib.blake2b(f"{round_}\0{seed}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _at(weights: list[tuple[str, float]], point: float) -> str:
    for version, share in weights:
        point -= share
        if point < 0:
            return version
    return weights[-1][0]
