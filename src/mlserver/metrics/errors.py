"""Errors of custom metrics."""

from __future__ import annotations

from ..errors import MLServerError


class InvalidModelContext(MLServerError):
    """A metric was logged by code that does not belong to a model."""

    def __init__(self) -> None:
        super().__init__(
            "Metrics can be logged only while a model loads, predicts, unloads or "
            "returns its metadata: in that call, or in tasks that it starts",
            500,
        )


class InvalidMetric(MLServerError):
    """A metric's name or value is not valid in Prometheus."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Metric '{name}' cannot be logged: {reason}", 500)


class MetricNotFound(MLServerError):
    """No metric of that name is registered."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Metric '{name}' is not registered", 404)
