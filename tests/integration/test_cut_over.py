"""The cut-off passes while operations run: the date is fixed at the decision, and everything of it has that date."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from books import broken_rules
from core_under_test import OPENING_BALANCE_MINOR as OPENING
from core_under_test import Core, purchase
from money_requests import (
    APPROVED,
    approved,
    by_stan,
    completion,
    decision,
    pre_authorization,
    refund,
    reversal,
    void,
)
from running_instance import Instance

from server.engine.business_calendar import BusinessCalendar
from server.settings import socket_dsn

SHANGHAI = ZoneInfo("Asia/Shanghai")
# An instance needs less to serve.
START_S = 20


def next_cutoff() -> datetime:
    """A full minute that the instance will see pass."""
    return (datetime.now(UTC) + timedelta(seconds=START_S + 60)).replace(second=0, microsecond=0)


@pytest.mark.timeout(180)
async def test_operations_on_both_sides_of_the_cut_off_keep_the_date_of_their_decision(
    serve: Callable[..., Instance],
) -> None:
    cutoff = next_cutoff()
    clock = f"{cutoff.astimezone(SHANGHAI):%H:%M}"
    calendar = BusinessCalendar.of(time_zone="Asia/Shanghai", cutoff=clock)
    instance = serve("--business-day-cutoff", clock, workers=2)
    facts = await asyncio.to_thread(instance.until_ready)
    core = Core(data_dir=instance.data_dir, facts=facts, dsn=socket_dsn(Path(facts["socket_dir"])))
    await core.open(cards=40)
    callers = [core.caller() for _ in range(4)]
    before, after = (
        calendar.business_date_of(cutoff - timedelta(seconds=1)),
        calendar.business_date_of(cutoff),
    )
    assert before != after

    card = core.card()
    # Limits of the day: what was used before the cut-off is not used after it.
    await core.database.execute(
        "UPDATE card_states SET day_amount_max_minor = 1000 WHERE card_id = $1", await core.card_id(card)
    )
    early, held = purchase(card, 900, terminal_id="CUT"), pre_authorization(card, 100, terminal_id="CUT")
    early_answer = await approved(callers[0], early)
    await approved(callers[0], held)
    assert early_answer.business_date == f"{before:%Y%m%d}"
    assert (await callers[0].authorize(purchase(card, 1))).response_code == "61"

    until_s = (cutoff - datetime.now(UTC)).total_seconds()
    assert until_s > 0, "the cut-off passed before the instance served"
    await asyncio.sleep(max(0.0, until_s - 1.5))
    dates: list[list[str]] = [[] for _ in callers]
    cards = [core.card() for _ in callers]

    async def spend(number: int) -> None:
        """One purchase after another until some are of the next date."""
        while dates[number].count(f"{after:%Y%m%d}") < 20:
            response = await approved(callers[number], purchase(cards[number], 1))
            dates[number].append(response.business_date)

    await asyncio.gather(*(spend(number) for number in range(len(callers))))
    for told in dates:
        assert told == sorted(told)
        assert set(told) == {f"{before:%Y%m%d}", f"{after:%Y%m%d}"}
    for decided_at, business_date in await core.database.fetch(
        "SELECT decided_at, business_date FROM operations WHERE operation_kind <> 3"
    ):
        assert business_date == calendar.business_date_of(decided_at)
    await _the_next_day(core, callers, card, early=early, early_answer=early_answer, held=held)
    assert await broken_rules(core) == {}
    await core.close()


async def _the_next_day(
    core: Core, callers: list[Any], card: Any, *, early: Any, early_answer: Any, held: Any
) -> None:
    yesterday = early_answer.business_date
    # Repeated after the cut-off, it is still the old answer, at every worker.
    again = await asyncio.gather(*(caller.authorize(early) for caller in callers))
    assert again == [early_answer] * len(callers)
    # The STAN may be used again, and names the operation of its own date.
    same_stan = purchase(card, 50, terminal_id="CUT", stan=early.stan)
    today = (await approved(callers[1], same_stan)).business_date
    assert today > yesterday
    for original, business_date, reason in (
        (early, yesterday, "ORIGINAL_NOT_ELIGIBLE"),
        (same_stan, "", "APPROVED"),
    ):
        named = by_stan(original, business_date=business_date)
        response = await callers[2].authorize(void(card, original, original=named, terminal_id="CUT"))
        assert decision(response)[1] == reason
    # What does not ask for the date follows the operation of the day before.
    named = by_stan(early, business_date=yesterday)
    back = await approved(callers[3], refund(card, early, 400, original=named, terminal_id="CUT"))
    assert back.business_date == today
    await approved(callers[0], completion(card, held, 100))
    assert (await approved(callers[1], reversal(card, early))).approved_minor == 500
    assert await core.balance_minor(card) == OPENING - 100
    # A place kept by STAN for an original of the day before is not one for today's.
    late = purchase(card, 10, terminal_id="CUT-2")
    named = by_stan(late, business_date=yesterday)
    parked = await callers[2].authorize(reversal(card, late, original=named, terminal_id="CUT-2"))
    assert decision(parked) == ("00", "REVERSAL_PARKED")
    assert decision(await callers[3].authorize(late)) == APPROVED
