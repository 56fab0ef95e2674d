"""Creation of the repository that the settings specify."""

from __future__ import annotations

from typing import Any

from ..settings import Settings, SettingsError
from .repository import ModelRepository, SchemalessModelRepository


class ModelRepositoryFactory:
    """Creates the repository of a server."""

    @staticmethod
    def resolve_model_repository(settings: Settings) -> ModelRepository:
        """Create the repository of `model_repository_implementation`, by default that of folders.

        Raises:
            SettingsError: the class does not exist or does not accept the arguments.
        """
        cls: type[Any] = settings.repository_class or SchemalessModelRepository
        arguments = settings.model_repository_implementation_args
        try:
            repository = cls(root=settings.model_repository_root, **arguments)
        except TypeError as error:
            raise SettingsError(
                f"model_repository_implementation: creating {cls.__name__} failed: {error}"
            ) from error
        if not isinstance(repository, ModelRepository):
            raise SettingsError(
                "model_repository_implementation: expected a subclass of ModelRepository, received"
                f" {cls.__name__}"
            )
        return repository
