"""Every kind of money operation on the running core against the model: alone, in frames, at once, late, twice or never.

Each example has new cards. What is sent at once at two workers must be answered as in one of its orders. Shown
operations are never sent while an earlier one is on its way, unless the rule says so: then the model takes all orders.
``make proof`` tries many more examples.
"""

import asyncio
import copy
import itertools
import os
from typing import Any

import money_requests as m
import pytest
from books import broken_rules
from core_under_test import Caller, Core, new_id
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from money_model import Model
from rules_in_force import rule as rule_in_force
from virtual_card import VirtualCard

from server.authorization.expiry import expire_holds

EXAMPLES = int(os.environ.get("ONECARD_MODEL_EXAMPLES", "60"))
STEPS = 30
CALL_S = 20.0
PURSE = 1_000
BENEFIT = 3
# Counters of cards that were signed long ago fall behind the window.
ATC_BEHIND_MAX = 60
# Also what the tolerance over a hold just admits, and what is more than there is.
amounts = st.sampled_from([1, 100, 115, 250, 287, 500, 575, PURSE, PURSE + 150])
BEGINNINGS = {
    "purchase": m.purchase,
    "tap": m.tap,
    "cash": m.cash_withdrawal,
    "hold": m.pre_authorization,
    "deposit": m.deposit,
    "benefit": m.benefit_credit,
    "transfer": m.transfer,
}
FOLLOWERS = {
    "increment": m.increment,
    "completion": m.completion,
    "void": m.void,
    "refund": m.refund,
    "reversal": m.reversal,
}
# Originals that a follower is for.
SUITED: dict[str, set[int]] = {
    "increment": {m.PRE_AUTHORIZATION},
    "completion": {m.PRE_AUTHORIZATION},
    "void": {m.PRE_AUTHORIZATION, m.PURCHASE, m.TAP, m.CASH_WITHDRAWAL, m.COMPLETION},
    "refund": {m.PURCHASE, m.TAP, m.COMPLETION},
    "reversal": {m.COMPLETION, m.REFUND, m.VOID, m.INCREMENT, m.TRANSFER, m.PURCHASE, m.DEPOSIT},
}
HOLD_STATES = ["", "PENDING", "CAPTURED", "VOIDED", "REVERSED", "EXPIRED"]


def one_of(data: st.DataObject, things: list[Any], label: str) -> Any:
    """Draws alike however many there are: how many depends on what the core answered first."""
    return things[data.draw(st.integers(0, 99), label=label) % len(things)]


class Bank:
    """The core as a synchronous machine sees it, whose calls run on the loop of the test."""

    def __init__(self, core: Core, callers: list[Caller], loop: asyncio.AbstractEventLoop) -> None:
        self.core, self.callers, self._loop = core, callers, loop

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def new_cards(self, count: int) -> tuple[list[VirtualCard], list[int]]:
        async def make() -> tuple[list[VirtualCard], list[int]]:
            cards = [await m.card_holding(self.core, self.callers[0], 0) for _ in range(count)]
            return cards, [await self.core.card_id(card) for card in cards]

        return self.run(make())


