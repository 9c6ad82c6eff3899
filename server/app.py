"""The composition of one worker: what is built from what, and in which order it starts and stops.

Nothing here decides anything. A worker serves from the moment ``ready`` is called until SIGTERM; then it tells health,
refuses new calls, lets those in flight end, finishes what the engine has queued, and returns.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any, cast

import asyncpg
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from onecard.v1 import (
    authorization_pb2,
    authorization_pb2_grpc,
    card_authentication_pb2,
    card_authentication_pb2_grpc,
    cards_pb2,
    cards_pb2_grpc,
    cryptography_pb2,
    cryptography_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
    settlement_pb2,
    settlement_pb2_grpc,
)

from crypto.errors import CryptoError, SelfTestError
from crypto.key_store.listed_store import ListedKeyStore
from crypto.self_test import run_self_test
from server import telemetry
from server.authorization.look_up import OperationLookUp
from server.authorization.servicer import AuthorizationServicer
from server.card_authentication.servicer import CardAuthenticationServicer
from server.cards.directory import CardDirectory
from server.cards.servicer import CardServicer
from server.catalogue.service import Catalogue
from server.cryptography.servicer import CryptographyServicer
from server.database.pool import HotPathConnection, open_pool
from server.database.reader import PeriodicReader
from server.edge.access_line import AccessLines
from server.edge.admission import RPC_POLICIES, Admission
from server.edge.caller import ParticipantRegistry
from server.edge.gate import Gate
from server.edge.intake import Intake
from server.edge.tls import server_credentials
from server.engine.business_calendar import BusinessCalendar
from server.engine.group_commit import GroupCommit
from server.engine.operation import Operation, OperationKind
from server.engine.transaction import LaneSettings
from server.errors import ConfigurationError, OneCardError
from server.identity.servicer import IdentityServicer
from server.key_calls import KeyCalls
from server.key_stores import open_store
from server.keys.approval import KeyApprovals
from server.keys.execution import AdministeredKeys
from server.keys.reading import KeyReading
from server.keys.service import KeyChanges
from server.keys.servicer import KeyServicer
from server.rulebook.book import RuleBook, RuleReader
from server.rulebook.reading import RuleReading
from server.rulebook.service import RuleChanges
from server.rulebook.servicer import RuleServicer
from server.settings import SETTLEMENT_CONNECTIONS, Settings
from server.settlement.servicer import SettlementServicer
from server.settlement.subscriptions import INDEXED_READS, Subscriptions

log = logging.getLogger(__name__)

SERVICES = {
    module.DESCRIPTOR.services_by_name[name].full_name: module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (authorization_pb2, "AuthorizationService"),
        (card_authentication_pb2, "CardAuthenticationService"),
        (cards_pb2, "CardService"),
        (cryptography_pb2, "CryptographyService"),
        (identity_pb2, "IdentityService"),
        (keys_pb2, "KeyService"),
        (rules_pb2, "RuleService"),
        (settlement_pb2, "SettlementService"),
    )
}
# Between telling health and refusing calls: balancers look at health once a second or more rarely.
DRAIN_PAUSE_S = 0.2
QUEUE_GAUGE_PERIOD_S = 1.0
PING_INTERVAL_MIN_MS = 20_000


async def serve(settings: Settings, *, worker_index: int, ready: Callable[[], None]) -> None:
    """Runs one worker until SIGTERM.

    Raises:
        ConfigurationError: keys, certificates or the database do not fit.
    """
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    key_store = open_key_store(settings)
    pool = await open_pool(settings, settings.database_dsn, application_name=f"onecard worker {worker_index}")
    settlement_pool = await open_settlement_pool(settings, worker_index=worker_index)
    subscriptions = Subscriptions(settlement_pool)
    registry, catalogue = ParticipantRegistry(pool), Catalogue(pool)
    readers = [
        PeriodicReader("participants", registry.refresh),
        PeriodicReader("catalogue", catalogue.refresh),
    ]
    lines = AccessLines(enabled=settings.log_level in {"debug", "info"})
    rules = RuleBook()
    readers.append(PeriodicReader("rules", RuleReader(pool, rules).refresh))
    engine = build_engine(
        settings, worker_index=worker_index, keys_may_block=key_store.is_blocking, rules=rules
    )
    server, health_servicer = build_server(settings)
    keys = KeyCalls(key_store)
    administered_keys = AdministeredKeys(key_store, keys)
    readers.append(PeriodicReader("keys", administered_keys.refresh))
    gate = Gate(server, registry, Admission(in_flight_max=settings.in_flight_max), lines)
    try:
        add_servicers(
            gate,
            settings,
            engine=engine,
            registry=registry,
            catalogue=catalogue,
            keys=keys,
            rules=rules,
            pool=pool,
        )
    except CryptoError as error:
        raise ConfigurationError(f"key store: {error}") from None
    keys_pb2_grpc.add_KeyServiceServicer_to_server(
        KeyServicer(
            changes=KeyChanges(pool, administered_keys),
            approvals=KeyApprovals(pool, administered_keys),
            reading=KeyReading(pool, administered_keys),
        ),
        cast("grpc.aio.Server", gate),
    )
    rules_pb2_grpc.add_RuleServiceServicer_to_server(
        RuleServicer(changes=RuleChanges(pool), reading=RuleReading(pool)), cast("grpc.aio.Server", gate)
    )
    add_settlement(gate, settings, pool=pool, subscriptions=subscriptions)

    for reader in readers:
        await reader.start()
    lines.start()
    engine.start()
    gauge = asyncio.create_task(_watch_queue(engine), name="queue-gauge")
    await server.start()
    await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    ready()
    await stopping.wait()

    await health_servicer.enter_graceful_shutdown()
    await asyncio.sleep(DRAIN_PAUSE_S)
    gate.draining = True
    # Calls that wait to be accepted when the server stops would end as CANCELLED, which no client may retry.
    await asyncio.sleep(DRAIN_PAUSE_S)
    await server.stop(settings.drain_ms / 1000)
    await engine.drain()
    gauge.cancel()
    for reader in readers:
        await reader.stop()
    await lines.stop()
    keys.close()
    await subscriptions.stop()
    await settlement_pool.close()
    await pool.close()


def open_key_store(settings: Settings) -> ListedKeyStore:
    """The key store, after the known answers came out right.

    Raises:
        ConfigurationError: the self test or the store fails.
    """
    try:
        run_self_test()
    except SelfTestError as error:
        raise ConfigurationError(f"key store: {error}") from None
    return open_store(settings)


def build_engine(
    settings: Settings, *, worker_index: int, keys_may_block: bool, rules: RuleBook
) -> GroupCommit:
    """The worker's engine with its lanes."""
    return GroupCommit(
        lanes=settings.lanes,
        batch_max=settings.batch_max,
        queue_max=settings.queue_max,
        lane_settings=LaneSettings(
            open_connection=lambda: HotPathConnection(
                settings, settings.database_dsn, application_name=f"onecard lane {worker_index}"
            ),
            find_cards=CardDirectory(cache_max=settings.card_cache_max).find,
            calendar=business_calendar(settings),
            request_log_hours=settings.request_log_hours_min,
            shard_count=settings.shards,
            rules=rules,
            keys_may_block=keys_may_block,
            observe=_observe,
        ),
    )


