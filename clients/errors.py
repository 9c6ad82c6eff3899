"""What a call may end with when it has no answer; a decline is an answer and never one of these.

Branch on the type or on ``reason``, never on ``message``.

::

    OneCardCallError
    ├── MalformedRequestError     INVALID_ARGUMENT; ``field`` names the field
    ├── NotAllowedError           UNAUTHENTICATED or PERMISSION_DENIED
    ├── NotFoundError             NOT_FOUND
    ├── AlreadyExistsError        ALREADY_EXISTS: an identifier is taken
    │   └── RequestIdReusedError  the request id stands for other content; ``field`` names what differs
    ├── StateConflictError        FAILED_PRECONDITION
    └── RetryableError            the same request, under the same request id, may be sent again
        ├── OverloadedError       RESOURCE_EXHAUSTED
        ├── ContendedError        ABORTED
        ├── UnavailableError      UNAVAILABLE: a part of the core, or the way to it, is gone
        └── OutcomeUnknownError   DEADLINE_EXCEEDED: decided or not, nobody here knows
"""

import contextlib

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onecard.v1 import common_pb2

REQUEST_ID_REUSED = "REQUEST_ID_REUSED"


class OneCardCallError(Exception):
    """A call without an answer.

    Args:
        code: gRPC status.
        reason: stable reason in UPPER_SNAKE from google.rpc.ErrorInfo; empty when the core did not speak.
        field: path of the field at fault, or empty.
        message: one sentence for people.
        retry_delay_s: how long the core asks to wait, or None when it names nothing.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        *,
        reason: str = "",
        field: str = "",
        message: str = "",
        retry_delay_s: float | None = None,
    ) -> None:
        super().__init__(" ".join(part for part in (code.name, reason, field, message) if part))
        self.code = code
        self.reason = reason
        self.field = field
        self.message = message
        self.retry_delay_s = retry_delay_s


class MalformedRequestError(OneCardCallError):
    """A field breaks its documented bounds."""


class NotAllowedError(OneCardCallError):
    """The certificate names nobody, or the participant lacks a grant."""


class NotFoundError(OneCardCallError):
    """An identifier names nothing."""


class AlreadyExistsError(OneCardCallError):
    """An identifier is taken."""


class RequestIdReusedError(AlreadyExistsError):
    """The request id was used before with other content."""


class StateConflictError(OneCardCallError):
    """The state does not admit the step."""


class RetryableError(OneCardCallError):
    """The same request may be sent again; raised only when the retries are used up."""


class OverloadedError(RetryableError):
    """A queue, quota or in-flight limit is full."""


class ContendedError(RetryableError):
    """Lost to concurrent operations more often than the core retries."""


class UnavailableError(RetryableError):
    """The core, its database or the connection is gone; a mutating request may or may not have been decided."""


class OutcomeUnknownError(RetryableError):
    """The deadline passed; only the same request id tells the outcome."""


_TYPES: dict[grpc.StatusCode, type[OneCardCallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: MalformedRequestError,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: StateConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.ABORTED: ContendedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: OutcomeUnknownError,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def call_error(
    code: grpc.StatusCode,
    *,
    reason: str = "",
    field: str = "",
    message: str = "",
    retry_delay_s: float | None = None,
) -> OneCardCallError:
    """The error of the type that callers branch on."""
    kind = RequestIdReusedError if reason == REQUEST_ID_REUSED else _TYPES.get(code, OneCardCallError)
    return kind(code, reason=reason, field=field, message=message, retry_delay_s=retry_delay_s)


def from_rpc_error(error: grpc.aio.AioRpcError) -> OneCardCallError:
    """Reads status and google.rpc details of a failed call; details that cannot be read are left out."""
    reason, field, retry_delay_s = "", "", None
    for detail in _details(error):
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry_info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, field = info.reason, field or info.metadata.get("field", "")
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry_info):
            retry_delay_s = retry_info.retry_delay.ToTimedelta().total_seconds()
    return call_error(
        error.code(),
        reason=reason,
        field=field,
        message=error.details() or "",
        retry_delay_s=retry_delay_s,
    )


def from_operation_error(error: common_pb2.OperationError) -> OneCardCallError:
    """The same for one operation of a frame."""
    return call_error(
        _CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        reason=error.reason,
        field=error.field,
        message=error.message,
        retry_delay_s=error.retry_delay_ms / 1000 if error.retry_delay_ms else None,
    )


def _details(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    # A proxy may answer in the core's place, with details of its own or with none.
    with contextlib.suppress(ValueError, DecodeError):
        status = rpc_status.from_call(error)  # type: ignore[no-untyped-call]
        if status is not None:
            return list(status.details)
    return []
