"""The way to the core, and what it has acknowledged: every answer with what the core must have stored for it."""

from dataclasses import dataclass
from typing import Final, Protocol

from clients.channel import Request, Response, UnaryRpc
from server.engine.operation import OperationKind

# Reason of rows that are done or do not exist at all.
DONE: Final = 1


class Calls(Protocol):
    """The way to the core."""

    def send(self, rpc: UnaryRpc[Request, Response], request: Request) -> Response:
        """One call, once.

        Raises:
            OneCardCallError: no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What the core must have stored for an answer.

    Args:
        kind: of the operation.
        request_id: under which it is stored; empty for reads, which leave an access entry only.
        reason: as answered.
        amount_minor: of money operations, in 分.
    """

    kind: OperationKind
    request_id: str = ""
    reason: int = DONE
    amount_minor: int | None = None
