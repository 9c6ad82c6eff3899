"""One table from errors to statuses: complete, and nothing of a request gets into them."""

import inspect

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from server import errors
from server.edge.status import CODES, code_of, to_grpc_status, to_operation_error

EXPECTED = {
    "MalformedFieldError": "INVALID_ARGUMENT",
    "UnauthenticatedError": "UNAUTHENTICATED",
    "NotGrantedError": "PERMISSION_DENIED",
    "NotFoundError": "NOT_FOUND",
    "RequestIdReusedError": "ALREADY_EXISTS",
    "AlreadyExistsError": "ALREADY_EXISTS",
    "StateConflictError": "FAILED_PRECONDITION",
    "OverloadedError": "RESOURCE_EXHAUSTED",
    "ContendedError": "ABORTED",
    "UnavailableError": "UNAVAILABLE",
    "DatabaseUnavailableError": "UNAVAILABLE",
    "DeadlineError": "DEADLINE_EXCEEDED",
    "InternalError": "INTERNAL",
}
SAMPLES = [
    errors.MalformedFieldError("chip.arqc", "must be 8 bytes"),
    errors.UnauthenticatedError("CALLER_UNKNOWN", "unknown"),
    errors.NotGrantedError("REGION_NOT_GRANTED", "not granted"),
    errors.NotFoundError("CARD_UNKNOWN", "no such card", field="card"),
    errors.RequestIdReusedError("amount_minor"),
    errors.AlreadyExistsError("CARD_ALREADY_ISSUED", "taken", field="pan"),
    errors.StateConflictError("CARD_STATE_CONFLICT", "conflict"),
    errors.OverloadedError("the queue is full", retry_delay_ms=1_250),
    errors.ContendedError(),
    errors.UnavailableError("DRAINING", "stopping", retry_delay_ms=100),
    errors.DatabaseUnavailableError(),
    errors.DeadlineError(),
    errors.InternalError("0" * 32),
]


def error_classes() -> set[type]:
    """Every operating error but the root and the one that never reaches the wire."""
    classes = {
        c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.OneCardError)
    }
    return classes - {errors.OneCardError, errors.ConfigurationError}


def test_every_error_class_has_its_status() -> None:
    assert set(CODES) == error_classes()
    assert {kind.__name__: code_pb2.Code.Name(code) for kind, code in CODES.items()} == EXPECTED
    assert {type(sample) for sample in SAMPLES} == error_classes()


def test_error_without_a_row_is_internal() -> None:
    class UnlistedError(errors.NotFoundError):
        pass

    assert code_of(UnlistedError("X", "x")) == code_pb2.INTERNAL
    assert code_of(errors.ConfigurationError("x")) == code_pb2.INTERNAL


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_status_carries_reason_field_and_delay(error: errors.OneCardError) -> None:
    rich = dict(to_grpc_status(error).trailing_metadata)["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(rich)
    assert (status.code, status.message) == (code_of(error), error.message)
    details = {detail.type_url.rsplit(".", 1)[1]: detail.value for detail in status.details}
    info = error_details_pb2.ErrorInfo.FromString(details.pop("ErrorInfo"))
    assert (info.reason, info.domain, dict(info.metadata)) == (
        error.reason,
        "onecard",
        {"field": error.field} if error.field else {},
    )
    assert info.reason == info.reason.upper()
    if error.field:
        (violation,) = error_details_pb2.BadRequest.FromString(details.pop("BadRequest")).field_violations
        assert violation.field == error.field
    if error.retry_delay_ms:
        delay = error_details_pb2.RetryInfo.FromString(details.pop("RetryInfo")).retry_delay
        assert delay.ToMilliseconds() == error.retry_delay_ms
    assert details == {}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_operation_of_a_frame_carries_the_same(error: errors.OneCardError) -> None:
    told = to_operation_error(error)
    assert (told.code, told.reason, told.message) == (code_of(error), error.reason, error.message)
    assert (told.field, told.retry_delay_ms) == (error.field, error.retry_delay_ms)


def test_errors_that_may_be_tried_again_say_when() -> None:
    for sample in SAMPLES:
        waits = EXPECTED[type(sample).__name__] in {"RESOURCE_EXHAUSTED", "ABORTED", "UNAVAILABLE"}
        assert bool(sample.retry_delay_ms) is waits
