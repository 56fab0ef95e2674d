"""The payload log: a stage that copies requests and responses, a bounded queue, and its writers."""

from .logs import PayloadLogs

__all__ = ["PayloadLogs"]
