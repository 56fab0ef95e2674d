"""Hints of 404 responses: the path that a client of another server probably needs. Pure."""

from __future__ import annotations

import re

_INFER = (
    "inference is POST /v2/models/NAME/infer, "
    "or POST /invocations with MLflow's body for MLflow models"
)
_DOCS = "the documentation is at /v2/docs"
_HEALTH = "health is at /v2/health/live and /v2/health/ready"
_METRICS = "metrics are at the setting 'metrics_endpoint'"
_MLFLOW = "MLflow models have this path, and no such model is loaded"
# Patterns of whole paths of other servers -> hint; the first match counts. With a group `name` and
# no hint, the hint is the inference path of that model.
_HINTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (r"/", f"the protocol starts at /v2; {_DOCS}"),
        (r"/(v2/)?(docs|redoc|swagger|openapi)(\.json|/.*)?", _DOCS),
        (r"/v2/models/(?P<name>[^/:]+)(/versions/[^/]+)?[/:](predict|score|invoke|explain)", ""),
        (r"/v1/models/(?P<name>[^/:]+)([/:]predict|[/:]explain)?(/.*)?", ""),
        (
            r"/v1/chat/completions|/v1/(responses|completions|embeddings)",
            "no agent that answers it is loaded",
        ),
        (r"/(invocations|ping|version)", _MLFLOW),
        (
            r"/v2/models/[^/]+(/versions/[^/]+)?/(invocations|ping|version)",
            "only MLflow models have this path",
        ),
        (r"/predictions/(?P<name>[^/:]+)", ""),
        (
            r"/(api/)?(v1/|v1.0/)?(predict|predictions|score|infer|inference|invoke|generate)(/.*)?",
            _INFER,
        ),
        (r"/(api/|v1/)?models(/.*)?", f"models are listed at /v2/models; {_INFER}"),
        (r"/(v2/)?(health|healthz|livez|readyz|live|ready|status)(/.*)?", _HEALTH),
        (r"/(v2/)?metrics", _METRICS),
    )
)


def get_hint(path: str) -> str:
    """Return the hint for a path that does not exist."""
    for pattern, hint in _HINTS:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        name = match.groupdict().get("name")
        return f"inference is POST /v2/models/{name}/infer" if name else hint
    return f"every path is listed at /v2/docs; {_INFER}"
