"""Loads in workers whose callers have left: nothing of the model remains in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mlserver.parallel.pool_manager import PoolExecutor
from mlserver.settings import ModelParameters, ModelSettings, Settings

LIMIT = 60.0
MODEL = '''
import asyncio
from pathlib import Path
from mlserver import MLModel


class Late(MLModel):
    """Ends its load in spite of the cancellation."""

    async def load(self):
        self.folder = Path(self.settings.parameters.extra["folder"])
        (self.folder / "started").touch()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return True

    async def unload(self):
        (self.folder / "unloaded").touch()
        return True
'''


async def wait_file(path: Path) -> None:
    async with asyncio.timeout(LIMIT):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process creates it
            await asyncio.sleep(0.01)


async def test_a_load_that_ends_after_its_caller_has_left_is_undone(tmp_path: Path) -> None:
    (tmp_path / "late_model.py").write_text(MODEL)
    parameters = ModelParameters(extra={"folder": str(tmp_path)})
    settings = ModelSettings(name="m", implementation="late_model.Late", parameters=parameters)
    executor = PoolExecutor(Settings(parallel_workers=2))
    await executor.start()
    try:
        load = asyncio.ensure_future(executor.load(settings))
        await wait_file(tmp_path / "started")
        load.cancel()
        await asyncio.wait({load})
        assert load.cancelled()
        await wait_file(tmp_path / "unloaded")
    finally:
        await executor.stop(5.0)
