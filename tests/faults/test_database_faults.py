"""The database out of reach: connections cut around a commit, a server that is gone, a network that says nothing."""

import asyncio
import random
import time

import grpc
import pytest
from core_under_test import (
    CALL_S,
    card_issue,
    code_issue,
    loss_report,
    name_and_number,
    purchase,
    refusal_of,
    status_query,
    verification,
)
from pin_pad import WRONG, PinPad, pin_issue
from proxied_core import ProxiedCore
from tcp_proxy import Cut
from workload import Workload

AUTHORIZE = "AuthorizationService/Authorize"


async def answered(proxied: ProxiedCore, send: object) -> object:
    """The answer of a call that is repeated until the database is back."""
    for _ in range(100):
        try:
            return await send()  # type: ignore[operator]
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.1)
    raise AssertionError("the core did not recover")


@pytest.mark.parametrize("cut", list(Cut), ids=lambda cut: cut.name)
async def test_cut_around_a_commit_is_hidden_from_the_caller_and_doubles_nothing(
    proxied: ProxiedCore, cut: Cut
) -> None:
    core, proxy = proxied.core, proxied.proxy
    caller = core.caller()
    for _ in range(8):
        card = core.card()
        request = purchase(card, 1_000)
        proxy.cuts = [cut]
        first = await answered(proxied, lambda request=request: caller.raw(AUTHORIZE, request))
        assert proxy.cuts == []
        assert await caller.raw(AUTHORIZE, request) == first
        assert await core.stored(request.request_id) == 1
        assert await core.balance_minor(card) == 999_000


@pytest.mark.parametrize("cut", list(Cut), ids=lambda cut: cut.name)
async def test_cut_around_the_commit_of_any_other_request_doubles_nothing(
    proxied: ProxiedCore, cut: Cut
) -> None:
    core, proxy = proxied.core, proxied.proxy
    caller = core.caller()
    card, new_card = core.card(), core.unissued_card()
    code = await caller.card_code(card)
    answer = card.answer(await caller.challenge())
    for path, request in (
        ("IdentityService/VerifyIdentity", verification(name_and_number=name_and_number(card))),
        ("IdentityService/VerifyIdentity", verification(card_code=code)),
        ("IdentityService/VerifyIdentity", verification(chip=answer)),
        ("IdentityService/IssueCardCode", code_issue(card)),
        ("CardService/IssueCard", card_issue(new_card)),
        ("CryptographyService/IssuePin", pin_issue(card)),
        ("CryptographyService/VerifyPin", PinPad(core.store).verification(card, WRONG)),
        ("CardService/ReportLoss", loss_report(card)),
        (AUTHORIZE, purchase(core.unissued_card())),
    ):
        proxy.cuts = [cut]
        first = await answered(proxied, lambda p=path, r=request: caller.raw(p, r))
        assert proxy.cuts == []
        assert await caller.raw(path, request) == first
        assert await core.stored(request.request_id) == 1
        rows = await core.database.fetchval(
            "SELECT count(*) FROM access_log WHERE request_id = $1", request.request_id
        )
        assert rows == (0 if path == AUTHORIZE else 1)
    tries = "SELECT pin_tries FROM card_states WHERE card_id = $1"
    assert await core.database.fetchval(tries, await core.card_id(card)) == 1


async def test_workload_under_cuts_keeps_every_outcome_and_the_books(
    proxied: ProxiedCore, rng: random.Random
) -> None:
    core, proxy = proxied.core, proxied.proxy
    callers = [core.caller() for _ in range(8)]
    proxy.rng = rng
    load = Workload(core, rng, [core.card() for _ in range(24)])
    running = asyncio.create_task(load.run(callers, operations=40))
    made_before = proxy.cuts_made
    while not running.done():
        proxy.cuts = [rng.choice(list(Cut))]
        await asyncio.sleep(rng.uniform(0, 0.05))
        if rng.random() < 0.1:
            proxy.cut_all()
    proxy.cuts = []
    await running
    assert proxy.cuts_made - made_before > 10
    await load.check(callers[0])


