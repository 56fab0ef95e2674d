"""What a model's load in one worker decides for the others: version, results of trials."""

from __future__ import annotations

from typing import Any

from ..runtime_hooks import find_hooks
from ..settings import ModelSettings
from .executor import ModelInfo


def is_mutable_address(settings: ModelSettings) -> bool:
    """Whether the model's address may point to another version at the next load."""
    uri = settings.parameters.uri if settings.parameters else None
    return uri is not None and find_hooks(settings.implementation_).is_mutable_address(uri)


def loads_first_alone(settings: ModelSettings) -> bool:
    """Whether one worker loads the model before the others.

    They load the version of a mutable address that it resolves, and use the results of its trials.
    """
    return is_mutable_address(settings) or find_hooks(settings.implementation_).makes_trials


def get_trial_results(info: ModelInfo | None) -> dict[str, Any] | None:
    """Return the results of trials in another worker's load of the model."""
    return None if info is None else info.trial_results


def get_source(info: ModelInfo | None) -> str | None:
    """Return the address with an explicit version that a loaded model reports in its metadata."""
    parameters = info.metadata.parameters if info is not None else None
    source = (parameters.model_extra or {}).get("source") if parameters is not None else None
    return source if isinstance(source, str) else None


def with_resolved_uri(settings: ModelSettings, source: str | None) -> ModelSettings:
    """Return the settings with the resolved address, so that all workers load one version."""
    if source is None or settings.parameters is None or not is_mutable_address(settings):
        return settings
    parameters = settings.parameters.model_copy(update={"uri": source})
    return settings.model_copy(update={"parameters": parameters})
