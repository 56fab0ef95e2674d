"""Autoscaling policy of Ray Serve: as many replicas as keep each below `target_busy`.

Requests do not pass through Serve's handles, so its own measure, the ongoing requests, is always 0.
Each replica reports the share of the last seconds in which it ran requests (`BUSY`); Ray calls the
policy, delays its decisions and starts and stops replicas. Serve stores this module by value: it
imports the standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

BUSY = "mlserver_busy"


def decide_replicas(context: Any) -> tuple[int, dict[str, Any]]:
    """Return the number of replicas for Ray's `AutoscalingContext`, and its state unchanged.

    `target_ongoing_requests` of the deployment is `target_busy`.
    """
    reported = (context.aggregated_metrics or {}).get(BUSY, {})
    desired = count_replicas(
        context.target_num_replicas,
        list(reported.values()),
        context.config.target_ongoing_requests,
        context.total_num_requests > 0,
    )
    return desired, dict(context.policy_state or {})


def count_replicas(current: int, busy: Collection[float], target: float, is_awaited: bool) -> int:
    """Return how many replicas keep each below `target`.

    Args:
        current: The number that was decided before.
        busy: What the replicas reported, 0 to 1; a replica that starts reports nothing.
        is_awaited: Whether a server waits for a first replica.
    """
    if not busy:
        return max(current, int(is_awaited))
    # Rounded: 1.4 / 0.7 is 2.0000000000000004 in binary.
    desired = math.ceil(round(sum(busy) / target, 6))
    return max(desired, int(is_awaited))
