"""Pre-authorizations: money is held, completed within its bounds, given up, or ends with its time."""

import asyncio

import asyncpg
import pytest
from books import broken_rules, end_time_of_hold, flags_of, hold_of, postings_of, wallet_of
from core_under_test import OPENING_BALANCE_MINOR as OPENING
from core_under_test import Caller, Core, purchase
from money_requests import (
    APPROVED,
    advice,
    approved,
    by_rrn,
    by_stan,
    card_holding,
    completion,
    decision,
    declined,
    increment,
    pre_authorization,
    void,
)
from rules_in_force import rule

from server.authorization.expiry import expire_holds

NOT_PENDING = ("12", "HOLD_NOT_PENDING")
EXPIRED = ("12", "HOLD_EXPIRED")
NOT_FOUND = ("25", "ORIGINAL_NOT_FOUND")
EXCEEDED = ("64", "ORIGINAL_AMOUNT_EXCEEDED")
POOR = ("51", "INSUFFICIENT_FUNDS")


async def test_held_money_is_there_and_not_available(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, OPENING)
    held = pre_authorization(card, 600_000)
    response = await approved(bank, held)
    assert (response.approved_minor, response.held_minor) == (600_000, 600_000)
    assert response.available_minor == OPENING - 600_000
    assert card.accepts(held.chip, arpc=response.arpc, response_code="00")
    assert await wallet_of(core, card) == (OPENING, 600_000)
    assert await postings_of(core, held) == []
    assert await declined(bank, purchase(card, OPENING - 600_000 + 1)) == POOR
    assert await declined(bank, pre_authorization(card, OPENING - 600_000 + 1)) == POOR
    last = await approved(bank, purchase(card, OPENING - 600_000))
    assert last.available_minor == 0


async def test_schema_refuses_to_hold_what_is_not_there(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 100)
    await approved(bank, held)
    card_id = await core.card_id(card)
    for change, constraint in (
        (
            "UPDATE accounts SET held_minor = posted_minor + 1 WHERE card_id = $1",
            "accounts_available_not_negative",
        ),
        ("UPDATE accounts SET held_minor = -1 WHERE card_id = $1", "accounts_held_not_negative"),
        ("UPDATE holds SET state = 2 WHERE card_id = $1", "holds_held_while_pending"),
        ("UPDATE holds SET held_minor = 0 WHERE card_id = $1", "holds_held_while_pending"),
    ):
        with pytest.raises(asyncpg.CheckViolationError) as raised:
            await core.database.execute(change, card_id)
        assert raised.value.constraint_name == constraint


