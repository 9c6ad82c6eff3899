"""One table from operating errors to gRPC statuses, with google.rpc details.

Programmer errors are INTERNAL with a fixed text and an id for the log; nothing of them leaves the process.
"""

from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from onecard.v1 import common_pb2

from server import errors

DOMAIN = "onecard"

CODES: dict[type[errors.OneCardError], int] = {
    errors.MalformedFieldError: code_pb2.INVALID_ARGUMENT,
    errors.UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    errors.NotGrantedError: code_pb2.PERMISSION_DENIED,
    errors.NotFoundError: code_pb2.NOT_FOUND,
    errors.RequestIdReusedError: code_pb2.ALREADY_EXISTS,
    errors.AlreadyExistsError: code_pb2.ALREADY_EXISTS,
    errors.StateConflictError: code_pb2.FAILED_PRECONDITION,
    errors.OverloadedError: code_pb2.RESOURCE_EXHAUSTED,
    errors.ContendedError: code_pb2.ABORTED,
    errors.UnavailableError: code_pb2.UNAVAILABLE,
    errors.DatabaseUnavailableError: code_pb2.UNAVAILABLE,
    errors.DeadlineError: code_pb2.DEADLINE_EXCEEDED,
    errors.InternalError: code_pb2.INTERNAL,
}


def code_of(error: errors.OneCardError) -> int:
    """The gRPC status code of an operating error."""
    return CODES.get(type(error), code_pb2.INTERNAL)


def to_grpc_status(error: errors.OneCardError) -> grpc.Status:
    """The status with ErrorInfo, and BadRequest or RetryInfo where they say more."""
    details: list[any_pb2.Any] = []

    def add(
        message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
    ) -> None:
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)

    metadata = {"field": error.field} if error.field else {}
    add(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        add(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_delay_ms:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_delay_ms)
        add(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_of(error), message=error.message, details=details)
    return cast("grpc.Status", rpc_status.to_status(status))  # type: ignore[no-untyped-call]


def to_operation_error(error: errors.OneCardError) -> common_pb2.OperationError:
    """The same for one operation of a frame."""
    return common_pb2.OperationError(
        code=code_of(error),
        reason=error.reason,
        message=error.message,
        field=error.field,
        retry_delay_ms=error.retry_delay_ms,
    )
