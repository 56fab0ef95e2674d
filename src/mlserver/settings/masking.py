"""Masks secrets in values of settings, which errors, the command line and the console show."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"

# Keys of free objects (`kafka_config`, `extra` ...) whose values are secrets.
_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|api[_.-]?key|access[_.-]?key"
    r"|private[_.-]?key|key\.pem|jaas|oauthbearer\.config|authorization",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
# Credentials in addresses: `scheme://user:password@host`, and signatures in queries.
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY_SECRET = re.compile(
    r"(?<=[?&])((?:[\w.-]*(?:sig|signature|token|secret|password|key)[\w.-]*)=)[^&\s]+",
    re.IGNORECASE,
)


def mask(value: Any, key: str = "") -> Any:
    """Return JSON values with `***` in place of secrets, by their keys and forms."""
    if isinstance(value, dict):
        # All values below a key that names a secret are secrets.
        begin = f"{key}." if names_secret(key) else ""
        return {name: mask(item, f"{begin}{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [mask(item, key) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if names_secret(key) or _SECRET_TEXT.search(value):
        return MASK
    return _QUERY_SECRET.sub(rf"\1{MASK}", _USER_INFO.sub(MASK, value))


def names_secret(text: str) -> bool:
    """Return whether a key, or a text with keys, names a secret."""
    return _SECRET_KEY.search(text) is not None