async def test_completion_takes_its_amount_and_frees_the_rest(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    done = completion(card, held, 7_000)
    response = await approved(bank, done)
    assert (response.approved_minor, response.held_minor, response.available_minor) == (7_000, 0, 0)
    assert await wallet_of(core, card) == (OPENING - 7_000, 0)
    assert await postings_of(core, done) == [("wallet-1", "settlement", 7_000)]
    assert await hold_of(core, held) == ("CAPTURED", 0, 7_000)
    assert await declined(bank, completion(card, held, 1)) == NOT_PENDING


async def test_completions_that_more_follow_keep_the_rest_held(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    for amount, left in ((4_000, 6_000), (5_000, 1_000)):
        response = await approved(bank, completion(card, held, amount, more_completions_follow=True))
        assert response.held_minor == left
        assert await wallet_of(core, card) == (OPENING - (10_000 - left), left)
    await approved(bank, completion(card, held, 1_000, more_completions_follow=True))
    assert await hold_of(core, held) == ("CAPTURED", 0, 10_000)


async def test_capture_above_the_hold_is_within_the_channels_tolerance_or_declined_64(
    core: Core, bank: Caller
) -> None:
    card = core.card()
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    assert await declined(bank, completion(card, held, 11_501)) == EXCEEDED
    assert await wallet_of(core, card) == (OPENING, 10_000)
    await approved(bank, completion(card, held, 11_500))
    assert await wallet_of(core, card) == (OPENING - 11_500, 0)


async def test_merchants_tolerance_comes_before_the_channels(core: Core, bank: Caller) -> None:
    card = core.card()
    async with rule(core, "merchant", "bank-01/M-TOLERANT", capture_tolerance_percent=50):
        held = pre_authorization(card, 10_000)
        await approved(bank, held)
        assert await declined(bank, completion(card, held, 15_001, merchant_id="M-TOLERANT")) == EXCEEDED
        await approved(bank, completion(card, held, 15_000, merchant_id="M-TOLERANT"))


async def test_tolerance_needs_money_that_is_there(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, OPENING)
    held = pre_authorization(card, OPENING)
    await approved(bank, held)
    assert await declined(bank, completion(card, held, OPENING + 1)) == POOR
    await approved(bank, completion(card, held, OPENING))


async def test_increment_holds_more_as_long_as_there_is_more(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, OPENING)
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    response = await approved(bank, increment(card, held, 5_000))
    assert (response.approved_minor, response.held_minor) == (5_000, 15_000)
    assert await declined(bank, increment(card, held, OPENING - 15_000 + 1)) == POOR
    await approved(bank, increment(card, held, OPENING - 15_000))
    assert await wallet_of(core, card) == (OPENING, OPENING)
    # An increment cannot itself be followed by one, nor be completed.
    more = increment(card, held, 1)
    assert await declined(bank, more) == POOR
    assert await declined(bank, completion(card, more, 1)) == ("12", "ORIGINAL_NOT_ELIGIBLE")


async def test_void_gives_up_what_is_held_and_a_second_void_is_declined(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    response = await approved(bank, void(card, held))
    assert response.approved_minor == 10_000
    assert await hold_of(core, held) == ("VOIDED", 0, 0)
    assert await wallet_of(core, card) == (OPENING, 0)
    for request in (void(card, held), completion(card, held, 1), increment(card, held, 1)):
        assert await declined(bank, request) == NOT_PENDING


async def test_completion_increment_and_void_after_expiry_are_refused(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    await end_time_of_hold(core, held)
    # Before and after the hold was swept.
    for _ in range(2):
        for request in (completion(card, held, 1), increment(card, held, 1), void(card, held)):
            assert await declined(bank, request) == EXPIRED
        await expire_holds(core.database)
    assert await hold_of(core, held) == ("EXPIRED", 0, 0)
    assert await wallet_of(core, card) == (OPENING, 0)


@pytest.mark.parametrize("is_swept", [False, True])
async def test_late_advice_of_a_completion_is_forced_and_flagged(
    core: Core, bank: Caller, is_swept: bool
) -> None:
    card = core.card()
    held = pre_authorization(card, 10_000)
    await approved(bank, held)
    await end_time_of_hold(core, held)
    if is_swept:
        await expire_holds(core.database)
    late = advice(completion, card, held, 9_000)
    response = await bank.authorize(late)
    assert decision(response) == ("00", "FORCED_POST")
    assert response.approved_minor == 9_000
    assert await flags_of(core, late) == 3
    assert await wallet_of(core, card) == (OPENING - 9_000, 0)
    state, *amounts = await hold_of(core, held)
    assert amounts == [0, 9_000]
    # The housekeeper may have come before.
    assert state in ({"EXPIRED"} if is_swept else {"CAPTURED", "EXPIRED"})


async def test_hold_is_named_by_request_id_rrn_or_stan(core: Core, bank: Caller) -> None:
    card = core.card()
    for number, name in enumerate(("request_id", "rrn", "stan", "other terminal")):
        held = pre_authorization(card, 1_000, terminal_id=f"HOLD-{number}")
        response = await approved(bank, held)
        reference = {
            "request_id": None,
            "rrn": by_rrn(response),
            "stan": by_stan(held),
            "other terminal": by_stan(
                held, terminal_id=held.terminal_id, business_date=response.business_date
            ),
        }[name]
        terminal = "ELSEWHERE" if name == "other terminal" else held.terminal_id
        fields = {"terminal_id": terminal} | ({} if reference is None else {"original": reference})
        await approved(bank, completion(card, held, 1_000, **fields))
        assert await hold_of(core, held) == ("CAPTURED", 0, 1_000)


async def test_hold_is_not_found_under_another_class_terminal_or_date(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 1_000, terminal_id="HOLD-5")
    await approved(bank, held)
    for wrong in (
        {"mti_class": 2},
        {"terminal_id": "HOLD-6"},
        {"business_date": "20250101"},
        {"stan": 999_998},
    ):
        request = completion(card, held, 1, terminal_id="HOLD-5", original=by_stan(held, **wrong))
        assert await declined(bank, request) == NOT_FOUND
    assert await hold_of(core, held) == ("PENDING", 1_000, 0)


async def test_hold_of_another_card_or_participant_is_not_found(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card, other = core.card(), core.card()
    held = pre_authorization(card, 1_000)
    await approved(bank, held)
    for make in (completion, increment):
        assert await declined(bank, make(other, held, 1)) == NOT_FOUND
        assert await declined(other_bank, make(card, held, 1)) == NOT_FOUND
    assert await declined(bank, void(other, held)) == NOT_FOUND
    assert await declined(other_bank, void(card, held)) == NOT_FOUND
    assert await hold_of(core, held) == ("PENDING", 1_000, 0)


async def test_purchase_is_no_hold_and_a_declined_hold_neither(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, OPENING)
    bought, refused = purchase(card, 1_000), pre_authorization(card, OPENING + 1)
    await approved(bank, bought)
    assert await declined(bank, refused) == POOR
    for request in (
        completion(card, bought, 1),
        increment(card, bought, 1),
        completion(card, refused, 1),
        void(card, refused),
    ):
        assert await declined(bank, request) == ("12", "ORIGINAL_NOT_ELIGIBLE")


async def test_chain_in_one_frame_sees_itself(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 1_000)
    chain = [
        held,
        increment(card, held, 500),
        completion(card, held, 600, more_completions_follow=True),
        void(card, held, original=by_stan(held)),
        completion(card, held, 1),
        void(card, held),
    ]
    (answer,) = await bank.frames(chain)
    reasons = [decision(result.response)[1] for result in answer.results]
    assert reasons == ["APPROVED"] * 4 + ["HOLD_NOT_PENDING"] * 2
    assert [r.response.approved_minor for r in answer.results] == [1_000, 500, 600, 900, 0, 0]
    assert await wallet_of(core, card) == (OPENING - 600, 0)
    assert await hold_of(core, held) == ("CAPTURED", 0, 600)


@pytest.mark.parametrize("make", [lambda c, h: completion(c, h, 1_000), void], ids=["completions", "voids"])
async def test_of_two_at_once_at_two_workers_one_has_the_hold(core: Core, make) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> list[str]:
        card = core.card()
        held = pre_authorization(card, 1_000)
        await approved(callers[number % 4], held)
        rivals = [make(card, held), completion(card, held, 1_000), void(card, held)]
        answers = await asyncio.gather(
            *(callers[(number + n) % 4].authorize(rival) for n, rival in enumerate(rivals))
        )
        return sorted(decision(answer)[1] for answer in answers)

    outcomes = await asyncio.gather(*(race(number) for number in range(30)))
    assert outcomes == [["APPROVED", "HOLD_NOT_PENDING", "HOLD_NOT_PENDING"]] * 30
    assert await broken_rules(core) == {}


async def test_sweeper_waits_for_whoever_has_the_card(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 1_000)
    await approved(bank, held)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database() AND query LIKE '%card_states%'"
    )
    async with core.database.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(
            "SELECT 1 FROM card_states WHERE card_id = $1 FOR NO KEY UPDATE", await core.card_id(card)
        )
        await end_time_of_hold(core, held)
        sweep = asyncio.create_task(expire_holds(core.database))
        async with asyncio.timeout(20):
            while not sweep.done() and not await core.database.fetchval(waiting):  # noqa: ASYNC110 - a row, not an event
                await asyncio.sleep(0.01)
        assert not sweep.done()
        assert await hold_of(core, held) == ("PENDING", 1_000, 0)
        await transaction.rollback()
    await sweep
    assert await hold_of(core, held) == ("EXPIRED", 0, 0)


async def test_sweeper_and_completion_at_once_one_wins_and_the_other_sees_it(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    cards = [core.card() for _ in range(40)]
    holds = [pre_authorization(card, 1_000) for card in cards]
    for number, held in enumerate(holds):
        await approved(callers[number % 4], held)
    soon = await core.database.fetchval("SELECT clock_timestamp() + interval '300 milliseconds'")
    await core.database.execute(
        "UPDATE holds SET expires_at = $1 WHERE card_id = ANY ($2::bigint[])",
        soon,
        [await core.card_id(card) for card in cards],
    )

    async def sweep() -> None:
        for _ in range(40):
            await expire_holds(core.database)
            await asyncio.sleep(0.015)

    async def complete(number: int) -> tuple[str, str]:
        await asyncio.sleep(0.6 * number / len(cards))
        request = completion(cards[number], holds[number], 1_000)
        return decision(await callers[number % 4].authorize(request))

    *outcomes, _ = await asyncio.gather(*(complete(n) for n in range(len(cards))), sweep())
    assert set(outcomes) <= {APPROVED, EXPIRED}
    await expire_holds(core.database)
    for card, held, outcome in zip(cards, holds, outcomes, strict=True):
        is_done = outcome == APPROVED
        assert await hold_of(core, held) == (("CAPTURED", 0, 1_000) if is_done else ("EXPIRED", 0, 0))
        assert await wallet_of(core, card) == (OPENING - 1_000 * is_done, 0)
    assert await broken_rules(core) == {}
