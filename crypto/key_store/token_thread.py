"""The one thread that calls a PKCS#11 module: modules differ in what they bear, SoftHSM crashes with two.

Callers wait for it no longer than they say. Must never call a module from any other thread, and never let a
module's objects die in another one: some call the module as they go.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

log = logging.getLogger(__name__)

RECOVERY_PAUSE_S = 1.0

T = TypeVar("T")


class TokenThread:
    """Runs one job after the other, and between them the recoveries that were asked for."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._recoveries: list[Callable[[], bool]] = []
        # A daemon: a module that never returns must not keep the process from ending.
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Queues a job; cancelling its future before it runs takes it out."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return future

    def recover(self, attempt: Callable[[], bool]) -> None:
        """Calls ``attempt`` once a second, the first time as soon as the thread is free, until it gives True."""
        self._recoveries.append(attempt)
        self._jobs.put(None)

    def _serve(self) -> None:
        next_attempt_s = 0.0
        while True:
            wait_s = max(0.0, next_attempt_s - time.monotonic()) if self._recoveries else None
            self._run_next(wait_s)
            if self._recoveries and time.monotonic() >= next_attempt_s:
                for attempt in self._recoveries.copy():
                    if _has_ended(attempt):
                        self._recoveries.remove(attempt)
                next_attempt_s = time.monotonic() + RECOVERY_PAUSE_S

    def _run_next(self, wait_s: float | None) -> None:
        try:
            job = self._jobs.get(timeout=wait_s)
        except queue.Empty:
            return
        if job is None:
            return
        future, work = job
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


def _has_ended(attempt: Callable[[], bool]) -> bool:
    """What an attempt says; one that fails in a way nobody thought of is made again, and never ends the thread."""
    try:
        return attempt()
    except Exception as error:
        # The type alone: what the text may hold is as unknown as the error.
        log.error("key store: a token's recovery failed (%s)", type(error).__name__)
        return False
