"""Operations that follow another: increment, completion, void, refund; reversals are in `reversals.py`.

Each finds its original among the working copies of the batch, judges it, and changes the original's hold or what was
taken back of it in the same step as the money. What is taken back never passes what was approved; a CHECK of
``adjustments`` holds that too.
"""

from server.authorization import rules
from server.authorization.answers import answer
from server.authorization.entry import judge_card, judge_crediting, judge_message, judge_place, merchant_of
from server.authorization.movements import available, give, take
from server.authorization.operations import FLAG_ADVICE, FLAG_FORCED, MoneyOperation
from server.authorization.originals import Effect, Hold, HoldState, Original, Originals
from server.authorization.reversals import decide_reversal
from server.authorization.rules import APPROVALS, FORCED_OVER, RESPONSE_CODES, Reason
from server.authorization.usage import Usage
from server.engine.operation import Account, Batch, CardState, OperationKind, Outcome
from server.rulebook.book import NO_LIMIT, RuleBook
from server.rulebook.rules import Channel

PURCHASES = frozenset({OperationKind.PURCHASE, OperationKind.TAP, OperationKind.COMPLETION})
VOIDABLE = PURCHASES | {OperationKind.CASH_WITHDRAWAL}


class FollowUps:
    """Decides operations that name an original."""

    def __init__(self, book: RuleBook) -> None:
        self._book = book

    def decide(self, operation: MoneyOperation, batch: Batch, originals: Originals) -> Outcome:
        """Decides one; changes working copies."""
        key = operation.original
        assert key is not None, "a follow-up names its original"
        original = originals.find(key, operation, batch)
        match operation.kind:
            case OperationKind.REVERSAL:
                terminal = self._book.terminals.get((operation.participant_id, operation.terminal_id))
                reason = judge_message(operation, batch, terminal)
                effect = Effect(reason) if reason else decide_reversal(operation, batch, originals, original)
            case OperationKind.VOID:
                effect = self._void(operation, batch, originals, original)
            case OperationKind.REFUND:
                effect = self._refund(operation, batch, original)
            case OperationKind.INCREMENT:
                effect = self._increment(operation, batch, originals, original)
            case kind:
                assert kind is OperationKind.COMPLETION, "no other kind follows"
                effect = self._complete(operation, batch, originals, original)
        if effect.reason in APPROVALS and original is not None and original.account_id is not None:
            # Its money was moved in the original's wallet, whichever the request names: what follows it must find that.
            operation.account_id = original.account_id
        message = answer(
            batch, effect.reason, approved_minor=effect.approved_minor, held_minor=effect.held_minor
        )
        return Outcome(
            message,
            effect.reason,
            RESPONSE_CODES[effect.reason],
            effect.postings,
            approved_minor=effect.approved_minor,
            original_operation_id=original.operation_id if original is not None else None,
            tombstone=effect.tombstone,
        )

    def _complete(
        self, operation: MoneyOperation, batch: Batch, originals: Originals, original: Original | None
    ) -> Effect:
        """Takes held money; an advice takes it whatever the hold's state, and the hold's own money first."""
        money = operation.money
        assert money is not None, "every money operation has an amount"
        card = _card(operation, batch)
        reason = judge_place(self._book, operation, batch) or judge_card(
            operation, batch, card, NO_LIMIT, earlier=None
        )
        found, hold = _held(operation, originals, original)
        if found is not None and (reason is None or (operation.is_advice and reason in FORCED_OVER)):
            # No original, nothing to take from: an advice cannot be forced over that.
            return Effect(found)
        assert hold is not None or found is not None or reason is not None, "found above"
        amount = money.amount_minor
        if hold is not None:
            reason = reason or _reason_of_hold(hold, batch)
            most = rules.capture_max_minor(
                self._book.limits[Channel.PRE_AUTHORIZATION],
                merchant_of(self._book, operation),
                held_minor=hold.held_minor,
                authorized_minor=hold.authorized_minor,
            )
            if reason is None and amount > most:
                reason = Reason.ORIGINAL_AMOUNT_EXCEEDED
            account = batch.accounts.get(hold.account_id)
            if reason is None and amount > hold.held_minor + available(account):
                reason = Reason.INSUFFICIENT_FUNDS
        is_forced = operation.is_advice and reason in FORCED_OVER and hold is not None
        if reason is not None and not is_forced:
            return Effect(reason)
        assert hold is not None, "found above"
        if is_forced:
            money.flags = FLAG_ADVICE | FLAG_FORCED
        account = batch.account(hold.account_id, card_id=hold.card_id, shard=hold.shard)
        _release(hold, account, min(amount, hold.held_minor))
        postings = take(operation, account, amount, to_account_id=operation.settlement_account_id)
        hold.captured_minor += amount
        if not operation.more_completions_follow:
            _release(hold, account, hold.held_minor)
        # An expired or voided hold stays what it is: a forced completion does not bring it back.
        if hold.state is HoldState.PENDING:
            hold.settle_state(HoldState.CAPTURED)
        return Effect(
            Reason.FORCED_POST if is_forced else Reason.APPROVED, amount, postings, held_minor=hold.held_minor
        )

    def _increment(
        self, operation: MoneyOperation, batch: Batch, originals: Originals, original: Original | None
    ) -> Effect:
        """Holds more."""
        money, channel = operation.money, Channel.PRE_AUTHORIZATION
        assert money is not None, "every money operation has an amount"
        card = _card(operation, batch)
        limit, amount = self._book.limits[channel], money.amount_minor
        reason = judge_place(self._book, operation, batch) or judge_card(
            operation, batch, card, NO_LIMIT, earlier=None
        )
        if reason is not None:
            return Effect(reason)
        found, hold = _held(operation, originals, original)
        if found is not None or hold is None:
            return Effect(found or Reason.ORIGINAL_NOT_FOUND)
        assert card is not None, "an unknown card was declined above"
        usage = Usage(card.usage, batch.business_date)
        now_s = int(batch.now.timestamp())
        account = batch.accounts.get(hold.account_id)
        reason = _reason_of_hold(hold, batch) or rules.reason_of_limits(
            card, usage, limit, channel, amount_minor=amount, now_s=now_s
        )
        if reason is None and amount > available(account):
            reason = Reason.INSUFFICIENT_FUNDS
        if reason is not None:
            return Effect(reason)
        assert account is not None, "a wallet that something is held in has a row"
        usage.add(channel, amount, now_s=now_s, window_s=limit.velocity_window_s)
        card.usage, card.changed = usage.pack(), True
        account.held_minor += amount
        account.changed = True
        hold.held_minor += amount
        hold.authorized_minor += amount
        hold.changed = True
        return Effect(Reason.APPROVED, amount, held_minor=hold.held_minor)

    def _void(
        self, operation: MoneyOperation, batch: Batch, originals: Originals, original: Original | None
    ) -> Effect:
        """Undoes an operation of the same business date whole, or releases what a hold still holds."""
        card = _card(operation, batch)
        reason = judge_place(self._book, operation, batch) or judge_crediting(operation, card)
        if reason is not None:
            return Effect(reason)
        assert card is not None, "an unknown card was declined above"
        if original is None or not original.is_of(operation):
            return Effect(Reason.ORIGINAL_NOT_FOUND)
        if original.kind is OperationKind.PRE_AUTHORIZATION:
            return _release_hold(operation, batch, originals, original, card)
        if not original.was_approved or original.kind not in VOIDABLE:
            return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
        if original.business_date != batch.business_date:
            return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
        if not original.left_minor:
            return Effect(Reason.ORIGINAL_ALREADY_UNDONE)
        if original.left_minor != original.approved_minor:
            return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
        assert original.account_id is not None, "approved on a wallet"
        account = batch.account(original.account_id, card_id=card.card_id, shard=card.shard)
        amount = original.left_minor
        postings = give(
            operation,
            account,
            amount,
            from_account_id=operation.settlement_account_id,
            suspense_minor=original.suspense_left_minor,
        )
        original.reversed_minor += amount
        original.changed = True
        original.give_back_usage(card, amount, batch, is_whole=True)
        return Effect(Reason.APPROVED, amount, postings)

    def _refund(self, operation: MoneyOperation, batch: Batch, original: Original | None) -> Effect:
        """Gives back part or all of a purchase, on whatever day."""
        money = operation.money
        assert money is not None, "every money operation has an amount"
        card, amount = _card(operation, batch), money.amount_minor
        reason = judge_place(self._book, operation, batch) or judge_crediting(operation, card)
        is_forced = operation.is_advice and reason in FORCED_OVER and card is not None
        if reason is not None and not is_forced:
            return Effect(reason)
        assert card is not None, "an unknown card was declined above"
        if original is None or not original.is_of(operation):
            return Effect(Reason.ORIGINAL_NOT_FOUND)
        if not original.was_approved or original.kind not in PURCHASES:
            return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
        if not original.left_minor:
            return Effect(Reason.ORIGINAL_ALREADY_UNDONE)
        # An advice cannot pass this: the sum is bounded whatever happened.
        if amount > original.left_minor:
            return Effect(Reason.ORIGINAL_AMOUNT_EXCEEDED)
        if is_forced:
            money.flags = FLAG_ADVICE | FLAG_FORCED
        assert original.account_id is not None, "approved on a wallet"
        account = batch.account(original.account_id, card_id=card.card_id, shard=card.shard)
        postings = give(
            operation,
            account,
            amount,
            from_account_id=operation.settlement_account_id,
            suspense_minor=original.suspense_left_minor,
        )
        original.refunded_minor += amount
        original.changed = True
        return Effect(Reason.FORCED_POST if is_forced else Reason.APPROVED, amount, postings)


