"""AuthorizationService on the wire: check, convert, call; one by one and in frames."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import grpc
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import authorization_pb2_grpc

from crypto.key_store import KeyStore
from crypto.key_store.checks import ArqcCheck
from crypto.sealing import BlindIndex
from server.authorization.service import CNY, Authorize, MoneyOperation
from server.cards.directory import CardDirectory, CredentialKind
from server.cards.identifiers import parse_pan
from server.cards.presented import CheckedCryptogram
from server.edge import fields
from server.edge.caller import Participant, current_caller
from server.edge.chip import PresentedCryptogram, presented_cryptogram
from server.edge.intake import Intake, outcome_of
from server.edge.status import to_operation_error
from server.engine.group_commit import GroupCommit
from server.engine.operation import MoneyFields, OperationKind
from server.errors import MalformedFieldError, NotGrantedError, OneCardError

Context = grpc.aio.ServicerContext
FRAME_OPERATIONS_MAX = 512
FRAMES_IN_FLIGHT_MAX = 8
STAN_MAX = 999_999
TERMINAL_TIME_MAX_UNIX_MS = 2**53
DEPOSIT_CLASS = "deposit"
# MTI class of 0200 financial messages, which the switch key holds.
MTI_CLASS_FINANCIAL = 2


# PAN, operation, and what the chip presented.
Converted: TypeAlias = tuple[str, MoneyOperation, PresentedCryptogram | None]


class AuthorizationServicer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Authorizes money operations."""

    def __init__(
        self,
        *,
        engine: GroupCommit,
        directory: CardDirectory,
        intake: Intake,
        key_store: KeyStore,
        blind_index: BlindIndex,
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._intake = intake
        self._blind_index = blind_index
        self._capability = Authorize(key_store)

    async def Authorize(
        self, request: pb.AuthorizeRequest, context: "Context[Any, Any]"
    ) -> pb.AuthorizeResponse:
        caller = current_caller.get()
        operation, presented = self._convert(request, caller, self._intake.deadline(context))
        (refusal,) = await self._resolve([(request.pan, operation, presented)], caller)
        if refusal is not None:
            raise refusal
        return await outcome_of(self._engine.submit([operation]), pb.AuthorizeResponse)

    async def AuthorizeStream(
        self, request_iterator: AsyncIterator[pb.AuthorizeStreamRequest], context: "Context[Any, Any]"
    ) -> AsyncIterator[pb.AuthorizeStreamResponse]:
        caller = current_caller.get()
        frames: asyncio.Queue[asyncio.Task[pb.AuthorizeStreamResponse] | None] = asyncio.Queue(
            FRAMES_IN_FLIGHT_MAX
        )

        async def read() -> None:
            try:
                async for frame in request_iterator:
                    deadline = self._intake.deadline(context)
                    await frames.put(asyncio.create_task(self._decide_frame(frame, caller, deadline)))
            finally:
                await frames.put(None)

        reader = asyncio.create_task(read())
        try:
            while (frame := await frames.get()) is not None:
                yield await frame
            await reader
        finally:
            reader.cancel()

    async def _decide_frame(
        self, frame: pb.AuthorizeStreamRequest, caller: Participant, deadline: float
    ) -> pb.AuthorizeStreamResponse:
        """Decides a frame's operations independently; what has no outcome carries its error."""
        if not 1 <= len(frame.operations) <= FRAME_OPERATIONS_MAX:
            raise MalformedFieldError("operations", f"must be 1 to {FRAME_OPERATIONS_MAX}")
        outcomes: list[Any] = []
        converted: list[Converted] = []
        for request in frame.operations:
            try:
                converted.append((request.pan, *self._convert(request, caller, deadline)))
                outcomes.append(None)
            except OneCardError as error:
                outcomes.append(error)
        outcomes = _fill(outcomes, await self._decide(converted, caller))
        response = pb.AuthorizeStreamResponse(frame_id=frame.frame_id)
        for outcome in outcomes:
            if isinstance(outcome, OneCardError):
                response.results.add(error=to_operation_error(outcome))
            else:
                response.results.add(response=outcome)
        return response

    async def _decide(self, converted: Sequence[Converted], caller: Participant) -> list[Any]:
        """A response or an error for each operation, in order."""
        if not converted:
            return []
        try:
            outcomes: list[Any] = await self._resolve(converted, caller)
            admitted = [c[1] for c, refusal in zip(converted, outcomes, strict=True) if refusal is None]
            return _fill(outcomes, await self._engine.submit(admitted) if admitted else [])
        except OneCardError as error:
            return [error] * len(converted)

    async def _resolve(
        self,
        converted: Sequence[Converted],
        caller: Participant,
    ) -> list[NotGrantedError | None]:
        """Finds the cards and makes their cryptograms checkable; gives the refusal of each whose region is foreign.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        index_of = self._blind_index.of
        indexes = [index_of(pan, kind=CredentialKind.PAN) for pan, _, _ in converted]
        found = await self._directory.find_many(indexes)
        refusals: list[NotGrantedError | None] = []
        for index, (pan, operation, presented) in zip(indexes, converted, strict=True):
            facts = found.get(index)
            if facts is None:
                refusals.append(None)
                continue
            try:
                caller.require_region(facts.issuing_region)
            except NotGrantedError as refusal:
                refusals.append(refusal)
                continue
            refusals.append(None)
            operation.facts = facts
            operation.card_id = facts.card_id
            operation.account_id = facts.account_id
            operation.shard = facts.shard
            if presented is not None:
                operation.cryptogram = CheckedCryptogram(
                    ArqcCheck(
                        key=facts.ac_key,
                        pan=pan,
                        psn=presented.psn,
                        data=presented.data,
                        atc=presented.atc,
                        arqc=presented.arqc,
                    )
                )
        return refusals

    def _convert(
        self, request: pb.AuthorizeRequest, caller: Participant, deadline: float
    ) -> tuple[MoneyOperation, PresentedCryptogram | None]:
        """Checks every field.

        Raises:
            MalformedFieldError: a field breaks its bounds.
            NotGrantedError: a deposit without its grant.
        """
        request_id = fields.request_id(request.request_id)
        amount_minor = fields.amount_minor("amount_minor", request.amount_minor)
        if request.currency_code != CNY:
            raise MalformedFieldError("currency_code", "must be CNY")
        fields.parsed("pan", parse_pan, request.pan)
        if not 1 <= request.stan <= STAN_MAX:
            raise MalformedFieldError("stan", f"must be 1 to {STAN_MAX}")
        if not 0 <= request.terminal_time_unix_ms <= TERMINAL_TIME_MAX_UNIX_MS:
            raise MalformedFieldError("terminal_time_unix_ms", "must be milliseconds since 1970")
        presented = None
        if request.operation == pb.OPERATION_TYPE_PURCHASE:
            kind = OperationKind.PURCHASE
            if not request.HasField("chip"):
                raise MalformedFieldError("chip", "is required for a purchase")
            presented = presented_cryptogram("chip", request.chip, amount_minor=amount_minor)
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
        operation = MoneyOperation(
            capability=self._capability,
            kind=kind,
            participant_id=caller.participant_id,
            request_id=request_id,
            request_digest=self._intake.digest(request),
            deadline=deadline,
            terminal_id=fields.visible("terminal_id", request.terminal_id, length_min=1, length_max=16),
            money=money,
            facts=None,
            cryptogram=None,
            settlement_account_id=caller.settlement_account_id,
        )
        return operation, presented


def _fill(outcomes: Sequence[Any], later: Sequence[Any]) -> list[Any]:
    """``outcomes`` with each None replaced by the next of ``later``."""
    rest = iter(later)
    return [next(rest) if outcome is None else outcome for outcome in outcomes]
