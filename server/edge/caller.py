"""Who calls: from the client certificate to a participant and its grants.

The certificate names the participant in a URI subject alternative name, ``onecard://participants/<id>``; the
database says whether it is active and what it may ask. Grants are read again every second, so a withdrawn grant is
out of force on every worker within that time.
"""

import contextvars
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc

from server.database.pool import acquired
from server.database.statements import load
from server.errors import NotGrantedError, UnauthenticatedError

LOAD_PARTICIPANTS = load("server.edge")["load_participants"]
URI_PREFIX = b"onecard://participants/"
EVERYTHING = "*"
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Participant:
    """A bank, agency, terminal operator or operator, with what it was granted; ``*`` grants everything of a kind.

    Region grants are prefixes of region codes: "36" is the province, "3601" one city.
    """

    participant_id: str
    kind: str
    settlement_account_id: int
    rpc_classes: frozenset[str]
    regions: tuple[str, ...]
    catalogue_items: frozenset[str]
    keys: frozenset[str]

    def require_rpc_class(self, rpc_class: str) -> None:
        """
        Raises:
            NotGrantedError: the class is not granted.
        """
        if rpc_class not in self.rpc_classes and EVERYTHING not in self.rpc_classes:
            raise NotGrantedError("RPC_CLASS_NOT_GRANTED", f"the caller holds no grant of class {rpc_class}")

    def require_catalogue_item(self, catalogue_item: str) -> None:
        """
        Raises:
            NotGrantedError: the item is not granted.
        """
        if catalogue_item not in self.catalogue_items and EVERYTHING not in self.catalogue_items:
            raise NotGrantedError(
                "CATALOGUE_ITEM_NOT_GRANTED",
                "the caller holds no grant of this catalogue item",
                field="catalogue_item",
            )

    def require_key(self, name: str, *, field: str) -> None:
        """
        Raises:
            NotGrantedError: the key is not granted, whether or not it exists.
        """
        if name not in self.keys and EVERYTHING not in self.keys:
            raise NotGrantedError("KEY_NOT_GRANTED", "the caller holds no grant of this key", field=field)

    def require_operator(self) -> None:
        """
        Raises:
            NotGrantedError: the participant is none that runs the core.
        """
        if self.kind != OPERATOR:
            raise NotGrantedError("OPERATOR_ONLY", "this is for participants of kind operator only")

    def may_region(self, region: str) -> bool:
        """Whether cards issued in ``region`` (six digits) are the caller's business."""
        return region.startswith(self.regions)

    def require_region(self, region: str) -> None:
        """
        Raises:
            NotGrantedError: the region is not granted.
        """
        if not self.may_region(region):
            raise NotGrantedError("REGION_NOT_GRANTED", "the caller holds no grant of the card's region")


# The caller of the handler that runs; set by the gate alone.
current_caller: contextvars.ContextVar[Participant] = contextvars.ContextVar("current_caller")


class ParticipantRegistry:
    """The active participants; a ``PeriodicReader`` calls ``refresh``."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._participants: dict[str, Participant] = {}

    async def refresh(self) -> None:
        """
        Raises:
            DatabaseUnavailableError: the database does not answer; what was known stays.
        """
        async with acquired(self._pool) as connection:
            rows = await connection.fetch(LOAD_PARTICIPANTS)
        grants: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        participants: dict[str, tuple[str, int]] = {}
        for participant_id, kind, account_id, grant_kind, value in rows:
            participants[participant_id] = kind, account_id
            if grant_kind is not None:
                grants[participant_id][grant_kind].add(value)
        self._participants = {
            participant_id: Participant(
                participant_id=participant_id,
                kind=kind,
                settlement_account_id=account_id,
                rpc_classes=frozenset(grants[participant_id]["rpc_class"]),
                # The empty prefix begins every region.
                regions=tuple(
                    "" if region == EVERYTHING else region for region in grants[participant_id]["region"]
                ),
                catalogue_items=frozenset(grants[participant_id]["catalogue_item"]),
                keys=frozenset(grants[participant_id]["key"]),
            )
            for participant_id, (kind, account_id) in participants.items()
        }

    def renew(self, participant: Participant) -> Participant:
        """The participant with its present grants.

        Raises:
            UnauthenticatedError: it is no longer active.
        """
        current = self._participants.get(participant.participant_id)
        if current is None:
            raise UnauthenticatedError("CALLER_UNKNOWN", "the participant is no longer active")
        return current

    def identify(self, context: "grpc.aio.ServicerContext[Any, Any]") -> Participant:
        """The participant that the call's certificate names.

        Raises:
            UnauthenticatedError: no certificate, no participant in it, or none that is active.
        """
        for identity in context.peer_identities() or ():
            if identity.startswith(URI_PREFIX):
                participant = self._participants.get(identity[len(URI_PREFIX) :].decode("ascii", "replace"))
                if participant is not None:
                    return participant
        raise UnauthenticatedError("CALLER_UNKNOWN", "the certificate names no active participant")
