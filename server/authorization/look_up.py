"""Looks a participant's own operations up: the stored answer, and what became of it. Changes nothing."""

from typing import Any

import asyncpg
from onecard.v1 import authorization_pb2 as pb

from server.authorization.answers import rrn_of
from server.authorization.conversion import KINDS, LookUpKey
from server.database.pool import acquired
from server.database.statements import load
from server.engine.operation import OperationKind
from server.errors import NotFoundError

LOOK_UP_OPERATION = load("server.authorization")["look_up_operation"]
_TYPES = {kind: number for number, kind in KINDS.items()}


class OperationLookUp:
    """Asks the database off the hot path, shard by shard: the key does not say which card it is of."""

    def __init__(self, pool: "asyncpg.Pool[Any]", *, shard_count: int) -> None:
        self._pool = pool
        self._shard_count = shard_count

    async def find(self, key: LookUpKey, *, participant_id: str) -> pb.LookUpOperationResponse:
        """
        Raises:
            NotFoundError: the participant has no such money operation online.
            DatabaseUnavailableError: the database does not answer.
        """
        async with acquired(self._pool) as connection:
            for shard in range(self._shard_count):
                row = await connection.fetchrow(
                    LOOK_UP_OPERATION,
                    *(shard, participant_id, key.request_id, key.operation_id),
                    *(key.switch_key, key.business_date),
                    list(_TYPES),
                )
                if row is not None:
                    return _response(row)
        raise NotFoundError("OPERATION_UNKNOWN", "the caller has no such operation", field="key")


def _response(row: Any) -> pb.LookUpOperationResponse:
    request_id, kind, response, decided_at, original_id, reversed_minor, refunded_minor, *hold = row
    hold_state, held_minor, captured_minor = hold
    return pb.LookUpOperationResponse(
        request_id=request_id,
        operation=_TYPES[OperationKind(kind)],  # type: ignore[arg-type]
        response=pb.AuthorizeResponse.FromString(response),
        reversed_minor=reversed_minor,
        refunded_minor=refunded_minor,
        hold_state=hold_state,
        held_minor=held_minor,
        captured_minor=captured_minor,
        original_rrn=rrn_of(original_id) if original_id is not None else "",
        decided_at_unix_ms=int(decided_at.timestamp() * 1000),
    )
