"""Which repository the settings ask for."""

from __future__ import annotations

from typing import Any

from ..settings import Settings, SettingsError
from .repository import ModelRepository, SchemalessModelRepository


class ModelRepositoryFactory:
    """Makes the repository of a server."""

    @staticmethod
    def resolve_model_repository(settings: Settings) -> ModelRepository:
        """The repository of `model_repository_implementation`, or the one that reads folders.

        Raises:
            SettingsError: There is no such class, or it does not take the arguments that the settings give.
        """
        cls: type[Any] = settings.repository_class or SchemalessModelRepository
        arguments = settings.model_repository_implementation_args
        try:
            repository = cls(root=settings.model_repository_root, **arguments)
        except TypeError as error:
            raise SettingsError(
                f"model_repository_implementation: {cls.__name__} cannot be made: {error}"
            ) from error
        if not isinstance(repository, ModelRepository):
            raise SettingsError(
                f"model_repository_implementation: {cls.__name__} is not a ModelRepository"
            )
        return repository
