"""When a call may be sent again, and how long to wait before: pure, so that the rules can be read and tested.

Only what the status allows is retried, always under the same request id: the core then gives the stored outcome
instead of deciding twice. Must never retry a refusal, and never a call whose outcome is unknown without a request id.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from clients.errors import (
    ContendedError,
    OneCardCallError,
    OutcomeUnknownError,
    OverloadedError,
    UnavailableError,
)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Bounds of the retries of one call.

    Args:
        attempts_max: sends, the first included; 1 turns retries off.
        overall_deadline_s: from the first send to the last answer, waits included.
        backoff_first_s: longest wait before the second attempt; doubles with each further one.
        backoff_max_s: bound of that doubling.
        jitter: draws from 0 to 1; waits are spread over the whole backoff, so that callers who failed together do
            not come back together.
    """

    attempts_max: int = 8
    overall_deadline_s: float = 30.0
    backoff_first_s: float = 0.05
    backoff_max_s: float = 2.0
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or self.overall_deadline_s <= 0:
            raise ValueError("a call has at least one attempt and some time")
        if not 0 <= self.backoff_first_s <= self.backoff_max_s:
            raise ValueError("backoff_first_s lies between 0 and backoff_max_s")

    def delay_s(self, error: OneCardCallError, *, attempt: int, has_request_id: bool) -> float | None:
        """How long to wait before the next attempt, or None when there must be none.

        Args:
            error: how the attempt ended.
            attempt: its number, from 1.
            has_request_id: whether the request carries an id under which the core keeps its outcome.
        """
        if attempt >= self.attempts_max or not is_retryable(error, has_request_id=has_request_id):
            return None
        ceiling_s = min(self.backoff_max_s, self.backoff_first_s * 2.0 ** (attempt - 1))
        # The core's own delay is a floor: coming back earlier only meets the same full queue.
        return (error.retry_delay_s or 0.0) + ceiling_s * self.jitter()


def is_retryable(error: OneCardCallError, *, has_request_id: bool) -> bool:
    """Whether the status allows the same request once more."""
    if isinstance(error, UnavailableError | ContendedError):
        return True
    if isinstance(error, OverloadedError):
        # Without a delay of the core's it is gRPC itself: a message above its size limit stays above it.
        return error.retry_delay_s is not None
    return isinstance(error, OutcomeUnknownError) and has_request_id
