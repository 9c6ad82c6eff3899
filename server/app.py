"""One worker: what is built, and in which order it starts and stops; ``composition`` has its servicers.

Nothing here decides anything. A worker serves from the moment ``ready`` is called until SIGTERM; then it tells health,
refuses new calls, lets those in flight end, finishes what the engine has queued, and returns.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Any

from grpc_health.v1 import health_pb2

from crypto.errors import CryptoError, SelfTestError
from crypto.key_store.listed_store import ListedKeyStore
from crypto.self_test import run_self_test
from server import telemetry
from server.cards.directory import CardDirectory
from server.catalogue.service import Catalogue
from server.composition import (
    add_administration,
    add_servicers,
    add_settlement,
    business_calendar,
)
from server.database.pool import HotPathConnection, open_pool
from server.database.reader import PeriodicReader
from server.edge.access_line import AccessLines
from server.edge.admission import Admission
from server.edge.caller import ParticipantRegistry
from server.edge.gate import Gate
from server.engine.group_commit import GroupCommit
from server.engine.operation import Operation, OperationKind
from server.engine.transaction import LaneSettings
from server.errors import ConfigurationError, OneCardError
from server.grpc_server import build_server
from server.key_calls import KeyCalls
from server.key_stores import open_store
from server.keys.execution import AdministeredKeys
from server.rulebook.book import RuleBook, RuleReader
from server.settings import SETTLEMENT_CONNECTIONS, Settings
from server.settlement.subscriptions import INDEXED_READS, Subscriptions

log = logging.getLogger(__name__)

# Between telling health and refusing calls: balancers look at health once a second or more rarely.
DRAIN_PAUSE_S = 0.2
QUEUE_GAUGE_PERIOD_S = 1.0


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
            catalogue=catalogue,
            keys=keys,
            rules=rules,
            pool=pool,
        )
    except CryptoError as error:
        raise ConfigurationError(f"key store: {error}") from None
    add_administration(gate, pool=pool, keys=administered_keys)
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


async def open_settlement_pool(settings: Settings, *, worker_index: int) -> Any:
    """Connections of their own: whoever catches up with events must not take those that calls need."""
    return await open_pool(
        settings,
        settings.database_dsn,
        application_name=f"onecard settlement {worker_index}",
        connections_max=SETTLEMENT_CONNECTIONS,
        session_settings=INDEXED_READS,
    )


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
