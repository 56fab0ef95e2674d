"""Number of fields in each row of a CSV body, counted by pandas' rules.

Blank lines are not rows, and a quote opens a quoted field only at the beginning of a field.
"""

from __future__ import annotations

import io
import re

# A quoted field, which may be unterminated, and the separator before it (group 1).
_QUOTED_FIELD = re.compile(rb'((?:^(?:\xef\xbb\xbf)?)|[,\n])"[^"]*(?:""[^"]*)*"?')
# Bytes before a quote that opens a field; b"" is between the two quotes of an escaped quote.
_OPENING_CONTEXTS = {b"", b",", b"\n"}


def count_fields(body: bytes) -> list[int]:
    """Return one number per row, the header's first."""
    if b"\r" in body:
        body = body.replace(b"\r", b"\n")
    if b'"' in body:
        body = _replace_quoted_fields(body)
    return [line.count(b",") + 1 for line in io.BytesIO(body) if line.strip(b" \t\n")]


def _replace_quoted_fields(body: bytes) -> bytes:
    """Return the body with `x` in place of each quoted text, which may hold commas and lines."""
    parts = body.split(b'"')
    contexts = {part[-1:] for part in parts[:-1:2]}
    if not contexts <= _OPENING_CONTEXTS:
        return _QUOTED_FIELD.sub(rb"\1x", body)
    unquoted = parts[::2]
    is_unterminated = len(parts) % 2 == 0
    return b"x".join([*unquoted, b""] if is_unterminated else unquoted)
