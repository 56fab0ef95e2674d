"""Statistics of drift: the population stability index (PSI) and rates, of one column. Pure.

PSI is the sum over bins of `(q - p) * ln(q / p)`, with the shares p of the reference and q of the
log. Bins of a number are quantiles of the reference; those of a text, a boolean or a number with at
most `MAX_DISCRETE` distinct values are the values. Shares of 0 are replaced by `MIN_SHARE`, as in
Evidently. Rules of thumb: below 0.1 the column is stable, from 0.2 on it has shifted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DISCRETE = 20
MAX_CATEGORIES = 50
MIN_SHARE = 0.0001
STABLE, SHIFTED = 0.1, 0.2
# Bars of a plot of numbers.
PLOT_BINS = 24
OTHER = "(other)"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """One bar of a plot: the share of the reference, and that of the log."""

    label: str
    reference: float
    logged: float


@dataclass
class ColumnDrift:
    """The comparison of one column.

    Attributes:
        kind: "number" or "category".
        psi: Population stability index; None = not compared.
        note: Why it is not compared; "" = it is.
        count: Values of the log, missing ones excluded.
        reference_count: Values of the reference, missing ones excluded.
        missing: Share of missing values in the log.
        reference_missing: Share of missing values in the reference.
        invalid: Share of the log's values that are not of the reference's kind.
        outside: Share of the log's values outside of the reference's range or categories.
        mean: Mean of the log's numbers; None for categories.
        reference_mean: Mean of the reference's numbers.
        noise: PSI that the number of values alone leads to expect without drift.
        bars: The plot.
    """

    name: str
    kind: str = ""
    psi: float | None = None
    note: str = ""
    count: int = 0
    reference_count: int = 0
    missing: float = 0.0
    reference_missing: float = 0.0
    invalid: float = 0.0
    outside: float = 0.0
    mean: float | None = None
    reference_mean: float | None = None
    noise: float = 0.0
    bars: list[Bar] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """ "stable", "moderate", "shifted", or "not compared"."""
        if self.psi is None:
            return "not compared"
        if self.psi < STABLE:
            return "stable"
        return "moderate" if self.psi < SHIFTED else "shifted"


def compare(
    name: str, reference: Sequence[Any], logged: Sequence[Any], is_narrow: bool, bins: int
) -> ColumnDrift:
    """Compare the values of a column; None = missing.

    Args:
        is_narrow: Whether the log's numbers are floats of 32 bits; the reference is rounded too.
        bins: Quantile bins of a number.
    """
    drift = ColumnDrift(name)
    present = [value for value in reference if not _is_missing(value)]
    values = [value for value in logged if not _is_missing(value)]
    drift.missing = _share(len(logged) - len(values), len(logged))
    drift.reference_missing = _share(len(reference) - len(present), len(reference))
    numbers = to_numbers(present)
    is_number = bool(present) and numbers is not None
    drift.kind = "number" if is_number else "category"
    if numbers is not None and is_number:
        _compare_numbers(drift, numbers, values, is_narrow, bins)
    else:
        _compare_categories(drift, list(map(to_text, present)), list(map(to_text, values)))
    if not drift.count or not drift.reference_count:
        where = "the reference" if not drift.reference_count else "the log"
        drift.psi, drift.note = None, f"no values in {where}"
    return drift


def _compare_numbers(
    drift: ColumnDrift, reference: Floats, values: list[Any], is_narrow: bool, bins: int
) -> None:
    converted = [number for value in values if (number := _to_number(value)) is not None]
    logged = np.array(converted, dtype=np.float64)
    if is_narrow:
        reference = reference.astype(np.float32).astype(np.float64)
        logged = logged.astype(np.float32).astype(np.float64)
    drift.count, drift.reference_count = len(logged), len(reference)
    drift.invalid = _share(len(values) - len(logged), len(values))
    if not len(logged):
        return
    drift.mean, drift.reference_mean = float(logged.mean()), float(reference.mean())
    outside = (logged < reference.min()) | (logged > reference.max())
    drift.outside = float(outside.mean())
    distinct = np.unique(reference)
    if len(distinct) <= MAX_DISCRETE:
        shares = _count_categories(reference.tolist(), logged.tolist())
        drift.bars = [Bar(f"{value:g}", *pair) for value, pair in sorted(shares.items())]
        pairs = list(shares.values())
    else:
        edges = quantile_edges(reference, bins)
        pairs = list(zip(bin_shares(reference, edges), bin_shares(logged, edges), strict=True))
        drift.bars = _plot_bars(reference, logged)
    _set_psi(drift, pairs)


def _compare_categories(drift: ColumnDrift, reference: list[str], logged: list[str]) -> None:
    drift.count, drift.reference_count = len(logged), len(reference)
    if not logged or not reference:
        return
    known = Counter(reference)
    drift.outside = _share(sum(value not in known for value in logged), len(logged))
    kept = {value for value, _ in known.most_common(MAX_CATEGORIES)}
    if len(known) > MAX_CATEGORIES:
        reference = [value if value in kept else OTHER for value in reference]
        logged = [value if value in kept else OTHER for value in logged]
    shares = _count_categories(reference, logged)
    ordered = sorted(shares.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
    drift.bars = [Bar(str(label), *pair) for label, pair in ordered]
    _set_psi(drift, list(shares.values()))


def _set_psi(drift: ColumnDrift, pairs: list[tuple[float, float]]) -> None:
    reference, logged = (np.array(shares) for shares in zip(*pairs, strict=True))
    drift.psi = population_stability_index(reference, logged)
    drift.noise = (len(pairs) - 1) * (1 / drift.count + 1 / drift.reference_count)


def population_stability_index(reference: Floats, logged: Floats) -> float:
    """Return the PSI of two arrays of shares of the same bins."""
    p, q = _replace_zeros(reference), _replace_zeros(logged)
    return float(np.sum((q - p) * np.log(q / p)))


def _replace_zeros(shares: Floats) -> Floats:
    least = shares[shares > 0].min()
    replacement = least / 1e6 if least <= MIN_SHARE else MIN_SHARE
    return np.where(shares > 0, shares, replacement)


def quantile_edges(reference: Floats, bins: int) -> Floats:
    """Return the inner edges of quantile bins: at most `bins - 1`, fewer if values repeat."""
    return np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))


def bin_shares(values: Floats, edges: Floats) -> list[float]:
    """Return the share of values in each bin: up to the first edge, ..., above the last."""
    positions = np.searchsorted(edges, values, side="left")
    counts = np.bincount(positions, minlength=len(edges) + 1)
    shares: list[float] = (counts / len(values)).tolist()
    return shares


def to_numbers(values: Sequence[Any]) -> Floats | None:
    """Return values as numbers; None if one of them is not: text, a boolean or an object."""
    numbers = [_to_number(value) for value in values]
    return None if None in numbers else np.array(numbers, dtype=np.float64)


def to_text(value: Any) -> str:
    """Return a value as the name of a category; objects as JSON."""
    if isinstance(value, str):
        return value.lower() if value in ("True", "False") else value  # pandas' text in CSV
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)


def _to_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _count_categories(
    reference: Iterable[Any], logged: Iterable[Any]
) -> dict[Any, tuple[float, float]]:
    """Return the shares of each value in the reference and in the log."""
    before, after = Counter(reference), Counter(logged)
    whole_before, whole_after = before.total(), after.total()
    values = dict.fromkeys([*before, *after])
    return {value: (before[value] / whole_before, after[value] / whole_after) for value in values}


def _plot_bars(reference: Floats, logged: Floats) -> list[Bar]:
    """Return bars of equal width between the 1st and the 99th percentile of both; the first and the
    last bar include what lies beyond."""
    both = (np.quantile(reference, (0.01, 0.99)), np.quantile(logged, (0.01, 0.99)))
    low, high = min(both[0][0], both[1][0]), max(both[0][1], both[1][1])
    edges = np.linspace(low, high, PLOT_BINS + 1)
    inner = edges[1:-1]
    pairs = zip(bin_shares(reference, inner), bin_shares(logged, inner), strict=True)
    return [
        Bar(f"{edges[index]:.4g} to {edges[index + 1]:.4g}", *pair)
        for index, pair in enumerate(pairs)
    ]
