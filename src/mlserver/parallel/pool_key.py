"""Which models share a pool of workers."""

from __future__ import annotations

from typing import NamedTuple


class PoolKey(NamedTuple):
    """Identifies a pool.

    Attributes:
        environment: Key of the Python environment; "" = the server's own.
        group: The models' `inference_pool_gid`; "" = none.
        code: Whose code runs in the pool: "" = models without code, a digest = models of a group
            with equal code, else the key of one loaded model.
    """

    environment: str = ""
    group: str = ""
    code: str = ""

    @property
    def models(self) -> PoolKey:
        """Identifies the models of the pool, also after a reload."""
        return self._replace(code=self.code.partition("#")[0])


DEFAULT = PoolKey()
