"""The one gate before every handler: caller, grant, admission, error mapping, metrics, access line.

Handlers are wrapped once, when their service is added: an interceptor of grpc.aio costs every call another coroutine,
22 µs of 150. The gate alone aborts calls; handlers raise.
"""

import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2

from server import telemetry
from server.edge.access_line import SUBJECTS, AccessLines
from server.edge.admission import RPC_POLICIES, Admission, RpcPolicy
from server.edge.caller import Participant, ParticipantRegistry, current_caller
from server.edge.status import code_of, to_grpc_status
from server.errors import InternalError, MalformedFieldError, OneCardError, UnavailableError

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
StreamBehaviour: TypeAlias = Callable[[Any, Any], AsyncIterator[Any]]


class Gate:
    """Wraps every handler of a service as it is added to the server.

    Stands where generated ``add_…_to_server`` functions expect a server.
    """

    def __init__(
        self, server: grpc.aio.Server, registry: ParticipantRegistry, admission: Admission, lines: AccessLines
    ) -> None:
        self._server = server
        self._registry = registry
        self._admission = admission
        self._lines = lines
        self.draining = False

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Adds a service to the server, each of its handlers behind the gate."""
        gated = {
            rpc: self._wrap(f"/{service}/{rpc}", handler, RPC_POLICIES[f"/{service}/{rpc}"])
            for rpc, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, gated),))

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignored: generated code adds the same handlers this way too, but not yet behind the gate."""

    def _wrap(self, method: str, handler: Handler, policy: RpcPolicy) -> Handler:
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._guard_stream(method, cast("StreamBehaviour", handler.stream_stream), policy),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        assert handler.request_deserializer is not None, f"{method}: generated handlers have one"
        # Requests come in as bytes: what does not decode is then refused here and not by grpc, with its own text.
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._guard_stream(
                    method,
                    cast("StreamBehaviour", handler.unary_stream),
                    policy,
                    decode=handler.request_deserializer,
                ),
                response_serializer=handler.response_serializer,
            )
        assert handler.unary_unary is not None, f"{method}: this kind of call has no gate yet"
        return grpc.unary_unary_rpc_method_handler(
            self._guard_unary(method, handler.unary_unary, handler.request_deserializer, policy),
            response_serializer=handler.response_serializer,
        )

    def _guard_unary(
        self,
        method: str,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        decode: Callable[[bytes], Any],
        policy: RpcPolicy,
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        subject_of = SUBJECTS.get(method)

        async def guarded(message: bytes, context: "Context[Any, Any]") -> Any:
            started = time.perf_counter()
            caller, subject, status = "", "", "CANCELLED"
            try:
                participant = self._identify(context)
                caller = participant.participant_id
                request = _decoded(decode, message)
                subject = subject_of(request) if subject_of else ""
                self._admit(participant, policy)
                try:
                    response = await behaviour(request, context)
                finally:
                    self._admission.leave(policy.admission)
                status = "OK"
                return response
            except Exception as error:
                operating_error = _operating_error(error)
                status = code_pb2.Code.Name(code_of(operating_error))
                await context.abort_with_status(to_grpc_status(operating_error))
            finally:
                self._note(method, caller, subject, status, time.perf_counter() - started)

        return guarded

    def _guard_stream(
        self,
        method: str,
        behaviour: StreamBehaviour,
        policy: RpcPolicy,
        decode: Callable[[bytes], Any] | None = None,
    ) -> StreamBehaviour:
        """``decode`` is given where the request is one message: ``requests`` is then its bytes."""

        async def guarded(requests: Any, context: "Context[Any, Any]") -> AsyncIterator[Any]:
            started = time.perf_counter()
            caller, status = "", "CANCELLED"
            try:
                participant = self._identify(context)
                caller = participant.participant_id
                if decode is not None:
                    requests = _decoded(decode, requests)
                self._admit(participant, policy)
                try:
                    async for response in behaviour(requests, context):
                        yield response
                finally:
                    self._admission.leave(policy.admission)
                status = "OK"
            except Exception as error:
                operating_error = _operating_error(error)
                status = code_pb2.Code.Name(code_of(operating_error))
                await context.abort_with_status(to_grpc_status(operating_error))
            finally:
                self._note(method, caller, "", status, time.perf_counter() - started)

        return guarded

    def renew(self, participant: Participant) -> Participant:
        """The present grants of a caller whose stream is open.

        Raises:
            UnavailableError: the worker is stopping.
            UnauthenticatedError: the participant is no longer active.
        """
        if self.draining:
            raise UnavailableError("DRAINING", "this worker is stopping", retry_delay_ms=100)
        return self._registry.renew(participant)

    def _identify(self, context: "Context[Any, Any]") -> Participant:
        """The caller, known before anything is refused it: a refusal is evidence of who was refused."""
        if self.draining:
            raise UnavailableError("DRAINING", "this worker is stopping", retry_delay_ms=100)
        participant = self._registry.identify(context)
        current_caller.set(participant)
        return participant

    def _admit(self, participant: Participant, policy: RpcPolicy) -> None:
        """Checks the grant and takes a place; raises before it is taken."""
        participant.require_rpc_class(policy.rpc_class)
        self._admission.enter(policy.admission)

    def _note(self, method: str, caller: str, subject: str, status: str, seconds: float) -> None:
        telemetry.rpc_counter(method, status).inc()
        telemetry.rpc_seconds(method).observe(seconds)
        self._lines.add(method=method, caller=caller, subject=subject, status=status, seconds=seconds)


def _decoded(decode: Callable[[bytes], Any], message: bytes) -> Any:
    """
    Raises:
        MalformedFieldError: the bytes are not the RPC's request.
    """
    try:
        return decode(message)
    except DecodeError:
        raise MalformedFieldError("request", "does not decode") from None


def _operating_error(error: Exception) -> OneCardError:
    """The error as callers may see it: what is not ours becomes an incident id."""
    if not isinstance(error, OneCardError):
        incident_id = uuid.uuid4().hex
        log.error("handler failed incident=%s", incident_id, exc_info=error)
        error = InternalError(incident_id)
    telemetry.refusal_counter(error.reason).inc()
    return error
