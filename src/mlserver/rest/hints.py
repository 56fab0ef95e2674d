"""Hints of 404 responses: the path that a client of another server probably needs.

Runtimes add hints for the paths that their models declare (`runtime_hooks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..runtime_hooks import list_hooks

_INFER = "inference is POST /v2/models/NAME/infer"
_INFER_MODEL = "inference is POST /v2/models/{name}/infer"
_DOCS = "the documentation is at /v2/docs"
_HEALTH = "health is at /v2/health/live and /v2/health/ready"
_METRICS = "metrics are at the setting 'metrics_endpoint'"
# Patterns of whole paths of other servers -> hint; the first match counts. "" is the inference path
# of the model in the group `name`. `{infer}` and `{name}` are replaced.
_HINTS = {
    r"/": f"the protocol starts at /v2; {_DOCS}",
    r"/(v2/)?(docs|redoc|swagger|openapi)(\.json|/.*)?": _DOCS,
    r"/v2/models/(?P<name>[^/:]+)(/versions/[^/]+)?[/:](predict|score|invoke|explain)": "",
    r"/v1/models/(?P<name>[^/:]+)([/:]predict|[/:]explain)?(/.*)?": "",
    r"/v1/chat/completions|/v1/(responses|completions|embeddings)": (
        "no agent that answers it is loaded"
    ),
    r"/predictions/(?P<name>[^/:]+)": "",
    r"/(api/)?(v1/|v1.0/)?(predict|predictions|score|infer|inference|invoke|generate)(/.*)?": (
        "{infer}"
    ),
    r"/(api/|v1/)?models(/.*)?": "models are listed at /v2/models; {infer}",
    r"/(v2/)?(health|healthz|livez|readyz|live|ready|status)(/.*)?": _HEALTH,
    r"/(v2/)?metrics": _METRICS,
    r"/(v2/)?console(/.*)?": "the console is at /console/, unless the setting 'console' is off, or "
    "'production' is on without 'auth'",
}
_OTHERS = "every path is listed at /v2/docs; {infer}"


def get_hint(path: str) -> str:
    """Return the hint for a path that does not exist."""
    for pattern, hint in _iterate_hints():
        match = re.fullmatch(pattern, path, re.IGNORECASE)
        if match is None:
            continue
        name = match.groupdict().get("name") or "NAME"
        return _fill(hint or _INFER_MODEL).replace("{name}", name)
    return _fill(_OTHERS)


def _fill(hint: str) -> str:
    """Replace `{infer}` by the paths of inference."""
    paths = [_INFER, *(hooks.inference_hint for hooks in list_hooks())]
    return hint.replace("{infer}", ", or ".join(filter(None, paths)))


def _iterate_hints() -> Iterator[tuple[str, str]]:
    for hooks in list_hooks():
        yield from hooks.path_hints.items()
    yield from _HINTS.items()
