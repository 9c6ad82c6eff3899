"""A till whose core is out of order: it keeps its reversal until there is an answer, and asks nothing new before."""

import asyncio

import pytest
from integration.client_site import client_of, resident_of
from proxied_core import ProxiedCore

from clients.errors import RetryableError
from clients.retry import RetryPolicy
from clients.reversals import Reversals
from clients.terminal import Terminal

ONCE = RetryPolicy(attempts_max=1)


async def sent_when_back(reversals: Reversals) -> None:
    for _ in range(100):
        try:
            return await reversals.send_waiting()
        except RetryableError:
            await asyncio.sleep(0.1)
    raise AssertionError("the core did not recover")


async def test_reversal_without_an_answer_waits_and_nothing_new_is_asked_before_it(
    proxied: ProxiedCore,
) -> None:
    core, proxy = proxied.core, proxied.proxy
    chip = resident_of(core).chip
    async with client_of(core, retry=ONCE) as hasty, client_of(core) as patient:
        terminal = Terminal(hasty, terminal_id="KEPT0001")
        reversals = Reversals(hasty, terminal.requests)
        held_minor = (await terminal.inquire_balance(chip)).available_minor
        request = terminal.prepare_purchase(chip, amount_minor=5_000)
        proxy.lose()
        try:
            assert await reversals.submit_or_reverse(request, patience_s=20.0) is None
            (waiting,) = reversals.waiting
            assert waiting.original.request_id == request.request_id
            another = terminal.prepare_purchase(chip, amount_minor=100)
            with pytest.raises(RetryableError):
                await reversals.submit_or_reverse(another, patience_s=20.0)
            assert reversals.waiting == (waiting,)
        finally:
            proxy.find()
        # The till was switched off meanwhile: what it had kept is sent as it was.
        restarted = Reversals(hasty, terminal.requests, waiting=reversals.waiting)
        await sent_when_back(restarted)
        assert restarted.waiting == ()
        assert await core.stored(waiting.request_id) == 1
        assert await core.stored(another.request_id) == 0
        assert (await patient.authorize(request)).response_code == "05"
        assert (await terminal.inquire_balance(chip)).available_minor == held_minor
