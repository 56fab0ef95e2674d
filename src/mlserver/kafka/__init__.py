"""Kafka front end: requests from one topic, responses to another."""

from .errors import InvalidMessageHeaders
from .server import KafkaServer

__all__ = ["InvalidMessageHeaders", "KafkaServer"]
