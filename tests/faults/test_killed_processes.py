"""Processes that end under load, one way or another: nothing acknowledged is lost, nothing is applied twice."""

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest_asyncio
from core_under_test import CALL_S, OPENING_BALANCE_MINOR, Core, Refusal, open_directory, purchase
from integration.running_instance import Instance
from onecard.v1 import authorization_pb2
from workload import Workload

from server.settings import socket_dsn

CALLERS = 8


class Operator:
    """Starts, kills and stops one instance on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.instance = Instance(data_dir, workers=2)
        self.core: Core
        self._cores: list[Core] = []

    async def serve(self, *, cards: int = 0) -> Core:
        """The core of the instance that runs now, with a number of new cards."""
        facts = await asyncio.to_thread(self.instance.until_ready)
        self.core = Core(data_dir=self.data_dir, facts=facts, dsn=socket_dsn(Path(facts["socket_dir"])))
        self._cores.append(self.core)
        await self.core.open(cards=cards)
        return self.core

    async def restart(self) -> Core:
        self.instance = Instance(self.data_dir, "--port", str(self.core.facts["port"]), workers=2)
        return await self.serve()

    async def pid_changes(self, kind: str, before: Any) -> None:
        async with asyncio.timeout(40):
            while True:
                now = self.instance.facts().get(kind)
                whole = bool(now) and (not isinstance(now, list) or len(now) == 2)
                if whole and now != before:
                    return
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        for core in self._cores:
            await core.close()
        await asyncio.to_thread(self.instance.close)


@pytest_asyncio.fixture(scope="module")
async def operator() -> AsyncIterator[Operator]:
    root = open_directory("onecard-killed-")
    operator = Operator(root / "data")
    await operator.serve(cards=200)
    yield operator
    await operator.close()
    shutil.rmtree(root, ignore_errors=True)


def loaded(core: Core, rng: random.Random) -> Workload:
    return Workload(core, rng, [core.card() for _ in range(16)])


async def test_killed_workers_lose_and_double_nothing(operator: Operator, rng: random.Random) -> None:
    core = operator.core
    callers = [core.caller() for _ in range(CALLERS)]
    load = loaded(core, rng)
    running = asyncio.create_task(load.run(callers, operations=60))
    for _ in range(3):
        await asyncio.sleep(rng.uniform(0.05, 0.3))
        pids = operator.instance.facts()["worker_pids"]
        os.kill(rng.choice(pids), signal.SIGKILL)
        await operator.pid_changes("worker_pids", pids)
    await running
    assert load.failures
    await load.check(callers[0])


async def test_killed_postgres_loses_and_doubles_nothing(operator: Operator, rng: random.Random) -> None:
    core = operator.core
    callers = [core.caller() for _ in range(CALLERS)]
    load = loaded(core, rng)
    workers = operator.instance.facts()["worker_pids"]
    running = asyncio.create_task(load.run(callers, operations=60))
    await asyncio.sleep(rng.uniform(0.05, 0.3))
    pid = operator.instance.facts()["postgres_pid"]
    os.kill(pid, signal.SIGKILL)
    await operator.pid_changes("postgres_pid", pid)
    await running
    assert load.failures
    # The workers live on; the supervisor started PostgreSQL under them.
    assert operator.instance.facts()["worker_pids"] == workers
    await _database_back(core)
    await load.check(callers[0])


async def _database_back(core: Core) -> None:
    """Connections of the tests' own pool died with the server."""
    async with asyncio.timeout(20):
        while True:
            try:
                await core.database.expire_connections()
                await core.database.fetchval("SELECT 1")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(0.1)
            else:
                return


async def test_sigterm_under_load_loses_nothing_acknowledged(operator: Operator, rng: random.Random) -> None:
    core = operator.core
    callers = [core.caller() for _ in range(CALLERS)]
    load = loaded(core, rng)
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(callers, operations=100_000, stop=stop))
    await asyncio.sleep(rng.uniform(0.3, 0.6))
    operator.instance.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(operator.instance.exit_code) == 0
    stop.set()
    await running
    assert set(load.failures) <= {"UNAVAILABLE", "CANCELLED"}
    assert "incident" not in operator.instance.errors()
    acknowledged = sum(len(answers) for answers in load.answers.values())
    assert acknowledged > 20
    load.core = await operator.restart()
    await load.check(load.core.caller())


async def test_open_stream_is_told_of_draining_and_keeps_what_it_was_answered(operator: Operator) -> None:
    core = operator.core
    await core.seed(1, first=9_000)
    core.use_cards(first=9_000, count=1)
    card, caller = core.card(), core.caller()
    call = caller.authorization.AuthorizeStream(timeout=CALL_S)
    answered: list[tuple[Any, Any]] = []

    async with asyncio.timeout(10):
        while True:
            request = purchase(card, 1)
            try:
                await call.write(authorization_pb2.AuthorizeStreamRequest(operations=[request]))
                answer = await call.read()
            except grpc.aio.AioRpcError as error:
                refusal = Refusal.of(error)
                break
            assert answer is not grpc.aio.EOF
            answered.append((request, answer.results[0].response))
            if len(answered) == 3:
                operator.instance.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.01)
    assert len(answered) >= 3
    assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "DRAINING")
    assert refusal.retry_delay_ms > 0
    assert await asyncio.to_thread(operator.instance.exit_code) == 0
    core = await operator.restart()
    assert await core.stored(request.request_id) == 0
    caller = core.caller()
    for told, response in answered:
        assert response.response_code == "00"
        assert await caller.authorize(told) == response
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - len(answered)
    assert (await caller.authorize(request)).response_code == "00"


async def test_power_cut_under_load_loses_nothing_acknowledged(
    operator: Operator, rng: random.Random
) -> None:
    core = operator.core
    callers = [core.caller() for _ in range(CALLERS)]
    await core.seed(16, first=10_000)
    core.use_cards(first=10_000, count=16)
    load = loaded(core, rng)
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(callers, operations=100_000, stop=stop))
    await asyncio.sleep(rng.uniform(0.3, 0.6))
    os.kill(operator.instance.facts()["postgres_pid"], signal.SIGKILL)
    operator.instance.process.kill()
    await asyncio.to_thread(operator.instance.exit_code)
    stop.set()
    await running
    load.core = await operator.restart()
    await load.check(load.core.caller())
