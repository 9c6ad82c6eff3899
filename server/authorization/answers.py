"""The answer to a money operation, whose bytes are what is stored."""

from onecard.v1 import authorization_pb2 as pb

from server.authorization.rules import APPROVALS, RESPONSE_CODES, Reason
from server.engine.operation import Batch

CNY = "CNY"
AUTHORIZATION_CODES = 1_000_000
RRNS = 1_000_000_000_000
# What a decision may answer a card with.
ARCS = sorted({code.encode() for code in RESPONSE_CODES.values()})


def rrn_of(operation_id: int) -> str:
    """Retrieval reference number, twelve digits."""
    return f"{operation_id % RRNS:012d}"


def answer(
    batch: Batch,
    reason: Reason,
    *,
    operation_id: int | None = None,
    approved_minor: int = 0,
    available_minor: int = 0,
    held_minor: int = 0,
    arpc: bytes = b"",
) -> pb.AuthorizeResponse:
    """The response message of an operation of this batch; amounts in 分."""
    number = batch.operation_id if operation_id is None else operation_id
    return pb.AuthorizeResponse(
        response_code=RESPONSE_CODES[reason],
        reason=reason,  # type: ignore[arg-type]
        authorization_code=f"{number % AUTHORIZATION_CODES:06d}" if reason in APPROVALS else "",
        rrn=f"{number % RRNS:012d}",
        available_minor=available_minor,
        currency_code=CNY,
        arpc=arpc,
        business_date=batch.business_date_text,
        approved_minor=approved_minor,
        held_minor=held_minor,
    )
