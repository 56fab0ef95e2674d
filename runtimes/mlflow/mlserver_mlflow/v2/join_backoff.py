"""Whether joining the requests of a model is worth it: a result that cannot be split costs a prediction for nothing."""

from __future__ import annotations

from mlserver.errors import CannotBatch
from mlserver.logging import get_logger

logger = get_logger()

# Batches that are run one by one at most, until joining is tried again.
LONGEST_PAUSE = 256


class Joining:
    """Counts the batches of one model whose result could not be split.

    After each, twice as many batches as before are run one by one without being tried; one that succeeds ends that.
    """

    def __init__(self, model_name: str) -> None:
        self._name = model_name
        self._pause = 0
        self._left = 0

    def check(self) -> None:
        """Raises `CannotBatch`: this batch is run one by one."""
        if self._left:
            self._left -= 1
            raise CannotBatch

    def normalize(self, is_separable: bool) -> None:
        """Note how a batch ended. Raises `CannotBatch` for a result that cannot be split."""
        if is_separable:
            self._pause = 0
            return
        if not self._pause:
            logger.info(
                "Model '%s': joined requests are run one by one where a result's types depend on all its rows; "
                "outputs declared in the signature avoid that",
                self._name,
            )
        self._pause = self._left = min(LONGEST_PAUSE, self._pause * 2 or 1)
        raise CannotBatch
