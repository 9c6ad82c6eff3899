"""The core that most tests share: one instance of two workers on its own PostgreSQL, for the whole session."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import known_secrets
import pytest
import pytest_asyncio
from core_under_test import (
    EVERYTHING,
    GRANTS_IN_FORCE_S,
    Caller,
    Core,
    distant_cutoff,
    open_directory,
    without,
)
from integration.running_instance import Instance

from server.edge.admission import RPC_CLASSES
from server.settings import socket_dsn

CARDS = 3_000
CLASSES = sorted(RPC_CLASSES)

_printed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keeps what a test and the code under it printed or logged in this process."""
    _printed.extend(text for text in (report.capstdout, report.capstderr, report.caplog) if text)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session when a secret of any instance was printed."""
    if leaks := known_secrets.printed_leaks(_printed):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"secrets were printed by the tests: {leaks}", red=True)


@pytest.fixture(scope="session")
def core_instance() -> Iterator[Instance]:
    root = open_directory("onecard-core-")
    instance = Instance(root / "data", "--business-day-cutoff", distant_cutoff(), workers=2)
    yield instance
    instance.close()
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="session")
async def core(core_instance: Instance) -> AsyncIterator[Core]:
    """Cards, and participants with every grant, with one class missing, with one city or one item only."""
    facts = await asyncio.to_thread(core_instance.until_ready)
    core = Core(data_dir=core_instance.data_dir, facts=facts, dsn=socket_dsn(Path(facts["socket_dir"])))
    await core.open(cards=CARDS)
    await core.add_participant("bank-02", EVERYTHING | {"region": ["*"]})
    await core.add_participant("suspended-01", EVERYTHING)
    await core.database.execute(
        "UPDATE participants SET state = 'suspended' WHERE participant_id = 'suspended-01'"
    )
    await core.add_participant("no-grants", {})
    await core.add_participant("nanchang-01", EVERYTHING | {"region": ["3601"]})
    await core.add_participant("counter-01", EVERYTHING | {"catalogue_item": ["identity.counter"]})
    for rpc_class in CLASSES:
        others = [other for other in CLASSES if other != rpc_class]
        await core.add_participant(without(rpc_class), EVERYTHING | {"rpc_class": others})
    await core.database.execute(
        "INSERT INTO catalogue_items (catalogue_item, version, name, legal_basis, valid_from, valid_until) VALUES"
        " ('identity.counter', 2, 'next', 'test', now() + interval '1 day', NULL),"
        " ('card.ended', 1, 'ended', 'test', now() - interval '2 days', now() - interval '1 day')"
    )
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    yield core
    await core.close()


@pytest.fixture(scope="session")
def bank(core: Core) -> Caller:
    """A participant that may do everything."""
    return core.caller()


@pytest.fixture(scope="session")
def other_bank(core: Core) -> Caller:
    """Another participant that may do everything."""
    return core.caller("bank-02")
