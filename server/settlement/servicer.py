"""SettlementService on the wire: check, convert, call. Shows a participant what is its own, and operators all."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from onecard.v1 import settlement_pb2 as pb
from onecard.v1 import settlement_pb2_grpc

from server.database.pool import acquired
from server.database.statements import load
from server.edge import fields
from server.edge.caller import OPERATOR, Participant, current_caller
from server.errors import MalformedFieldError, NotFoundError, NotGrantedError
from server.settlement.closing_store import ClosingFile, read_closing_file
from server.settlement.event_feed import EventFilter, RecordedEvent, rrn
from server.settlement.positions import Position, accounts_of, read_position
from server.settlement.subscriptions import Subscriptions

Context = grpc.aio.ServicerContext
STATEMENTS = load("server.settlement")
EVENTS_CLASS = "settlement_events"
KINDS_MAX = 32
# As the schema has it.
PARTICIPANT_ID = re.compile(r"[a-z0-9][a-z0-9-]{1,31}", re.ASCII)
PAGE_SIZE_DEFAULT = 31
PAGE_SIZE_MAX = 366
_FILES = {
    pb.CLOSING_FILE_CSV: ClosingFile.CSV,
    pb.CLOSING_FILE_PARQUET: ClosingFile.PARQUET,
    pb.CLOSING_FILE_MANIFEST: ClosingFile.MANIFEST,
    pb.CLOSING_FILE_EXCEPTIONS: ClosingFile.EXCEPTIONS,
}


class SettlementServicer(settlement_pb2_grpc.SettlementServiceServicer):
    """Events, positions and closings."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[Any]",
        subscriptions: Subscriptions,
        renew: Callable[[Participant], Participant],
        settlement_dir: Path,
    ) -> None:
        """``renew`` gives a caller's present grants, or raises when its stream must end."""
        self._pool = pool
        self._subscriptions = subscriptions
        self._renew = renew
        self._settlement_dir = settlement_dir

    async def SubscribeEvents(
        self, request: pb.SubscribeEventsRequest, context: "Context[Any, Any]"
    ) -> AsyncIterator[pb.SubscribeEventsResponse]:
        caller = current_caller.get()
        if request.after_sequence < 0:
            raise MalformedFieldError("after_sequence", "must not be negative")
        shown = EventFilter(participant_id=_whose_events(request.participant, caller), kinds=_kinds(request))

        def check() -> None:
            self._renew(caller).require_rpc_class(EVENTS_CLASS)

        async for portion in self._subscriptions.portions(
            after_sequence=request.after_sequence,
            shown=shown,
            subscriber_id=caller.participant_id,
            check=check,
        ):
            yield pb.SubscribeEventsResponse(
                events=[_event(event, shows_card=caller.kind == OPERATOR) for event in portion.events],
                through_sequence=portion.through_sequence,
            )

    async def GetSettlementPosition(
        self, request: pb.GetSettlementPositionRequest, context: "Context[Any, Any]"
    ) -> pb.GetSettlementPositionResponse:
        caller = current_caller.get()
        business_date = fields.calendar_date("business_date", request.business_date)
        participant_id = _whose(request.participant, caller)
        async with acquired(self._pool) as connection:
            account_id = await connection.fetchval(STATEMENTS["find_participant"], participant_id)
            if account_id is None:
                raise NotFoundError(
                    "PARTICIPANT_UNKNOWN", "there is no such participant", field="participant"
                )
            accounts = accounts_of(account_id)
            reading = await read_position(connection, list(accounts), business_date)
        return pb.GetSettlementPositionResponse(
            positions=[_position(position, accounts[position.account_id]) for position in reading.positions],
            through_sequence=reading.through_sequence,
            is_closed=reading.is_closed,
        )

    async def ListClosings(
        self, request: pb.ListClosingsRequest, context: "Context[Any, Any]"
    ) -> pb.ListClosingsResponse:
        participant_id = _whose(request.participant, current_caller.get())
        if request.page_size > PAGE_SIZE_MAX:
            raise MalformedFieldError("page_size", f"must be at most {PAGE_SIZE_MAX}")
        page_size = request.page_size or PAGE_SIZE_DEFAULT
        before = fields.calendar_date("page_token", request.page_token) if request.page_token else date.max
        async with acquired(self._pool) as connection:
            rows = await connection.fetch(STATEMENTS["list_closings"], participant_id, before, page_size + 1)
        has_more = len(rows) > page_size
        return pb.ListClosingsResponse(
            closings=[
                pb.Closing(
                    participant=participant_id,
                    business_date=f"{row['business_date']:%Y%m%d}",
                    operation_count=row["operation_count"],
                    manifest_sha256=row["manifest_sha256"],
                    made_at_unix_ms=int(row["made_at"].timestamp() * 1000),
                )
                for row in rows[:page_size]
            ],
            next_page_token=f"{rows[page_size - 1]['business_date']:%Y%m%d}" if has_more else "",
        )

    async def DownloadClosing(
        self, request: pb.DownloadClosingRequest, context: "Context[Any, Any]"
    ) -> AsyncIterator[pb.DownloadClosingResponse]:
        participant_id = _whose(request.participant, current_caller.get())
        business_date = fields.calendar_date("business_date", request.business_date)
        if request.file not in _FILES:
            raise MalformedFieldError("file", "must be one of the named values")
        async with acquired(self._pool) as connection:
            closing = await connection.fetchrow(STATEMENTS["find_closing"], participant_id, business_date)
        if closing is None:
            raise NotFoundError("CLOSING_UNKNOWN", "the participant has no closing of this date")
        async for content in read_closing_file(
            self._settlement_dir,
            participant_id,
            business_date,
            file=_FILES[request.file],
            manifest=closing["manifest"],
        ):
            yield pb.DownloadClosingResponse(content=content)


