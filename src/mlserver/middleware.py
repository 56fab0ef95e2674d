"""Middleware for requests and responses of models, with the names of MLServer 1.x."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .settings import ModelSettings
from .types import InferenceRequest, InferenceResponse


class InferenceMiddleware(ABC):
    """Changes requests before inference and responses after it."""

    @abstractmethod
    def request_middleware(
        self, request: InferenceRequest, settings: ModelSettings
    ) -> InferenceRequest: ...

    @abstractmethod
    def response_middleware(
        self, response: InferenceResponse, settings: ModelSettings
    ) -> InferenceResponse: ...


class InferenceMiddlewares(InferenceMiddleware):
    """A sequence of middlewares."""

    def __init__(self, *middlewares: InferenceMiddleware) -> None:
        self._middlewares = middlewares

    def request_middleware(
        self, request: InferenceRequest, settings: ModelSettings
    ) -> InferenceRequest:
        for middleware in self._middlewares:
            request = middleware.request_middleware(request, settings)
        return request

    def response_middleware(
        self, response: InferenceResponse, settings: ModelSettings
    ) -> InferenceResponse:
        for middleware in self._middlewares:
            response = middleware.response_middleware(response, settings)
        return response
