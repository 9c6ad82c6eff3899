"""When a call may be sent again, and how long the wait before it is."""

import grpc
import pytest

from clients import errors
from clients.retry import RetryPolicy, is_retryable

CODE = grpc.StatusCode


def policy(**bounds: float) -> RetryPolicy:
    return RetryPolicy(jitter=lambda: 1.0, **bounds)  # type: ignore[arg-type]


def delay_s(error: errors.OneCardCallError, *, attempt: int = 1, has_request_id: bool = True) -> float | None:
    return policy().delay_s(error, attempt=attempt, has_request_id=has_request_id)


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.ABORTED])
@pytest.mark.parametrize("has_request_id", [True, False])
def test_a_call_that_was_not_answered_is_sent_again(code: grpc.StatusCode, has_request_id: bool) -> None:
    assert is_retryable(errors.call_error(code), has_request_id=has_request_id)


def test_unknown_outcome_is_asked_again_only_under_a_request_id() -> None:
    error = errors.call_error(CODE.DEADLINE_EXCEEDED)
    assert delay_s(error) is not None
    assert delay_s(error, has_request_id=False) is None


def test_overload_is_retried_only_after_the_delay_the_core_names() -> None:
    assert delay_s(errors.call_error(CODE.RESOURCE_EXHAUSTED)) is None
    named = errors.call_error(CODE.RESOURCE_EXHAUSTED, retry_delay_s=0.25)
    waited = delay_s(named)
    assert waited is not None
    assert waited >= 0.25


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in CODE
        if code
        not in {CODE.OK, CODE.UNAVAILABLE, CODE.ABORTED, CODE.RESOURCE_EXHAUSTED, CODE.DEADLINE_EXCEEDED}
    ],
)
def test_a_refusal_is_never_retried(code: grpc.StatusCode) -> None:
    assert delay_s(errors.call_error(code, retry_delay_s=0.1)) is None


def test_waits_double_up_to_their_bound() -> None:
    bounded = policy(backoff_first_s=0.1, backoff_max_s=0.5)
    error = errors.call_error(CODE.UNAVAILABLE)
    waits = [bounded.delay_s(error, attempt=attempt, has_request_id=True) for attempt in range(1, 6)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_waits_are_spread_over_the_whole_backoff() -> None:
    shortest = RetryPolicy(jitter=lambda: 0.0)
    assert shortest.delay_s(errors.call_error(CODE.UNAVAILABLE), attempt=3, has_request_id=True) == 0.0


def test_the_last_attempt_is_the_last() -> None:
    error = errors.call_error(CODE.UNAVAILABLE)
    assert policy(attempts_max=3).delay_s(error, attempt=2, has_request_id=True) is not None
    assert policy(attempts_max=3).delay_s(error, attempt=3, has_request_id=True) is None


@pytest.mark.parametrize("bounds", [{"attempts_max": 0}, {"overall_deadline_s": 0}, {"backoff_first_s": 3.0}])
def test_bounds_that_make_no_sense_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a"):
        policy(**bounds)


def test_a_reused_request_id_has_a_type_of_its_own() -> None:
    error = errors.call_error(CODE.ALREADY_EXISTS, reason="REQUEST_ID_REUSED", field="amount_minor")
    assert isinstance(error, errors.RequestIdReusedError)
    assert str(error) == "ALREADY_EXISTS REQUEST_ID_REUSED amount_minor"
    taken = errors.call_error(CODE.ALREADY_EXISTS, reason="CARD_ALREADY_ISSUED")
    assert type(taken) is errors.AlreadyExistsError
