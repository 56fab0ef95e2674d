"""Comparison of all columns of a payload log with a reference table, and its document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .log_reader import LoggedColumn, LoggedPayloads
from .statistics import ColumnDrift, compare

# Columns of a reference with the predictions of a model whose output has another name.
PREDICTION_NAMES = ("prediction", "predictions", "predict")


@dataclass
class DriftReport:
    """The comparison of a log with a reference.

    Attributes:
        reference: Name of the reference's file.
        reference_rows: Rows of the reference.
        inputs: All columns of the reference that are not predictions, the greatest PSI first.
        outputs: Outputs of the model, the greatest PSI first.
        unknown: Inputs of the log that are not in the reference -> share of rows.
    """

    payloads: LoggedPayloads
    reference: str
    reference_rows: int
    inputs: list[ColumnDrift] = field(default_factory=list)
    outputs: list[ColumnDrift] = field(default_factory=list)
    unknown: dict[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> list[ColumnDrift]:
        return [*self.inputs, *self.outputs]

    @property
    def greatest(self) -> float:
        """The greatest PSI of all columns; 0.0 if none is compared."""
        return max([column.psi or 0.0 for column in self.columns], default=0.0)

    def to_document(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        payloads = self.payloads
        inputs = [_to_plain(column) for column in self.inputs]
        outputs = [_to_plain(column) for column in self.outputs]
        return {
            "model": payloads.model,
            "from": payloads.first,
            "to": payloads.last,
            "requests": payloads.requests,
            "rows": payloads.rows,
            "errors": payloads.errors,
            "tensors_without_data": payloads.without_data,
            "skipped_lines": payloads.skipped_lines,
            "reference": self.reference,
            "reference_rows": self.reference_rows,
            "inputs": inputs,
            "outputs": outputs,
            "unknown_inputs": self.unknown,
            "greatest_psi": self.greatest,
        }


def _to_plain(column: ColumnDrift) -> dict[str, Any]:
    return asdict(column) | {"verdict": column.verdict}


def compare_payloads(
    payloads: LoggedPayloads,
    reference: dict[str, list[Any]],
    reference_name: str,
    prediction: str | None,
    bins: int,
) -> DriftReport:
    """Compare a log with a reference.

    Args:
        prediction: Column of the reference with the predictions; None = the one that has the
            output's name, or one of `PREDICTION_NAMES`.
        bins: Quantile bins of a number.
    """
    rows = len(next(iter(reference.values())))
    report = DriftReport(payloads, reference_name, rows)
    used = set()
    for name, logged in payloads.outputs.items():
        column = _find_prediction(name, reference, prediction, payloads)
        used.add(column)
        report.outputs.append(_compare_output(name, column, reference, logged, bins))
    for name, values in reference.items():
        if name not in used:
            report.inputs.append(_compare_input(name, values, payloads, bins))
    for name, logged in payloads.inputs.items():
        if name not in reference:
            report.unknown[name] = min(1.0, len(logged.values) / max(payloads.rows, 1))
    for columns in (report.inputs, report.outputs):
        columns.sort(key=lambda column: -1.0 if column.psi is None else column.psi, reverse=True)
    return report


def _find_prediction(
    output: str,
    reference: dict[str, list[Any]],
    prediction: str | None,
    payloads: LoggedPayloads,
) -> str | None:
    """Return the column of the reference that an output is compared with."""
    if prediction is not None:
        return prediction if len(payloads.outputs) == 1 or output == prediction else None
    if output in reference and output not in payloads.inputs:
        return output
    if len(payloads.outputs) > 1:
        return None
    return next((name for name in PREDICTION_NAMES if name in reference), None)


def _compare_output(
    name: str,
    column: str | None,
    reference: dict[str, list[Any]],
    logged: LoggedColumn,
    bins: int,
) -> ColumnDrift:
    if column is None or column not in reference:
        drift = compare(name, logged.values, logged.values, logged.is_narrow, bins)
        drift.psi, drift.reference_count, drift.reference_mean = None, 0, None
        drift.bars = []
        drift.note = "no such column in the reference: name one with --prediction"
        return drift
    return compare(name, reference[column], logged.values, logged.is_narrow, bins)


def _compare_input(
    name: str, reference: list[Any], payloads: LoggedPayloads, bins: int
) -> ColumnDrift:
    logged = payloads.inputs.get(name)
    if logged is None:
        where = "masked in the log" if name in payloads.masked else "not in the log"
        return ColumnDrift(name, note=where)
    absent = max(0, payloads.rows - len(logged.values))
    return compare(name, reference, logged.values + [None] * absent, logged.is_narrow, bins)
