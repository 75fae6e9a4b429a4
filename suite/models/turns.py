"""Packed runs share a GPU and take turns at one thing: while a run records a CUDA graph, no other may touch the GPU.

A recording marks state that the whole process shares: the device's default generator, which every replay advances, and
the allocators of host and device. Another thread's replay or copy in the meantime ends one of the two runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Who is at work on the GPU. Threads that are no member are neither waited for nor held up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._members = threading.local()
        self._working = 0
        self._wanted = False

    @contextmanager
    def member(self) -> Iterator[None]:
        """Of this thread, for as long as it may launch work: others' recordings wait for it to :meth:`rest`."""
        self._go_on()
        self._members.one = True
        try:
            yield
        finally:
            self._step_aside()
            self._members.one = False

    def rest(self) -> None:
        """Let a recording that waits go first. To be called between steps, with no lock held."""
        if self._wanted and self.is_member():
            self._step_aside()
            self._go_on()

    @contextmanager
    def holding(self, lock: threading.RLock) -> Iterator[None]:
        """Hold the lock that recordings are made under; a thread that waits for it is not at work."""
        if not lock.acquire(blocking=False):
            member = self.is_member()
            if member:
                self._step_aside()
            lock.acquire()
            if member:
                # Nobody can be recording: that takes the lock.
                with self._changed:
                    self._working += 1
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Record, once every other member is at rest. The caller is :meth:`holding` the lock."""
        mine = int(self.is_member())
        with self._changed:
            self._wanted = True
            self._working -= mine
            self._changed.wait_for(lambda: self._working == 0)
        try:
            yield
        finally:
            with self._changed:
                self._wanted = False
                self._working += mine
                self._changed.notify_all()

    def is_member(self) -> bool:
        """Whether this thread is one."""
        return getattr(self._members, "one", False)

    def _step_aside(self) -> None:
        with self._changed:
            self._working -= 1
            self._changed.notify_all()

    def _go_on(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted)
            self._working += 1


TURNS = Turns()
