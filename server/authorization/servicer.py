"""AuthorizationService on the wire: check, convert, call; one by one and in frames."""

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import repeat
from typing import Any

import grpc
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import authorization_pb2_grpc

from crypto.sealing import BlindIndex
from server import telemetry
from server.authorization.service import CNY, Authorize, MoneyOperation
from server.cards.directory import CredentialKind
from server.cards.identifiers import parse_pan
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.chip import presented_cryptogram
from server.edge.frame_stream import answer_frames
from server.edge.intake import Intake, outcome_of
from server.edge.status import to_operation_error
from server.engine.group_commit import GroupCommit
from server.engine.operation import MoneyFields, OperationKind
from server.errors import MalformedFieldError, OneCardError
from server.key_calls import KeyCalls

Context = grpc.aio.ServicerContext
FRAME_OPERATIONS_MAX = 512
STAN_MAX = 999_999
TERMINAL_TIME_MAX_UNIX_MS = 2**53
AUTHORIZATION_CLASS = "authorization"
DEPOSIT_CLASS = "deposit"
# MTI class of 0200 financial messages, which the switch key holds.
MTI_CLASS_FINANCIAL = 2


class AuthorizationServicer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Authorizes money operations."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        intake: Intake,
        keys: KeyCalls,
        blind_index: BlindIndex,
        renew: Callable[[Participant], Participant],
    ) -> None:
        """``renew`` gives a caller's present grants; see ``ParticipantRegistry.renew``."""
        self._renew = renew
        self._engine = engine
        self._intake = intake
        self._blind_index = blind_index
        self._capability = Authorize(keys)

    async def Authorize(
        self, request: pb.AuthorizeRequest, context: "Context[Any, Any]"
    ) -> pb.AuthorizeResponse:
        caller = current_caller.get()
        operation = self._convert(request, caller, self._intake.deadline(context))
        return await outcome_of(self._engine.submit([operation]), pb.AuthorizeResponse)

    async def AuthorizeStream(
        self, request_iterator: AsyncIterator[pb.AuthorizeStreamRequest], context: "Context[Any, Any]"
    ) -> AsyncIterator[pb.AuthorizeStreamResponse]:
        async def answer(
            frame: pb.AuthorizeStreamRequest, current: Participant
        ) -> pb.AuthorizeStreamResponse:
            return await self._decide_frame(frame, current, self._intake.deadline(context))

        async for response in answer_frames(
            request_iterator,
            answer,
            caller=current_caller.get(),
            rpc_class=AUTHORIZATION_CLASS,
            renew=self._renew,
        ):
            yield response

    async def _decide_frame(
        self, frame: pb.AuthorizeStreamRequest, caller: Participant, deadline: float
    ) -> pb.AuthorizeStreamResponse:
        """Decides a frame's operations independently; what has no outcome carries its error."""
        if not 1 <= len(frame.operations) <= FRAME_OPERATIONS_MAX:
            raise MalformedFieldError("operations", f"must be 1 to {FRAME_OPERATIONS_MAX}")
        outcomes: list[Any] = []
        operations: list[MoneyOperation] = []
        for request in frame.operations:
            try:
                operations.append(self._convert(request, caller, deadline))
                outcomes.append(None)
            except OneCardError as error:
                outcomes.append(error)
        try:
            decided: Iterator[Any] = iter(await self._engine.submit(operations) if operations else ())
        except OneCardError as error:
            decided = repeat(error)
        response = pb.AuthorizeStreamResponse(frame_id=frame.frame_id)
        for outcome in outcomes:
            result = next(decided) if outcome is None else outcome
            if isinstance(result, OneCardError):
                telemetry.refusal_counter(result.reason).inc()
                response.results.add(error=to_operation_error(result))
            else:
                # Half the time of handing the message to add().
                response.results.add().response.CopyFrom(result)
        return response

    def _convert(self, request: pb.AuthorizeRequest, caller: Participant, deadline: float) -> MoneyOperation:
        """Checks every field.

        Raises:
            MalformedFieldError: a field breaks its bounds.
            NotGrantedError: a deposit without its grant.
        """
        request_id = fields.request_id(request.request_id)
        amount_minor = fields.amount_minor("amount_minor", request.amount_minor)
        if request.currency_code != CNY:
            raise MalformedFieldError("currency_code", "must be CNY")
        pan = fields.parsed("pan", parse_pan, request.pan)
        if not 1 <= request.stan <= STAN_MAX:
            raise MalformedFieldError("stan", f"must be 1 to {STAN_MAX}")
        if not 0 <= request.terminal_time_unix_ms <= TERMINAL_TIME_MAX_UNIX_MS:
            raise MalformedFieldError("terminal_time_unix_ms", "must be milliseconds since 1970")
        presented = None
        if request.operation == pb.OPERATION_TYPE_PURCHASE:
            kind = OperationKind.PURCHASE
            if not request.HasField("chip"):
                raise MalformedFieldError("chip", "is required for a purchase")
            presented = presented_cryptogram("chip", request.chip, pan=pan, amount_minor=amount_minor)
        elif request.operation == pb.OPERATION_TYPE_DEPOSIT:
            kind = OperationKind.DEPOSIT
            caller.require_rpc_class(DEPOSIT_CLASS)
            if request.HasField("chip"):
                raise MalformedFieldError("chip", "must not be set for a deposit")
        else:
            raise MalformedFieldError("operation", "must be PURCHASE or DEPOSIT")
        money = MoneyFields(
            amount_minor=amount_minor,
            stan=request.stan,
            mti_class=MTI_CLASS_FINANCIAL,
            merchant_id=fields.visible("merchant_id", request.merchant_id, length_max=15),
            terminal_time_unix_ms=request.terminal_time_unix_ms,
        )
        return MoneyOperation(
            capability=self._capability,
            kind=kind,
            participant_id=caller.participant_id,
            request_id=request_id,
            request_digest=self._intake.digest(request),
            deadline=deadline,
            card_index=self._blind_index.of(pan, kind=CredentialKind.PAN),
            terminal_id=fields.visible("terminal_id", request.terminal_id, length_min=1, length_max=16),
            money=money,
            caller=caller,
            presented=presented,
        )