def build_server(settings: Settings) -> tuple[grpc.aio.Server, HealthServicer]:
    """The gRPC server on the shared port, with health and reflection."""
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_send_message_length", settings.message_bytes_max),
        ("grpc.max_connection_age_ms", settings.connection_age_max_s * 1000),
        ("grpc.max_connection_age_grace_ms", settings.drain_ms),
        # Clients may ask whether an idle connection still lives.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    server = grpc.aio.server(options=options)
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None or key is None or client_ca is None:
        raise ConfigurationError("tls_certificate, tls_key and tls_client_ca are required")
    server.add_secure_port(
        f"{settings.host}:{settings.port}", server_credentials(certificate, key, client_ca)
    )
    health_servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)  # type: ignore[no-untyped-call]
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)  # type: ignore[no-untyped-call]
    return server, health_servicer


def add_servicers(
    gate: Gate,
    settings: Settings,
    *,
    engine: GroupCommit,
    registry: ParticipantRegistry,
    catalogue: Catalogue,
    keys: KeyCalls,
    rules: RuleBook,
    pool: "asyncpg.Pool[Any]",
) -> None:
    """Builds every capability on the same engine and keys, each behind the gate."""
    # Generated code asks of a server no more than the gate has.
    server = cast("grpc.aio.Server", gate)
    _require_policies()
    key_store = keys.store
    blind_index = key_store.blind_index(key_store.active("blind-index"))
    sealer = key_store.sealer(key_store.active("sealing"))
    card_codes = key_store.card_codes(key_store.active("card-code"))
    challenges = key_store.challenges(key_store.active("challenge"))
    intake = Intake(
        catalogue=catalogue,
        digest=key_store.request_digest(key_store.active("request-digest")),
        deadline_default_ms=settings.deadline_default_ms,
    )
    calendar = business_calendar(settings)

    def today() -> date:
        return calendar.date_of(datetime.now(UTC))

    shared: dict[str, Any] = {
        "engine": engine,
        "intake": intake,
        "keys": keys,
        "blind_index": blind_index,
    }
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(
        AuthorizationServicer(
            **shared,
            sealer=sealer,
            card_codes=card_codes,
            today=today,
            code_life_s=settings.card_code_life_s + settings.card_code_skew_s,
            book=rules,
            look_up=OperationLookUp(pool, shard_count=settings.shards),
            renew=gate.renew,
        ),
        server,
    )
    card_authentication_pb2_grpc.add_CardAuthenticationServiceServicer_to_server(
        CardAuthenticationServicer(
            **shared, challenges=challenges, challenge_life_s=settings.challenge_life_s
        ),
        server,
    )
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(
        IdentityServicer(
            **shared,
            challenges=challenges,
            card_codes=card_codes,
            today=today,
            challenge_life_s=settings.challenge_life_s,
            card_code_life_s=settings.card_code_life_s,
            card_code_skew_s=settings.card_code_skew_s,
        ),
        server,
    )
    cryptography_pb2_grpc.add_CryptographyServiceServicer_to_server(
        CryptographyServicer(**shared, sealer=sealer, renew=gate.renew, today=today), server
    )
    cards_pb2_grpc.add_CardServiceServicer_to_server(
        CardServicer(
            **shared,
            sealer=sealer,
            identification_codes=key_store.identification_codes(key_store.active("identification-code")),
            today=today,
            shards=settings.shards,
        ),
        server,
    )


