"""Single entries of an `MLmodel` file, read as text: without MLflow and without a YAML library."""

from __future__ import annotations

import os
import re

MLMODEL = "MLmodel"
_ENTRY = r"^ +['\"]?(?:%s)['\"]?: *(.+?) *$"


def compile_entry(names: str) -> re.Pattern[str]:
    """Return the pattern of an indented entry, such as that of a flavor; `a|b` = either name."""
    return re.compile(_ENTRY % names, re.MULTILINE)


def read_text(folder: str) -> str:
    """Return the `MLmodel` file of a folder; "" if it cannot be read."""
    try:
        with open(os.path.join(folder, MLMODEL), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def find_values(pattern: re.Pattern[str], text: str) -> list[str]:
    """Return the values of all entries that match, without quotes and empty values."""
    values = [match[1].strip("'\"") for match in pattern.finditer(text)]
    return [value for value in values if value not in ("null", "~", "")]
