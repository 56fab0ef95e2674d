"""What may be done to requests and responses around a model, under the names of MLServer 1.x."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .settings import ModelSettings
from .types import InferenceRequest, InferenceResponse


class InferenceMiddleware(ABC):
    """Changes requests before a model sees them, and responses after."""

    @abstractmethod
    def request_middleware(
        self, request: InferenceRequest, settings: ModelSettings
    ) -> InferenceRequest: ...

    @abstractmethod
    def response_middleware(
        self, response: InferenceResponse, settings: ModelSettings
    ) -> InferenceResponse: ...


class InferenceMiddlewares(InferenceMiddleware):
    """Several, in order."""

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
