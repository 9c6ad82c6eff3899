"""AuthorizationService on the wire: check, convert, call; one by one and in frames."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from itertools import repeat
from typing import Any

import grpc
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import authorization_pb2_grpc

from crypto.card_code import CardCodes
from crypto.sealing import BlindIndex, ColumnSealer
from server import telemetry
from server.authorization.card_tokens import (
    RegisterTokenOperation,
    RegisterTokens,
    RevokeTokenOperation,
    RevokeTokens,
)
from server.authorization.conversion import Converter, look_up_key
from server.authorization.credential_conversion import CredentialConverter
from server.authorization.look_up import OperationLookUp
from server.authorization.operations import MoneyOperation
from server.authorization.service import Authorize
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.frame_stream import answer_frames
from server.edge.intake import Intake, outcome_of
from server.edge.status import to_operation_error
from server.engine.group_commit import GroupCommit
from server.engine.operation import OperationKind
from server.errors import MalformedFieldError, OneCardError
from server.key_calls import KeyCalls
from server.rulebook.book import RuleBook

Context = grpc.aio.ServicerContext
FRAME_OPERATIONS_MAX = 512
AUTHORIZATION_CLASS = "authorization"


class AuthorizationServicer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Authorizes money operations."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        intake: Intake,
        keys: KeyCalls,
        blind_index: BlindIndex,
        sealer: ColumnSealer,
        card_codes: CardCodes,
        book: RuleBook,
        look_up: OperationLookUp,
        renew: Callable[[Participant], Participant],
        today: Callable[[], date],
        code_life_s: int,
    ) -> None:
        """``renew`` gives a caller's present grants; see ``ParticipantRegistry.renew``.

        ``code_life_s`` is how long a card code serves, with the tolerance between clocks.
        """
        self._renew = renew
        self._today = today
        self._blind_index = blind_index
        self._engine = engine
        self._look_up = look_up
        self._intake = intake
        self._credentials = CredentialConverter(
            key_store=keys.store, blind_index=blind_index, card_codes=card_codes, code_life_s=code_life_s
        )
        self._converter = Converter(
            capability=Authorize(keys, book, sealer),
            intake=intake,
            blind_index=blind_index,
            credentials=self._credentials,
        )
        self._register_tokens = RegisterTokens()
        self._revoke_tokens = RevokeTokens()

    async def Authorize(
        self, request: pb.AuthorizeRequest, context: "Context[Any, Any]"
    ) -> pb.AuthorizeResponse:
        caller = current_caller.get()
        operation = self._converter.convert(request, caller, deadline=self._intake.deadline(context))
        return await outcome_of(self._engine.submit([operation]), pb.AuthorizeResponse)

    async def LookUpOperation(
        self, request: pb.LookUpOperationRequest, context: "Context[Any, Any]"
    ) -> pb.LookUpOperationResponse:
        caller = current_caller.get()
        return await self._look_up.find(look_up_key(request, caller), participant_id=caller.participant_id)

    async def RegisterCardToken(
        self, request: pb.RegisterCardTokenRequest, context: "Context[Any, Any]"
    ) -> pb.RegisterCardTokenResponse:
        caller = current_caller.get()
        envelope = self._intake.envelope(request, context, caller)
        token_index = self._credentials.token_index(request.card_token, caller)
        kind, value = fields.card_reference(request.card, today=self._today())
        operation = RegisterTokenOperation(
            capability=self._register_tokens,
            kind=OperationKind.REGISTER_CARD_TOKEN,
            caller=caller,
            card_index=self._blind_index.of(value, kind=kind),
            token_index=token_index,
            **envelope,
        )
        return await outcome_of(self._engine.submit([operation]), pb.RegisterCardTokenResponse)

    async def RevokeCardToken(
        self, request: pb.RevokeCardTokenRequest, context: "Context[Any, Any]"
    ) -> pb.RevokeCardTokenResponse:
        caller = current_caller.get()
        operation = RevokeTokenOperation(
            capability=self._revoke_tokens,
            kind=OperationKind.REVOKE_CARD_TOKEN,
            caller=caller,
            card_index=self._credentials.token_index(request.card_token, caller),
            **self._intake.envelope(request, context, caller),
        )
        return await outcome_of(self._engine.submit([operation]), pb.RevokeCardTokenResponse)

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
                operations.append(self._converter.convert(request, caller, deadline=deadline))
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
