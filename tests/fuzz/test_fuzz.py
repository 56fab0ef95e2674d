"""The corpus, mutations of it, and generated JSON: each is answered or rejected with a client
error.

FUZZ_ROUNDS sets the number of mutations per format (`make fuzz` runs 25 times as many).
"""

from __future__ import annotations

import json
import os
import random
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzz.mutation import CORPUS, corpus, mutate
from fuzz.targets import TARGETS
from mlserver.tensor import DATATYPES

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CORPUS_FILES = [
    (target, path.name) for target in TARGETS for path in sorted((CORPUS / target).iterdir())
]
# pandas parses these: a tenth of the rounds takes as long.
SLOW = ("csv", "invocations", "parquet")


@pytest.mark.parametrize("target, name", CORPUS_FILES)
def test_the_corpus(target: str, name: str) -> None:
    run(target, (CORPUS / target / name).read_bytes())


def run(target: str, body: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas and MLflow warn about invalid data
        TARGETS[target](body)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", TARGETS)
def test_mutations(target: str) -> None:
    bodies, rng = corpus(target), random.Random(f"{SEED} {target}")
    for number in range(ROUNDS // 10 if target in SLOW else ROUNDS):
        body = mutate(bodies, rng)
        try:
            run(target, body)
        except Exception as error:
            error.add_note(f"mutation {number} of {target}: {body!r}")
            raise


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=4) | ANY,
        "shape": st.lists(st.integers(-2, 5), max_size=4) | ANY,
        "datatype": st.sampled_from(DATATYPES) | ANY,
        "data": st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=8) | ANY,
        "parameters": st.dictionaries(
            st.sampled_from(["content_type", "binary_data_size", "x"]), ANY
        )
        | ANY,
    },
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=5) | ANY,
        "inputs": st.lists(TENSOR, max_size=3) | ANY,
        "outputs": st.lists(TENSOR, max_size=2) | ANY,
        "parameters": st.dictionaries(
            st.sampled_from(["timeout", "priority", "binary_data_output"]), ANY
        )
        | ANY,
    },
)


@settings(max_examples=max(100, ROUNDS // 10), suppress_health_check=list(HealthCheck))
@given(REQUEST | ANY)
@example({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]})
def test_json_of_any_form(document: Any) -> None:
    run("json", json.dumps(document).encode())