async def test_database_gone_is_unavailable_at_once_and_recovers_by_itself(proxied: ProxiedCore) -> None:
    core, proxy = proxied.core, proxied.proxy
    caller = core.caller()
    card = core.card()
    assert (await caller.authorize(purchase(card, 1))).response_code == "00"
    proxy.lose()
    requests = [purchase(card, 1) for _ in range(20)]
    for request in requests[:10]:
        started = time.monotonic()
        refusal = await refusal_of(caller.authorize(request, timeout_s=4))
        assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        assert refusal.retry_delay_ms > 0
        assert time.monotonic() - started < 4
    refusals = await asyncio.gather(*(refusal_of(caller.authorize(r, timeout_s=4)) for r in requests[10:]))
    assert {r.code.name for r in refusals} == {"UNAVAILABLE"}
    refusal = await refusal_of(caller.cards.GetCardStatus(status_query(core.card()), timeout=4))
    assert refusal.code.name == "UNAVAILABLE"
    (answer,) = await caller.frames(requests[:3])
    assert {result.error.reason for result in answer.results} == {"DATABASE_UNAVAILABLE"}
    assert all(result.error.retry_delay_ms for result in answer.results)
    proxy.find()
    for request in requests:
        response = await answered(proxied, lambda request=request: caller.authorize(request))
        assert response.response_code == "00"  # type: ignore[attr-defined]
        assert await core.stored(request.request_id) == 1
    assert await core.balance_minor(card) == 1_000_000 - 21


async def test_silent_network_is_noticed_and_recovered_from(proxied: ProxiedCore) -> None:
    core, proxy = proxied.core, proxied.proxy
    callers = [core.caller() for _ in range(4)]
    cards = [core.card() for _ in range(8)]
    await asyncio.gather(*(callers[n % 4].authorize(purchase(card, 1)) for n, card in enumerate(cards)))
    proxy.freeze()
    requests = [purchase(card, 1) for card in cards]
    for _ in range(20):
        codes = []
        for request in requests:
            try:
                codes.append((await callers[0].authorize(request, timeout_s=2)).response_code)
            except grpc.aio.AioRpcError as error:
                codes.append(error.code().name)
        if set(codes) == {"00"}:
            break
    assert set(codes) == {"00"}
    for request in requests:
        assert await core.stored(request.request_id) == 1


async def test_callers_that_cancel_lose_and_double_nothing(proxied: ProxiedCore, rng: random.Random) -> None:
    core = proxied.core
    callers = [core.caller() for _ in range(4)]
    load = Workload(core, rng, [core.card() for _ in range(10)])

    async def impatient(caller: object) -> None:
        for _ in range(40):
            request = load.draw()
            if rng.random() < 0.5:
                await load.send(caller, request, timeout_s=rng.choice([0.0005, 0.002, 0.004]))  # type: ignore[arg-type]
                continue
            call = asyncio.ensure_future(load.send(caller, request))  # type: ignore[arg-type]
            await asyncio.sleep(rng.uniform(0, 0.006))
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    await asyncio.gather(*(impatient(caller) for caller in callers))
    await load.check(callers[0])


async def test_stream_that_goes_away_mid_frame_leaves_no_trouble(proxied: ProxiedCore) -> None:
    """More frames than may be in flight, and a caller that leaves while all of them wait for a lock."""
    core = proxied.core
    card = core.card()
    caller = core.caller()
    requests = [purchase(card, 1) for _ in range(24)]
    async with core.database.acquire() as holder, holder.transaction():
        await holder.execute(
            "SELECT 1 FROM card_states WHERE card_id = $1 FOR UPDATE", await core.card_id(card)
        )
        streaming = asyncio.create_task(caller.frames(*([request] for request in requests)))
        await asyncio.sleep(0.4)
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
        await asyncio.sleep(0.1)
    for request in requests:
        assert (await caller.authorize(request, timeout_s=CALL_S)).response_code == "00"
        assert await core.stored(request.request_id) == 1
    assert await core.balance_minor(card) == 1_000_000 - 24
    assert "never retrieved" not in proxied.instance.errors()
    assert "was destroyed" not in proxied.instance.errors()


async def test_core_has_no_incident_after_all_this(proxied: ProxiedCore) -> None:
    assert "incident" not in proxied.instance.errors()
    assert proxied.core.facts["worker_pids"] == proxied.instance.facts()["worker_pids"]
