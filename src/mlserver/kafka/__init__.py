"""The Kafka front end: requests out of one topic, answers into another."""

from .errors import InvalidMessageHeaders
from .server import KafkaServer

__all__ = ["InvalidMessageHeaders", "KafkaServer"]