async def open_settlement_pool(settings: Settings, *, worker_index: int) -> Any:
    """Connections of their own: whoever catches up with events must not take those that calls need."""
    return await open_pool(
        settings,
        settings.database_dsn,
        application_name=f"onecard settlement {worker_index}",
        connections_max=SETTLEMENT_CONNECTIONS,
        session_settings=INDEXED_READS,
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


def _observe(operations: Sequence[Operation], results: Sequence[Any], seconds: float) -> None:
    """Counts a batch: its size, its time, and its outcomes by operation and response code."""
    telemetry.BATCH_OPERATIONS.observe(len(operations))
    telemetry.BATCH_SECONDS.observe(seconds)
    counts: dict[tuple[OperationKind, str], int] = {}
    for operation, result in zip(operations, results, strict=True):
        if not isinstance(result, OneCardError):
            key = operation.kind, getattr(result, "response_code", "-")
            counts[key] = counts.get(key, 0) + 1
    for (kind, response_code), count in counts.items():
        telemetry.decision_counter(kind.name.lower(), response_code).inc(count)


async def _watch_queue(engine: GroupCommit) -> None:
    while True:
        telemetry.QUEUE_OPERATIONS.set(engine.waiting)
        await asyncio.sleep(QUEUE_GAUGE_PERIOD_S)
