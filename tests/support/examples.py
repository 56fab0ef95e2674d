"""Number of examples of the property tests: few in `make test`, many in `make fuzz`.

`make test` draws the same examples in every run, so more of them only repeat what has passed.
"""

from __future__ import annotations

import os

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "repeatable")
FUZZ_FACTOR = 20


def example_count(quick: int) -> int:
    """Return `quick`, or `FUZZ_FACTOR` times as many under the profile `random`."""
    return quick * FUZZ_FACTOR if PROFILE == "random" else quick