class Operations(RuleBasedStateMachine):
    """Sends operations and has the model say what they come to."""

    bank: Bank
    seen: set[str]

    def __init__(self) -> None:
        super().__init__()
        self.cards, self.card_ids = self.bank.new_cards(2)
        self.by_pan = {card.pan: card for card in self.cards}
        self.model = Model()
        # In the order in which they were made; what was answered has its answer.
        self.made: list[Any] = []
        self.answers: dict[str, bytes] = {}
        for card in self.cards:
            self.made.append(m.deposit(card, PURSE))
            self._send_one(self.made[-1], 0)

    # What is sent.

    def _begun(self, data: st.DataObject) -> Any:
        name = data.draw(st.sampled_from(sorted(BEGINNINGS)), label="kind")
        card, other = data.draw(st.permutations(self.cards), label="card")
        amount = data.draw(amounts, label="amount")
        wallet = data.draw(st.sampled_from([1, 1, BENEFIT]), label="wallet")
        fields: dict[str, Any] = {} if name in {"transfer", "deposit"} else {"wallet": wallet}
        if name in {"purchase", "tap"} and data.draw(st.booleans(), label="advice"):
            fields |= {"is_advice": True, "chip": None}
        elif name == "purchase" and data.draw(st.booleans(), label="partial"):
            fields["partial_approval_allowed"] = True
        if data.draw(st.integers(0, 9), label="stan again") == 0:
            fields["stan"] = one_of(data, self.made, "whose stan").stan
        arguments = (card, other, amount) if name == "transfer" else (card, amount)
        return BEGINNINGS[name](*arguments, **fields)

    def _following(self, data: st.DataObject) -> Any:
        name = data.draw(st.sampled_from(sorted(FOLLOWERS)), label="follower")
        # Mostly one that it may follow.
        suited = [r for r in self.made if r.operation in SUITED[name]]
        is_suited = data.draw(st.integers(0, 4), label="suited") > 0 and suited
        original = one_of(data, suited if is_suited else self.made, "original")
        owner = self.by_pan[original.pan]
        card = data.draw(st.sampled_from([owner, owner, owner, *self.cards]), label="card")
        fields: dict[str, Any] = {}
        named = data.draw(st.sampled_from(["id", "id", "stan", "both", "id of nothing"]), label="named by")
        request_id = new_id() if named == "id of nothing" else original.request_id
        if named == "stan":
            fields["original"] = m.by_stan(original)
        elif named != "id":
            fields["original"] = m.by_stan(original, request_id=request_id)
        if m.mti_class_of(original) == m.MTI_REVERSAL:
            fields["original"] = m.by_request_id(original)
        if name in {"completion", "refund"} and data.draw(st.integers(0, 3), label="advice") == 0:
            fields["is_advice"] = True
        if name == "completion":
            fields["more_completions_follow"] = data.draw(st.booleans(), label="more follow")
        if name == "void":
            return m.void(card, original, **fields)
        if name == "reversal":
            amount = data.draw(st.one_of(st.just(0), amounts), label="amount")
            if original.to_pan == card.pan:
                fields["to_pan"] = ""
            return m.reversal(card, original, amount, **fields)
        return FOLLOWERS[name](card, original, data.draw(amounts, label="amount"), **fields)

    def _any(self, data: st.DataObject) -> Any:
        request = (self._following if data.draw(st.booleans(), label="follows") else self._begun)(data)
        self.made.append(request)
        return request

    def _old(self, data: st.DataObject) -> Any:
        """One that was made before: never sent, lost on its way, or answered long ago."""
        request = one_of(data, self.made, "again")
        is_stale = (
            request.HasField("chip") and self.by_pan[request.pan].atc - request.chip.atc > ATC_BEHIND_MAX
        )
        return None if is_stale and request.request_id not in self.answers else request

    # How it is sent.

    @rule(data=st.data(), at=st.integers(0, 3))
    def send(self, data: st.DataObject, at: int) -> None:
        self._send_one(self._any(data), at)

    @rule(data=st.data())
    def delay(self, data: st.DataObject) -> None:
        """The message waits, perhaps for ever; others may name it already."""
        self._any(data)

    @rule(data=st.data(), at=st.integers(0, 3))
    def send_old(self, data: st.DataObject, at: int) -> None:
        if (request := self._old(data)) is not None:
            self._send_one(request, at)

    @rule(data=st.data(), at=st.integers(0, 3))
    def lose_the_answer_and_ask_again(self, data: st.DataObject, at: int) -> None:
        request = self._any(data)
        after_s = data.draw(st.sampled_from([0.0, 0.0005, 0.002]), label="hang up after")

        async def hang_up() -> None:
            call = self.bank.callers[at].authorization.Authorize(request, timeout=CALL_S)
            await asyncio.sleep(after_s)
            call.cancel()

        self.bank.run(hang_up())
        self._send_one(request, (at + 1) % 4)

    @rule(data=st.data(), at=st.integers(0, 3), count=st.integers(2, 6))
    def send_in_a_frame(self, data: st.DataObject, at: int, count: int) -> None:
        requests = [r for _ in range(count) if (r := self._new_or_old(data)) is not None]
        if requests:
            (frame,) = self.bank.run(self.bank.callers[at].frames(requests))
            for request, result in zip(requests, frame.results, strict=True):
                assert not result.HasField("error"), result.error
                self._compare(request, result.response, self.model.decide(request))

    @rule(data=st.data(), at=st.integers(0, 3), count=st.integers(2, 3))
    def send_at_once(self, data: st.DataObject, at: int, count: int) -> None:
        requests = [r for _ in range(count) if (r := self._new_or_old(data)) is not None]

        async def all_of_them() -> list[Any]:
            callers = [self.bank.callers[(at + n) % 4] for n in range(len(requests))]
            return await asyncio.gather(*(c.authorize(r) for c, r in zip(callers, requests, strict=True)))

        responses = self.bank.run(all_of_them())
        observed = [self._told(response) for response in responses]
        self.model = self._order_that_fits(requests, observed)
        for request, response in zip(requests, responses, strict=True):
            self._compare(request, response, self.model.decide(request))

    @rule(data=st.data())
    def let_the_time_of_a_hold_end(self, data: st.DataObject) -> None:
        """And sweep at once, before the housekeeper does at a time of its own."""
        holds = [(name, d) for name, d in self.model.done.items() if d.state == "PENDING"]
        which = data.draw(st.integers(0, 9), label="hold")
        if holds:
            name, hold = holds[which % len(holds)]
            statement = (
                "UPDATE holds SET expires_at = '2020-01-01' WHERE hold_id ="
                " (SELECT operation_id FROM operations WHERE request_id = $1)"
            )
            self.bank.run(self.bank.core.database.execute(statement, name))
            self.bank.run(expire_holds(self.bank.core.database))
            hold.held, hold.state = 0, "EXPIRED"

    def _new_or_old(self, data: st.DataObject) -> Any:
        return self._any(data) if data.draw(st.integers(0, 3), label="new") else self._old(data)

    def _send_one(self, request: Any, at: int) -> None:
        response = self.bank.run(self.bank.callers[at].authorize(request))
        self._compare(request, response, self.model.decide(request))

    def _order_that_fits(self, requests: list[Any], observed: list[tuple[str, int]]) -> Model:
        found = []
        for order in itertools.permutations(range(len(requests))):
            model = copy.deepcopy(self.model)
            told = {n: model.decide(requests[n]) for n in order}
            if [told[n] for n in range(len(requests))] == observed:
                found.append(model)
        assert found, f"no order of {requests} gives {observed}"
        # Several may: the money tells them apart.
        fitting = [model for model in found if self._wallets(model) == self._stored_wallets()]
        assert fitting, f"no order of {requests} leaves this money"
        return fitting[0]

    # What is compared.

    @staticmethod
    def _told(response: Any) -> tuple[str, int]:
        return m.decision(response)[1], response.approved_minor

    def _compare(self, request: Any, response: Any, expected: tuple[str, int]) -> None:
        assert self._told(response) == expected, request
        data = response.SerializeToString()
        assert self.answers.setdefault(request.request_id, data) == data
        self.seen.add(expected[0])

    def _wallets(self, model: Model) -> dict[tuple[int, int], tuple[int, int]]:
        return {
            (number, wallet): (model.posted.get((card.pan, wallet), 0), model.held((card.pan, wallet)))
            for number, card in enumerate(self.cards)
            for wallet in (1, BENEFIT)
        }

    def _stored_wallets(self) -> dict[tuple[int, int], tuple[int, int]]:
        return self.bank.run(self._read_wallets())

    async def _read_wallets(self) -> dict[tuple[int, int], tuple[int, int]]:
        found = dict.fromkeys(((n, w) for n in range(len(self.cards)) for w in (1, BENEFIT)), (0, 0))
        for row in await self.bank.core.database.fetch(
            "SELECT card_id, wallet, posted_minor, held_minor FROM accounts WHERE card_id = ANY ($1::bigint[])",
            self.card_ids,
        ):
            found[self.card_ids.index(row[0]), row[1]] = row[2], row[3]
        return found

    @invariant()
    def wallets_hold_what_the_model_says(self) -> None:
        if hasattr(self, "model"):
            assert self._stored_wallets() == self._wallets(self.model)

    def teardown(self) -> None:
        self.bank.run(self._compare_books())

    async def _compare_books(self) -> None:
        core, model = self.bank.core, self.model
        sums = {"settlement": 0, "suspense": 0, "fund": 0}
        for row in await core.database.fetch(
            "SELECT s.id, sum(s.amount)::bigint FROM postings AS p JOIN operations AS o USING (operation_id),"
            " LATERAL (VALUES (p.debit_account_id, -p.amount_minor), (p.credit_account_id, p.amount_minor))"
            " AS s (id, amount) WHERE o.request_id = ANY ($1::uuid[]) AND s.id < 1000000 GROUP BY s.id",
            list(self.answers),
        ):
            name = "settlement" if row[0] < 300_000 else "suspense" if row[0] < 700_000 else "fund"
            sums[name] += row[1]
        assert sums == {name: model.posted.get(name, 0) for name in sums}
        assert sum(model.posted.values()) == 0
        for name, d in model.done.items():
            if d.state:
                hold = await core.database.fetchrow(
                    "SELECT h.state, authorized_minor, held_minor, captured_minor FROM holds AS h JOIN operations"
                    " AS o ON o.operation_id = h.hold_id WHERE o.request_id = $1",
                    name,
                )
                assert tuple(hold) == (HOLD_STATES.index(d.state), d.authorized, d.held, d.captured)
        counts = await core.database.fetch(
            "SELECT request_id FROM operations WHERE request_id = ANY ($1::uuid[])", list(self.answers)
        )
        assert len(counts) == len(self.answers)


@pytest.mark.timeout(60 + 5 * EXAMPLES)
async def test_core_decides_every_operation_like_the_model(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    Operations.bank = Bank(core, callers, asyncio.get_running_loop())
    Operations.seen = set()
    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    async with (
        rule_in_force(core, "limit", "cash"),
        rule_in_force(core, "limit", "tap"),
        rule_in_force(core, "limit", "transfer"),
        rule_in_force(core, "limit", "pre_authorization", capture_tolerance_percent=15),
    ):
        await asyncio.to_thread(run_state_machine_as_test, Operations, settings=profile)
    assert await broken_rules(core) == {}
    # It met most of what there is to meet; with many examples all of it.
    assert len(Operations.seen) >= 10, Operations.seen
