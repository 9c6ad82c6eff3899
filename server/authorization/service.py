"""Money operations as the engine runs them: checked before the lock, decided under it, posted double-entry.

One capability decides all kinds, so that operations of one batch see each other. Here are those that begin something;
`follow_ups.py` has those that follow another operation.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
from onecard.v1 import authorization_pb2 as pb

from crypto.key_store.data_plane import DataPlane
from crypto.sealing import ColumnSealer
from server.authorization import rules
from server.authorization.answers import ARCS, answer
from server.authorization.credentials import check_credentials, read_credentials, write_credentials
from server.authorization.entry import judge_card, judge_place, merchant_of
from server.authorization.follow_ups import FollowUps
from server.authorization.movements import available, take
from server.authorization.operations import FLAG_ADVICE, FLAG_FORCED, MoneyOperation
from server.authorization.originals import Hold, HoldState, Originals, read_originals, write_changes
from server.authorization.rules import APPROVALS, FORCED_OVER, RESPONSE_CODES, TELLING_NOTHING, Reason
from server.authorization.usage import Usage
from server.cards.presented import check_cryptograms
from server.engine.operation import Account, Batch, Capability, CardState, OperationKind, Outcome, Posting
from server.key_calls import KeyCalls
from server.rulebook.book import NO_LIMIT, RuleBook

PRE_AUTHORIZATION = OperationKind.PRE_AUTHORIZATION
_CREDITS = frozenset({OperationKind.DEPOSIT, OperationKind.BENEFIT_CREDIT})


class Authorize(Capability):
    """Decides money operations."""

    def __init__(self, keys: KeyCalls, book: RuleBook, sealer: ColumnSealer) -> None:
        self._keys = keys
        self._plane = DataPlane(keys.store)
        self._sealer = sealer
        self._book = book
        self._follow_ups = FollowUps(book)

    async def prepare(self, operations: Sequence[MoneyOperation]) -> None:
        await check_cryptograms(self._keys, operations, arcs=ARCS)
        credentials = [each for o in operations if (each := o.credentials) is not None]
        if credentials:
            await check_credentials(self._keys, self._plane, credentials)

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[MoneyOperation], batch: Batch
    ) -> Originals:
        presented = [(o, each) for o in operations if (each := o.credentials) is not None]
        if presented:
            await read_credentials(connection, presented, batch, sealer=self._sealer)
        return await read_originals(connection, operations, batch)

    def decide(self, operation: MoneyOperation, batch: Batch) -> Outcome:
        originals: Originals = batch.facts[self]
        if operation.credentials is not None:
            operation.credentials.begin()
        if operation.is_advice:
            assert operation.money is not None, "every money operation has an amount"
            # Set anew: a batch that lost a race is decided again.
            operation.money.flags = FLAG_ADVICE
        if operation.original is not None:
            outcome = self._follow_ups.decide(operation, batch, originals)
        elif operation.kind in _CREDITS:
            outcome = self._decide_credit(operation, batch)
        else:
            outcome = self._decide_debit(operation, batch, originals)
        if originals.are_followed:
            originals.note(operation, outcome, batch)
        return outcome

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[MoneyOperation, Outcome]],
    ) -> None:
        await write_changes(connection, batch.facts[self])
        presented = [each for o, _ in decided if (each := o.credentials) is not None]
        if presented:
            await write_credentials(connection, presented, batch, sealer=self._sealer)

    def replay(self, operation: MoneyOperation, response: bytes) -> pb.AuthorizeResponse:
        return pb.AuthorizeResponse.FromString(response)

    def _decide_debit(self, operation: MoneyOperation, batch: Batch, originals: Originals) -> Outcome:
        """What takes money from a card, holds it, or tells it."""
        facts, money, channel = operation.facts, operation.money, operation.channel
        assert money is not None, "every money operation has an amount"
        card = batch.cards.get(facts.card_id) if facts is not None else None
        account = batch.accounts.get(operation.account_id) if operation.account_id is not None else None
        limit = self._book.limits[channel] if channel is not None else NO_LIMIT
        place_reason = judge_place(self._book, operation, batch)
        # The chip's counter moves in it, whatever was found before.
        reason = judge_card(operation, batch, card, limit, earlier=place_reason)
        usage = None
        amount = money.amount_minor
        if reason is None or (operation.is_advice and reason in FORCED_OVER and card is not None):
            assert card is not None, "an unknown card was declined above"
            usage = Usage(card.usage, batch.business_date) if channel is not None else None
            reason = reason or self._reason_of_money(operation, batch, card, account, usage)
        if reason is None:
            reason = Reason.APPROVED
        elif operation.is_advice and reason in FORCED_OVER and card is not None:
            reason = Reason.FORCED_POST
            money.flags = FLAG_ADVICE | FLAG_FORCED
        elif reason is Reason.INSUFFICIENT_FUNDS and operation.partial_approval_allowed:
            left = available(account)
            if left > 0:
                amount, reason = left, Reason.PARTIALLY_APPROVED
        postings: tuple[Posting, ...] = ()
        approved = 0
        if reason in APPROVALS:
            assert card is not None, "approved above"
            approved = amount
            if usage is not None and channel is not None:
                usage.add(channel, amount, now_s=int(batch.now.timestamp()), window_s=limit.velocity_window_s)
                card.usage, card.changed = usage.pack(), True
            postings = self._move(operation, batch, account, originals, amount)
        response_code = RESPONSE_CODES[reason]
        verified = operation.cryptogram.verified if operation.cryptogram is not None else None
        message = answer(
            batch,
            reason,
            approved_minor=approved,
            # Only a card that proved itself hears what it holds.
            available_minor=(
                available(account) if operation.is_proven and reason not in TELLING_NOTHING else 0
            ),
            held_minor=approved if operation.kind is PRE_AUTHORIZATION else 0,
            arpc=verified.arpc(response_code.encode()) if verified is not None else b"",
        )
        return Outcome(message, reason, response_code, postings, approved_minor=approved)

    def _reason_of_money(
        self,
        operation: MoneyOperation,
        batch: Batch,
        card: CardState,
        account: Account | None,
        usage: Usage | None,
    ) -> Reason | None:
        """Wallet, destination, limits and available money, in this order."""
        money, channel, kind = operation.money, operation.channel, operation.kind
        assert money is not None, "every money operation has an amount"
        wallet = self._book.wallets.get(operation.wallet)
        reason = rules.reason_of_wallet(wallet, merchant_of(self._book, operation), kind)
        if reason is None and kind is OperationKind.TRANSFER:
            reason = self._reason_of_destination(operation, batch)
        if reason is not None:
            return reason
        amount = money.amount_minor
        if channel is not None and usage is not None:
            reason = rules.reason_of_limits(
                card,
                usage,
                self._book.limits[channel],
                channel,
                amount_minor=amount,
                now_s=int(batch.now.timestamp()),
            )
            if reason is not None:
                return reason
        return Reason.INSUFFICIENT_FUNDS if amount > available(account) else None

    def _reason_of_destination(self, operation: MoneyOperation, batch: Batch) -> Reason | None:
        facts = operation.other_facts
        card = batch.cards.get(facts.card_id) if facts is not None else None
        reason = rules.reason_of_card(
            card, expires_on=facts.expires_on if facts is not None else None, today=batch.today
        )
        return None if reason is None else Reason.DESTINATION_UNAVAILABLE

    def _move(
        self,
        operation: MoneyOperation,
        batch: Batch,
        account: Account | None,
        originals: Originals,
        amount: int,
    ) -> tuple[Posting, ...]:
        """Changes the working copies, and gives the postings of an approval."""
        kind = operation.kind
        if not amount:
            return ()
        if kind is PRE_AUTHORIZATION:
            assert account is not None, "money is held in a wallet that has some"
            account.held_minor += amount
            account.changed = True
            originals.holds[batch.operation_id] = _new_hold(
                operation, batch, amount, self._hold_days(operation)
            )
            return ()
        if kind is OperationKind.TRANSFER:
            other = operation.other_facts
            assert account is not None, "approved above"
            assert other is not None, "approved above"
            receiving = batch.account(other.account_id, card_id=other.card_id, shard=other.shard)
            account.posted_minor -= amount
            receiving.posted_minor += amount
            account.changed = receiving.changed = True
            return (Posting(account.account_id, receiving.account_id, amount),)
        return take(operation, account, amount, to_account_id=operation.settlement_account_id)

    def _hold_days(self, operation: MoneyOperation) -> int:
        assert operation.channel is not None, "a pre-authorization has a channel"
        return self._book.limits[operation.channel].hold_days

    def _decide_credit(self, operation: MoneyOperation, batch: Batch) -> Outcome:
        """What brings money to a card."""
        facts, money, kind = operation.facts, operation.money, operation.kind
        assert money is not None, "every money operation has an amount"
        card = batch.cards.get(facts.card_id) if facts is not None else None
        reason = judge_place(self._book, operation, batch)
        if reason is None:
            reason = (
                rules.reason_of_crediting(card)
                if kind is OperationKind.BENEFIT_CREDIT
                else judge_card(operation, batch, card, NO_LIMIT, earlier=None)
            )
        if reason is None:
            reason = rules.reason_of_wallet(self._book.wallets.get(operation.wallet), None, kind)
        if reason is not None:
            return Outcome(answer(batch, reason), reason, RESPONSE_CODES[reason], approved_minor=0)
        assert facts is not None, "an unknown card was declined above"
        assert operation.account_id is not None, "bound with the card"
        source = (
            operation.fund_account_id
            if kind is OperationKind.BENEFIT_CREDIT
            else operation.settlement_account_id
        )
        account = batch.account(operation.account_id, card_id=facts.card_id, shard=facts.shard)
        amount = money.amount_minor
        account.posted_minor += amount
        account.changed = True
        reason = Reason.APPROVED
        return Outcome(
            answer(batch, reason, approved_minor=amount),
            reason,
            RESPONSE_CODES[reason],
            (Posting(source, account.account_id, amount),),
            approved_minor=amount,
        )


def _new_hold(operation: MoneyOperation, batch: Batch, amount_minor: int, hold_days: int) -> Hold:
    assert operation.card_id is not None, "approved on a card"
    assert operation.account_id is not None, "approved on a wallet"
    return Hold(
        shard=operation.shard,
        hold_id=batch.operation_id,
        card_id=operation.card_id,
        account_id=operation.account_id,
        state=HoldState.PENDING,
        authorized_minor=amount_minor,
        held_minor=amount_minor,
        captured_minor=0,
        expires_at=batch.now + timedelta(days=hold_days),
        changed=True,
    )
