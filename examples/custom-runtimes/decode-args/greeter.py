"""`decode_args`: predict receives Python values by input name, and returns the outputs."""

from __future__ import annotations

import numpy as np

from mlserver import MLModel
from mlserver.codecs import decode_args


class Greeter(MLModel):
    """Greets each name `times` times. `greeting` is optional."""

    @decode_args
    async def predict(
        self, names: list[str], times: np.ndarray, greeting: list[str] | None = None
    ) -> tuple[list[str], np.ndarray]:
        words = greeting or ["Hello"] * len(names)
        texts = [
            " ".join([f"{word}, {name}!"] * int(count))
            for word, name, count in zip(words, names, times.ravel(), strict=True)
        ]
        return texts, np.array([len(text) for text in texts])
