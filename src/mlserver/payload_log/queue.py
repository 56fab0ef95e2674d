"""The queue between the event loop and the writer's threads: bounded, and it never blocks."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue

from .events import PayloadEvent

MAX_EVENTS = 4096
MAX_BYTES = 32 * 1024 * 1024


class EventQueue:
    """Events that wait to be written: one producer thread, several consumer threads.

    Args:
        max_events: Events in the queue.
        max_bytes: Bytes of the events in the queue (`PayloadEvent.size`).
    """

    def __init__(self, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._events: SimpleQueue[PayloadEvent | None] = SimpleQueue()
        self._max_events = max_events
        self._max_bytes = max_bytes
        # Sums since the start; each has one writer at a time, so that `put` needs no lock.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._events.qsize()

    @property
    def bytes_held(self) -> int:
        return self._put_bytes - self._taken_bytes

    def put(self, event: PayloadEvent) -> bool:
        """Add an event; False = the queue is full."""
        is_full = self._events.qsize() >= self._max_events
        if is_full or self.bytes_held + event.size > self._max_bytes:
            return False
        self._put_bytes += event.size
        self._events.put(event)
        return True

    def take(self, count: int = 1, collect_seconds: float = 0.0) -> list[PayloadEvent]:
        """Wait for the next events; [] = the queue has been closed and is empty.

        Args:
            count: Events at most.
            collect_seconds: Time to wait for further events after the first one. It saves thread
                switches: the thread is not scheduled for each event.
        """
        events: list[PayloadEvent] = []
        event = self._events.get()
        if event is not None and collect_seconds and self._events.empty():
            time.sleep(collect_seconds)
        while event is not None:
            events.append(event)
            if len(events) == count:
                break
            try:
                event = self._events.get_nowait()
            except Empty:
                break
        else:
            if events:
                self._events.put(None)  # the end, for the next call
        with self._lock:
            self._taken_bytes += sum([item.size for item in events])
        return events

    def close(self, takers: int) -> None:
        """Make `take` return [] in `takers` threads after the events that are in the queue."""
        for _ in range(takers):
            self._events.put(None)

    def clear(self) -> list[PayloadEvent]:
        """Remove and return the events that are in the queue."""
        events: list[PayloadEvent] = []
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                return events
            if event is not None:
                events.append(event)
