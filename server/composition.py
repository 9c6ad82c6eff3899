"""Which servicers a worker has, and what each is built from; every one stands behind the gate."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast

import asyncpg
import grpc
from onecard.v1 import (
    authorization_pb2_grpc,
    card_authentication_pb2_grpc,
    cards_pb2_grpc,
    cryptography_pb2_grpc,
    identity_pb2_grpc,
    keys_pb2_grpc,
    rules_pb2_grpc,
    settlement_pb2_grpc,
)

from crypto.card_code import CardCodes
from crypto.challenge import Challenges
from crypto.identification_code import IdentificationCodes
from crypto.sealing import ColumnSealer
from server.authorization.look_up import OperationLookUp
from server.authorization.servicer import AuthorizationServicer
from server.card_authentication.servicer import CardAuthenticationServicer
from server.cards.servicer import CardServicer
from server.catalogue.service import Catalogue
from server.cryptography.servicer import CryptographyServicer
from server.edge.admission import RPC_POLICIES
from server.edge.gate import Gate
from server.edge.intake import Intake
from server.engine.business_calendar import BusinessCalendar
from server.engine.group_commit import GroupCommit
from server.grpc_server import SERVICES
from server.identity.servicer import IdentityServicer
from server.key_calls import KeyCalls
from server.keys.approval import KeyApprovals
from server.keys.execution import AdministeredKeys
from server.keys.reading import KeyReading
from server.keys.service import KeyChanges
from server.keys.servicer import KeyServicer
from server.rulebook.book import RuleBook
from server.rulebook.reading import RuleReading
from server.rulebook.service import RuleChanges
from server.rulebook.servicer import RuleServicer
from server.settings import Settings
from server.settlement.servicer import SettlementServicer
from server.settlement.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What capabilities are built from, each made once.

    ``shared`` are the arguments that every servicer takes; ``today`` gives the date of the province's clock.
    """

    shared: dict[str, Any]
    sealer: ColumnSealer
    card_codes: CardCodes
    challenges: Challenges
    identification_codes: IdentificationCodes
    today: Callable[[], date]


def add_servicers(
    gate: Gate,
    settings: Settings,
    *,
    engine: GroupCommit,
    catalogue: Catalogue,
    keys: KeyCalls,
    rules: RuleBook,
    pool: "asyncpg.Pool[Any]",
) -> None:
    """Adds every capability that decides about cards, all on the same engine and keys.

    Raises:
        CryptoError: a key they need is missing or unusable.
    """
    # Generated code asks of a server no more than the gate has.
    server = cast("grpc.aio.Server", gate)
    _require_policies()
    parts = _parts(settings, engine=engine, catalogue=catalogue, keys=keys)
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(
        AuthorizationServicer(
            **parts.shared,
            sealer=parts.sealer,
            card_codes=parts.card_codes,
            today=parts.today,
            code_life_s=settings.card_code_life_s + settings.card_code_skew_s,
            book=rules,
            look_up=OperationLookUp(pool, shard_count=settings.shards),
            renew=gate.renew,
        ),
        server,
    )
    card_authentication_pb2_grpc.add_CardAuthenticationServiceServicer_to_server(
        CardAuthenticationServicer(
            **parts.shared, challenges=parts.challenges, challenge_life_s=settings.challenge_life_s
        ),
        server,
    )
    _add_identity(server, settings, parts)
    cryptography_pb2_grpc.add_CryptographyServiceServicer_to_server(
        CryptographyServicer(**parts.shared, sealer=parts.sealer, renew=gate.renew, today=parts.today), server
    )
    cards_pb2_grpc.add_CardServiceServicer_to_server(
        CardServicer(
            **parts.shared,
            sealer=parts.sealer,
            identification_codes=parts.identification_codes,
            today=parts.today,
            shards=settings.shards,
        ),
        server,
    )


def _add_identity(server: grpc.aio.Server, settings: Settings, parts: _Parts) -> None:
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(
        IdentityServicer(
            **parts.shared,
            challenges=parts.challenges,
            card_codes=parts.card_codes,
            today=parts.today,
            challenge_life_s=settings.challenge_life_s,
            card_code_life_s=settings.card_code_life_s,
            card_code_skew_s=settings.card_code_skew_s,
        ),
        server,
    )


def _parts(settings: Settings, *, engine: GroupCommit, catalogue: Catalogue, keys: KeyCalls) -> _Parts:
    key_store = keys.store
    calendar = business_calendar(settings)

    def today() -> date:
        return calendar.date_of(datetime.now(UTC))

    return _Parts(
        shared={
            "engine": engine,
            "intake": Intake(
                catalogue=catalogue,
                digest=key_store.request_digest(key_store.active("request-digest")),
                deadline_default_ms=settings.deadline_default_ms,
            ),
            "keys": keys,
            "blind_index": key_store.blind_index(key_store.active("blind-index")),
        },
        sealer=key_store.sealer(key_store.active("sealing")),
        card_codes=key_store.card_codes(key_store.active("card-code")),
        challenges=key_store.challenges(key_store.active("challenge")),
        identification_codes=key_store.identification_codes(key_store.active("identification-code")),
        today=today,
    )


def add_administration(gate: Gate, *, pool: "asyncpg.Pool[Any]", keys: AdministeredKeys) -> None:
    """Adds what two operators change together: keys, and rules."""
    server = cast("grpc.aio.Server", gate)
    keys_pb2_grpc.add_KeyServiceServicer_to_server(
        KeyServicer(
            changes=KeyChanges(pool, keys), approvals=KeyApprovals(pool, keys), reading=KeyReading(pool, keys)
        ),
        server,
    )
    rules_pb2_grpc.add_RuleServiceServicer_to_server(
        RuleServicer(changes=RuleChanges(pool), reading=RuleReading(pool)), server
    )


def add_settlement(gate: Gate, settings: Settings, *, pool: Any, subscriptions: Subscriptions) -> None:
    """Adds settlement, behind the gate."""
    settlement_pb2_grpc.add_SettlementServiceServicer_to_server(
        SettlementServicer(
            pool=pool,
            subscriptions=subscriptions,
            renew=gate.renew,
            settlement_dir=settings.settlement_dir,
        ),
        cast("grpc.aio.Server", gate),
    )


def business_calendar(settings: Settings) -> BusinessCalendar:
    """The calendar of business dates."""
    return BusinessCalendar.of(time_zone=settings.time_zone, cutoff=settings.business_day_cutoff)


def _require_policies() -> None:
    """A served RPC without grant and admission class stops the start."""
    served = {f"/{name}/{method.name}" for name, service in SERVICES.items() for method in service.methods}
    assert served == set(RPC_POLICIES), f"RPC policies differ: {served ^ set(RPC_POLICIES)}"
