"""Joined rows get the results that they get alone where the last bit of a number decides."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from mlserver_mlflow.fastpath import selection
from mlserver_mlflow.fastpath.predictors import run_per_request
from support.sklearn_models import wrap

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("columns", [None, list("abcdefgh")], ids=["tensor", "columns"])
@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(), LogisticRegression()),
        (PCA(6), DecisionTreeRegressor(max_depth=3)),
        (PCA(6), KNeighborsClassifier(3)),
    ],
    ids=["scores", "tree", "neighbours"],
)
def test_joined_rows_at_a_boundary_get_the_result_that_they_get_alone(
    steps: tuple[Any, Any], columns: list[str] | None
) -> None:
    """A product of several rows differs in the last bit, which decides a label or a branch."""
    data = np.random.default_rng(2).standard_normal((200, 8))
    estimator = make_pipeline(*steps)
    estimator.fit(data, data @ np.arange(8.0) > 1)
    model = wrap(estimator, data if columns is None else pd.DataFrame(data, columns=columns))
    plan = selection.make_plan(model)
    assert plan.path is not None
    assert plan.row_wise
    rows = find_boundary_rows(plan.path, data)
    table = rows if columns is None else pd.DataFrame(rows, columns=columns)
    assert plan.path.run(rows).tolist() == model.predict(table).tolist()
    alone = [plan.path.run(plan.path.part(rows, slice(at, at + 1)))[0] for at in range(len(rows))]
    assert alone == [model.predict(table[at : at + 1])[0] for at in range(len(rows))]
    counts = [1] * len(rows)
    joined = run_per_request(plan.path, rows, counts) if plan.per_request else plan.path.run(rows)
    assert joined.tolist() == alone


def find_boundary_rows(path: Any, data: Any) -> Any:
    """Pairs of neighbouring numbers between which the result changes, by bisection."""
    pairs: list[Any] = []
    for left, right in itertools.pairwise(data):
        label = path.run(np.asfortranarray([left]))[0]
        if label == path.run(np.asfortranarray([right]))[0]:
            continue
        for _ in range(56):
            middle = (left + right) / 2
            is_left = path.run(np.asfortranarray([middle]))[0] == label
            left, right = (middle, right) if is_left else (left, middle)
        pairs += [left, right]
        if len(pairs) == 16:
            break
    return np.asfortranarray(pairs)
