"""The payload logs of one process: checks of the settings, and one writer per destination."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable
from importlib import import_module

from ..custom_routes import Route
from ..errors import SettingsError
from ..logging import get_logger
from ..parallel.executor import LoadedModel
from ..registry import ModelPipeline, ModelVersion
from ..settings import ModelSettings, Settings
from ..settings.payload_log import PayloadLogSettings, merge_payload_logs
from .encoding import list_unknown_masks
from .events import ColumnReader, ModelLog
from .stage import PayloadLogStage
from .writer import PayloadWriter

logger = get_logger()


class PayloadLogs:
    """Builds the stages of models with a payload log.

    Args:
        settings: Settings of the server.
        process_index: Position of this process among those that serve HTTP; 0 = the server.
    """

    def __init__(self, settings: Settings, process_index: int = 0) -> None:
        self._settings = settings
        self._process_index = process_index
        self._writers: dict[str, PayloadWriter] = {}
        self._checked: dict[str, PayloadLogSettings] = {}

    def check(self, settings: ModelSettings) -> None:
        """Check a model's payload log before the model is loaded.

        Raises:
            SettingsError: no destination, a file that cannot be written, or other limits than
                those of another model with the same file.
        """
        merged = self._merge(settings)
        if merged is None or merged.is_address:
            return
        path = str(merged.to)
        _check_file(path, settings.name)
        other = self._checked.setdefault(path, merged)
        limits = merged.max_file_bytes, merged.max_files
        if limits != (other.max_file_bytes, other.max_files):
            raise SettingsError(
                f"Model '{settings.name}': field 'payload_log.max_file_bytes' and 'max_files': "
                f"expected {other.max_file_bytes} and {other.max_files}, as in the other model that"
                f" writes to '{path}', received {limits[0]} and {limits[1]}"
            )

    def add_stage(
        self, pipeline: ModelPipeline, entry: ModelVersion, loaded: LoadedModel
    ) -> ModelPipeline:
        """Return the pipeline with the payload log as its first stage, if the model has one."""
        settings = self._merge(entry.settings)
        if settings is None:
            return pipeline
        metadata = loaded.info.metadata
        has_service = self._settings.server_name != Settings.model_fields["server_name"].default
        log = ModelLog(
            entry.name,
            entry.version,
            settings.max_bytes,
            self._settings.server_name if has_service else "",
            frozenset(settings.mask),
            frozenset(tensor.name for tensor in metadata.inputs or ()),
            find_readers(loaded.info.routes),
        )
        if self._process_index == 0:
            _report(log, settings, [tensor.name for tensor in metadata.outputs or ()])
        writer = self._get_writer(settings)
        return PayloadLogStage(pipeline, log, settings, writer, entry.metrics)

    async def close(self) -> None:
        """Write the events in the queues, within `writer.FLUSH_LIMIT`, and end the threads."""
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))

    def _merge(self, settings: ModelSettings) -> PayloadLogSettings | None:
        return merge_payload_logs(self._settings.payload_log, settings.payload_log, settings.name)

    def _get_writer(self, settings: PayloadLogSettings) -> PayloadWriter:
        to = str(settings.to)
        if to not in self._writers:
            self._writers[to] = PayloadWriter(settings, self._process_index)
        return self._writers[to]


def find_readers(routes: Iterable[Route]) -> dict[str, ColumnReader]:
    """Return the readers of unparsed bodies that the wire modules of routes declare."""
    readers: dict[str, ColumnReader] = {}
    for name in {route.wire for route in routes if route.wire}:
        module = import_module(name)
        content_type = getattr(module, "UNREAD_CONTENT_TYPE", None)
        if content_type is not None:
            readers[content_type] = module.read_columns
    return readers


def _check_file(path: str, model: str) -> None:
    """Raise `SettingsError` unless lines can be appended to a regular file of this path."""
    folder = os.path.dirname(os.path.abspath(path))
    expected = cure = ""
    if not os.path.isdir(folder):
        expected, cure = "a file in a folder that exists", f"create '{folder}'"
    elif os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        expected, cure = "a regular file", "choose another path"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        expected, cure = "a file that the server's user may write", "change its owner or mode"
    if expected:
        raise SettingsError(
            f"Model '{model}': field 'payload_log.to': expected {expected}, received '{path}'; "
            f"{cure}",
            ("payload_log.to",),
        )


def _report(log: ModelLog, settings: PayloadLogSettings, outputs: list[str]) -> None:
    """Log the destination of a model's payloads, and masks that name no input or output."""
    logger.info(
        "Model '%s': payload log of %.4g %% of the requests in '%s', masked: %s",
        log.name,
        settings.sample * 100,
        settings.to,
        ", ".join(sorted(log.masks)) or "nothing",
    )
    if log.masks and not log.inputs:
        logger.warning(
            "Model '%s': field 'payload_log.mask': the model declares no inputs, so that the names"
            " cannot be checked: %s",
            log.name,
            ", ".join(sorted(log.masks)),
        )
    elif unknown := list_unknown_masks(log, outputs):
        logger.warning(
            "Model '%s': field 'payload_log.mask': expected names of inputs or outputs (%s),"
            " received %s",
            log.name,
            ", ".join(sorted(log.inputs.union(outputs))),
            ", ".join(f"'{name}'" for name in unknown),
        )
