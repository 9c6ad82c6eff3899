"""Runs the day: exit code 0 only when every answer was as expected."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator

from onecard.v1 import authorization_pb2 as pb
from rich.console import Console

from clients.bank import Bank
from clients.chip_card import IssuerNotGenuineError
from clients.demo import (
    coded_terminal,
    event_feed,
    impatient_tills,
    key_rotation,
    killed_worker,
    late_advice,
    province_rules,
)
from clients.demo.callers import Callers, connected
from clients.demo.city_day import LEFT_MINOR, CityDay
from clients.demo.core_process import CoreError, DemoCore, demo_core
from clients.demo.money_day import MoneyDay
from clients.demo.pin_day import PinDay
from clients.demo.pin_holder import PinHolder
from clients.demo.residents import Bureau, Resident, issue, numbers_of
from clients.demo.scorecard import Scorecard
from clients.errors import OneCardCallError
from clients.operator import Operator
from clients.terminal import Terminal
from server.cards.identifiers import CITIES

# Three live the day of the card, one its money, three shop.
RESIDENTS_PER_CITY = 7
FRAMES, OPERATIONS_PER_FRAME = 8, 128
WORKERS = 2
PACKAGE, SERVICES = "onecard.v1.", 8
SERVING_S_MAX = 20.0
DAY_S_MAX = 120.0
WIDTH = 152


async def day(console: Console) -> bool:
    """Plays everything on a core of its own; True when every answer was as expected.

    Raises:
        CoreError: the core did not start, or a command of it failed.
    """
    started_s = time.monotonic()
    scorecard = Scorecard()
    async with demo_core(workers=WORKERS) as core:
        console.print(f"onecard serves on {core.address} with {WORKERS} workers, data in {core.data_dir}")
        await core.add_participants()
        try:
            async with asyncio.timeout(DAY_S_MAX), connected(core) as callers:
                await _play(scorecard, core, callers)
        except (OneCardCallError, IssuerNotGenuineError, TimeoutError) as error:
            scorecard.broken_off(error)
        scorecard.show(console, CITIES)
        reconciled = await _reconcile(core, console)
    seconds = time.monotonic() - started_s
    if scorecard.mismatches:
        console.print(f"[red]{len(scorecard.mismatches)} answers were not as expected[/] ({seconds:.0f} s)")
    if not reconciled:
        console.print("[red]the books do not agree[/]")
    if scorecard.mismatches or not reconciled:
        return False
    console.print(f"[green]all {scorecard.compared:,} answers were as expected[/] ({seconds:.0f} s)")
    return True


async def _play(scorecard: Scorecard, core: DemoCore, callers: Callers) -> None:
    operator = Operator(callers.terminals.channel)
    await operator.wait_until_serving(timeout_s=SERVING_S_MAX)
    own = [name.removeprefix(PACKAGE) for name in await operator.services() if name.startswith(PACKAGE)]
    scorecard.event("reflection", ", ".join(own), expected=SERVICES, got=len(own))
    bank, bureau = Bank(callers.bank), Bureau(core.data_dir)
    cities: list[list[Resident]] = []
    for region in CITIES:
        cities.append(await issue(bank, bureau, numbers_of(region, count=RESIDENTS_PER_CITY)))
    await province_rules.register_merchants(scorecard, callers)
    await asyncio.gather(
        *(_play_city(scorecard, callers, bureau, cities, number) for number in range(len(cities)))
    )
    shoppers = [resident for city in cities for resident in city[4:]]
    await _stream_frames(scorecard, callers, shoppers)
    await late_advice.play(scorecard, core, terminals=callers.terminals, resident=cities[0][3])
    await coded_terminal.play(scorecard, callers, bureau, cities[0][3], pad_number=2 * len(cities))
    await impatient_tills.play(scorecard, terminals=callers.terminals, residents=shoppers)
    await key_rotation.play(scorecard, callers, shoppers[0])
    rrns = await killed_worker.play(scorecard, core, terminals=callers.terminals, residents=shoppers)
    await event_feed.play(scorecard, terminals=callers.terminals, rrns=rrns)


async def _play_city(
    scorecard: Scorecard, callers: Callers, bureau: Bureau, cities: list[list[Resident]], number: int
) -> None:
    """The day of a city, then its money; the next city's first shopper gets a transfer."""
    holder, poor, loser, guest, *_ = cities[number]
    pins = PinDay(scorecard, callers.bank, bureau, pad=bureau.pin_pad(number), holder=holder)
    bank = Bank(callers.bank, counter_id=f"COUNTER{number}")
    await CityDay(scorecard, callers, bank, holder=holder, poor=poor, loser=loser, pins=pins).play()
    # The terminal's own PIN pad, not the bank counter's.
    neighbour = cities[(number + 1) % len(cities)][4]
    await MoneyDay(
        scorecard,
        callers,
        guest=PinHolder(bank, bureau, pad=bureau.pin_pad(len(cities) + number), resident=guest),
        driver=poor,
        driver_minor=LEFT_MINOR,
        neighbour=neighbour,
    ).play()


async def _stream_frames(scorecard: Scorecard, callers: Callers, residents: list[Resident]) -> None:
    """Frames of purchases over one stream, several on their way at once."""
    terminal = Terminal(callers.terminals, terminal_id="FRAMES01")
    total = FRAMES * OPERATIONS_PER_FRAME

    async def frames() -> AsyncIterator[list[pb.AuthorizeRequest]]:
        turn = 0
        for _ in range(FRAMES):
            operations = []
            for _ in range(OPERATIONS_PER_FRAME):
                resident = residents[turn % len(residents)]
                operations.append(terminal.prepare_purchase(resident.chip, amount_minor=10))
                turn += 1
            yield operations

    codes: dict[str, int] = {}
    started_s = time.monotonic()
    try:
        async for outcomes in Bank(callers.terminals).authorize_frames(frames()):
            for outcome in outcomes:
                code = str(outcome) if isinstance(outcome, OneCardCallError) else outcome.response_code
                codes[code] = codes.get(code, 0) + 1
    except OneCardCallError as error:
        codes[str(error)] = 1
    rate = total / (time.monotonic() - started_s)
    scorecard.event(
        "stream",
        f"{total:,} purchases in frames of {OPERATIONS_PER_FRAME} over one stream, {rate:,.0f}/s with their chips",
        expected={"00": total},
        got=codes,
    )


async def _reconcile(core: DemoCore, console: Console) -> bool:
    """Asks the core's books whether they agree, and shows what they say."""
    try:
        console.out(await core.command("reconcile"), highlight=False)
    except CoreError as error:
        console.out(str(error), highlight=False)
        return False
    return True


async def _run() -> int:
    console = Console(width=WIDTH, highlight=False)
    task = asyncio.current_task()
    assert task is not None, "runs inside a task"
    # Both end the day as an exception does, so that the core is stopped and its directory removed.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return 0 if await day(console) else 1
    except CoreError as error:
        console.out(str(error), highlight=False)
    except asyncio.CancelledError:
        console.print("stopped")
    return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_run()))