def _card(operation: MoneyOperation, batch: Batch) -> CardState | None:
    return batch.cards.get(operation.card_id) if operation.card_id is not None else None


def _held(
    operation: MoneyOperation, originals: Originals, original: Original | None
) -> tuple[Reason | None, Hold | None]:
    """The hold of a pre-authorization that is followed, or why there is none."""
    if original is None or not original.is_of(operation):
        return Reason.ORIGINAL_NOT_FOUND, None
    hold = originals.holds.get(original.operation_id)
    return (Reason.ORIGINAL_NOT_ELIGIBLE, None) if hold is None else (None, hold)


def _reason_of_hold(hold: Hold, batch: Batch) -> Reason | None:
    if hold.state is HoldState.EXPIRED or (hold.state is HoldState.PENDING and batch.now >= hold.expires_at):
        return Reason.HOLD_EXPIRED
    return None if hold.state is HoldState.PENDING else Reason.HOLD_NOT_PENDING


def _release(hold: Hold, account: Account, amount_minor: int) -> None:
    hold.held_minor -= amount_minor
    account.held_minor -= amount_minor
    hold.changed = account.changed = True


def _release_hold(
    operation: MoneyOperation, batch: Batch, originals: Originals, original: Original, card: CardState
) -> Effect:
    hold = originals.holds.get(original.operation_id)
    if hold is None:
        return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
    if (reason := _reason_of_hold(hold, batch)) is not None:
        return Effect(reason)
    account = batch.accounts[hold.account_id]
    amount = hold.held_minor
    _release(hold, account, amount)
    hold.settle_state(HoldState.VOIDED)
    original.give_back_usage(card, amount, batch, is_whole=hold.is_released)
    return Effect(Reason.APPROVED, amount)