def _whose_events(participant_id: str, caller: Participant) -> str | None:
    """Whose events to show; None for all."""
    if caller.kind == OPERATOR and not participant_id:
        return None
    return _whose(participant_id, caller)


def _whose(participant_id: str, caller: Participant) -> str:
    """
    Raises:
        MalformedFieldError: no participant can have this id.
        NotGrantedError: another participant than the caller, who is no operator.
    """
    if not participant_id or participant_id == caller.participant_id:
        return caller.participant_id
    if not PARTICIPANT_ID.fullmatch(participant_id):
        raise MalformedFieldError("participant", "must be 2 to 32 of a-z, 0-9 and hyphen")
    if caller.kind != OPERATOR:
        raise NotGrantedError(
            "OPERATOR_ONLY", "only operators may see other participants", field="participant"
        )
    return participant_id


def _kinds(request: pb.SubscribeEventsRequest) -> tuple[int, ...] | None:
    kinds = tuple(sorted(set(request.kinds)))
    if len(request.kinds) > KINDS_MAX:
        raise MalformedFieldError("kinds", f"must be at most {KINDS_MAX}")
    if any(kind == 0 or kind not in pb.EventKind.values() for kind in kinds):
        raise MalformedFieldError("kinds", "must be named values")
    return kinds or None


def _event(event: RecordedEvent, *, shows_card: bool) -> pb.Event:
    return pb.Event(
        sequence=event.sequence,
        rrn=rrn(event.operation_id),
        request_id=event.request_id,
        kind=event.kind,  # type: ignore[arg-type]  # numbers of newer kinds go out as they are
        response_code=event.response_code,
        reason=event.reason,
        amount_minor=event.amount_minor,
        approved_minor=event.approved_minor,
        business_date=event.business_date,
        decided_at_unix_us=round(event.decided_at.timestamp() * 1_000_000),
        original_rrn=rrn(event.original_operation_id),
        terminal_id=event.terminal_id,
        merchant_id=event.merchant_id,
        stan=event.stan,
        participant=event.participant_id,
        card_id=event.card_id if shows_card else 0,
        is_forced_post=event.is_forced_post,
    )


def _position(position: Position, use: int) -> pb.SettlementPosition:
    return pb.SettlementPosition(
        account=use,  # type: ignore[arg-type]  # the wire's own numbers
        opening_minor=position.opening_minor,
        debit_minor=position.debit_minor,
        credit_minor=position.credit_minor,
        closing_minor=position.closing_minor,
        posting_count=position.posting_count,
    )
