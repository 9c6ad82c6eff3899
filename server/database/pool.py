"""Connections to PostgreSQL: a pool for everything off the hot path, single connections for its lanes.

Both fail at once with :class:`DatabaseUnavailableError` while the database is gone, so that a caller gets
UNAVAILABLE instead of a queue; neither ever retries a statement by itself, because only the caller knows
whether it may run twice. No error text made here holds a DSN.
"""

import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from server.database.array_codecs import register_array_codecs
from server.errors import ConfigurationError, DatabaseUnavailableError
from server.settings import Settings, masked_dsn

CONNECT_TIMEOUT_S = 2.0
ACQUIRE_TIMEOUT_S = 5.0
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 2.0
IDLE_IN_TRANSACTION_MS = 10_000
# The server ends a statement at its own timeout; an answer that is this late does not come: the network is gone
# without a word, and only a clock of ours can tell.
ANSWER_DELAY_MAX_S = 1.0
STATEMENTS_CACHED = 512

# Errors of the server that say "not now" rather than "not this": shutdown, start-up, no free slot.
_UNAVAILABLE_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
)
_REFUSED_ERRORS = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)

# One generic plan per statement. Without statistics on a fresh partition the planner takes any index or a
# full scan; the hot statements are written for their index, so the other ways are closed to it.
HOT_PATH_SETTINGS = {
    # What a batch reads after its locks must be what their last holders committed.
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    # A card that somebody holds must not hold up the batch it is in: see Lane.
    "lock_timeout": "300",
    "jit": "off",
}


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Turns the loss of the database, however asyncpg shows it, into :class:`DatabaseUnavailableError`.

    Errors of a statement (constraint, serialisation, cancelled by timeout) pass unchanged. Only database work
    belongs inside: any other OSError would be taken for the loss of the database.
    """
    try:
        yield
    except _UNAVAILABLE_ERRORS as error:
        raise DatabaseUnavailableError from error
    except asyncpg.InterfaceError as error:
        # ValueErrors are wrong arguments: a mistake of ours, not of the connection.
        if isinstance(error, ValueError):
            raise
        raise DatabaseUnavailableError from error
    except asyncpg.InternalClientError as error:
        raise DatabaseUnavailableError from error
    except OSError as error:
        raise DatabaseUnavailableError from error


async def connect(dsn: str, *, application_name: str = "onecard", **options: Any) -> asyncpg.Connection:
    """One connection for start-up work, long work and command-line tools, without the timeouts that calls have.

    Raises:
        ConfigurationError: the database cannot be reached or refuses us; one line without the password.
    """
    try:
        # Also where the role or the database has timeouts of its own.
        unlimited = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
        return await asyncpg.connect(
            dsn, timeout=10, server_settings={"application_name": application_name} | unlimited, **options
        )
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # asyncpg's own texts may quote parts of the address: the class and SQLSTATE say enough.
        code = getattr(error, "sqlstate", None) or getattr(error, "strerror", None) or ""
        reason = f"{type(error).__name__} {code}".strip()
        raise ConfigurationError(f"cannot connect to the database {masked_dsn(dsn)}: {reason}") from None


async def open_pool(
    settings: Settings,
    dsn: str,
    *,
    application_name: str,
    connections_max: int | None = None,
    session_settings: Mapping[str, str] | None = None,
) -> "asyncpg.Pool[Any]":
    """The pool for statements off the hot path; connections open on demand, so a missing database is no error
    yet.

    Args:
        settings: bounds and timeouts.
        dsn: the address, usually ``settings.database_dsn``.
        application_name: what ``pg_stat_activity`` shows.
        connections_max: other than ``settings.pool_connections_max``.
        session_settings: settings of PostgreSQL for its sessions, beside those that all have.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=connections_max or settings.pool_connections_max,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=_command_timeout_s(settings),
        statement_cache_size=STATEMENTS_CACHED,
        max_cached_statement_lifetime=0,
        server_settings=_session_settings(settings, application_name) | dict(session_settings or {}),
    )


@contextlib.asynccontextmanager
async def acquired(pool: "asyncpg.Pool[Any]") -> AsyncIterator[Any]:
    """A pooled connection whose loss shows as :class:`DatabaseUnavailableError`."""
    with database_errors():
        # Also the time that giving the connection back may take, when its last statement was not answered.
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            yield connection


@contextlib.asynccontextmanager
async def own_transaction(pool: "asyncpg.Pool[Any]") -> AsyncIterator[Any]:
    """A connection in a transaction of its own.

    Raises:
        DatabaseUnavailableError: the database does not answer, or somebody holds a row for too long.
    """
    try:
        async with acquired(pool) as connection, connection.transaction():
            yield connection
    except asyncpg.QueryCanceledError as error:
        raise DatabaseUnavailableError from error


class HotPathConnection:
    """One lane's connection: opened when first asked for, and again after a loss, with growing pauses.

    Its arrays go through ``array_codecs``. Used by one task at a time. While a pause lasts, ``get`` refuses at once
    instead of waiting.
    """

    def __init__(self, settings: Settings, dsn: str, *, application_name: str) -> None:
        self._dsn = dsn
        self._settings = _session_settings(settings, application_name) | HOT_PATH_SETTINGS
        self._command_timeout_s = _command_timeout_s(settings)
        self._connection: asyncpg.Connection | None = None
        self._pause_s = 0.0
        self._next_attempt_s = 0.0

    async def get(self) -> asyncpg.Connection:
        """The open connection.

        Raises:
            DatabaseUnavailableError: the database does not answer, or did not a moment ago.
        """
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if time.monotonic() < self._next_attempt_s:
            raise DatabaseUnavailableError
        try:
            with database_errors():
                connection = await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=self._command_timeout_s,
                    statement_cache_size=STATEMENTS_CACHED,
                    max_cached_statement_lifetime=0,
                    server_settings=self._settings,
                    target_session_attrs=SessionAttribute.read_write,
                )
                try:
                    await register_array_codecs(connection)
                except BaseException:
                    connection.terminate()
                    raise
        except (DatabaseUnavailableError, *_REFUSED_ERRORS):
            self._pause_s = min(BACKOFF_MAX_S, max(BACKOFF_MIN_S, self._pause_s * 2))
            # Jitter: the lanes of all workers lose the database in the same instant.
            self._next_attempt_s = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
            raise DatabaseUnavailableError from None
        self._pause_s = 0.0
        self._connection = connection
        return connection

    async def discard(self) -> None:
        """Drops the connection, for a caller that no longer knows the state of its transaction."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Ends the session in order."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=CONNECT_TIMEOUT_S)


def _command_timeout_s(settings: Settings) -> float:
    return settings.statement_timeout_ms / 1000 + ANSWER_DELAY_MAX_S


def _session_settings(settings: Settings, application_name: str) -> dict[str, str]:
    return {
        "application_name": application_name,
        "statement_timeout": str(settings.statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
        "timezone": "UTC",
        "jit": "off",
    }
