"""Reversals: an operation whose answer did not arrive is undone, whether or not it took place.

A reversal is never refused for what the card, its holder or the terminal are now. One that comes before its original
leaves a tombstone, by which the late original is declined: both orders come to the same money.
"""

from server.authorization.answers import answer
from server.authorization.movements import give, take
from server.authorization.operations import MoneyOperation
from server.authorization.originals import Effect, Hold, HoldState, Original, Originals
from server.authorization.rules import RESPONSE_CODES, Reason
from server.engine.operation import Account, Batch, OperationKind, Posting, Tombstone
from server.engine.writer import new_request_id

_DEBITS = frozenset(
    {
        OperationKind.PURCHASE,
        OperationKind.TAP,
        OperationKind.CASH_WITHDRAWAL,
        OperationKind.COMPLETION,
    }
)
_GIVEN_BACK = frozenset({OperationKind.REFUND, OperationKind.VOID})
_CREDITS = frozenset({OperationKind.DEPOSIT, OperationKind.BENEFIT_CREDIT}) | _GIVEN_BACK


def decide_reversal(
    operation: MoneyOperation, batch: Batch, originals: Originals, original: Original | None
) -> Effect:
    """Decides a reversal whose message is in order; ``original`` is what it names, of whatever card and caller."""
    if original is None:
        return _park(operation, batch, originals)
    if original.kind is OperationKind.TOMBSTONE and original.participant_id == operation.participant_id:
        return Effect(Reason.ORIGINAL_ALREADY_UNDONE)
    if original.participant_id != operation.participant_id:
        return Effect(Reason.ORIGINAL_NOT_FOUND)
    # One that was declined for an unknown card has none.
    if original.card_id != operation.card_id and (original.was_approved or original.card_id is not None):
        return Effect(Reason.ORIGINAL_NOT_FOUND)
    if not original.was_approved or original.kind is OperationKind.BALANCE_INQUIRY:
        # It moved nothing: there is nothing to undo, and that is what the caller wants.
        return Effect(Reason.APPROVED)
    if original.kind is OperationKind.PRE_AUTHORIZATION:
        return _undo_hold(operation, batch, originals.holds.get(original.operation_id), original)
    money = operation.money
    assert money is not None, "every money operation has an amount"
    if not _can_be_undone(operation, originals, original):
        return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
    left = original.left_minor
    if not left:
        return Effect(Reason.ORIGINAL_ALREADY_UNDONE)
    amount = money.amount_minor or left
    if original.was_partial:
        # Whoever got no answer does not know that only a part was approved.
        amount = min(amount, left)
    if amount > left:
        return Effect(Reason.ORIGINAL_AMOUNT_EXCEEDED)
    if original.kind is OperationKind.INCREMENT:
        return _undo_increment(operation, batch, originals, original, amount)
    if original.kind in _DEBITS:
        postings = _undo_debit(operation, batch, originals, original, amount)
    elif original.kind is OperationKind.TRANSFER:
        postings = _undo_transfer(operation, batch, original, amount)
    else:
        postings = _undo_credit(operation, batch, originals, original, amount)
    _take_back(operation, batch, original, amount)
    return Effect(Reason.APPROVED, amount, postings)


def _can_be_undone(operation: MoneyOperation, originals: Originals, original: Original) -> bool:
    """Not what undid something without moving money, and a transfer only with the card that money went to."""
    if original.kind is OperationKind.TRANSFER:
        other = operation.other_facts
        return other is not None and other.account_id == original.credit_account_id
    if original.kind in _GIVEN_BACK:
        parent = originals.get(original.original_operation_id)
        return parent is not None and parent.kind is not OperationKind.PRE_AUTHORIZATION
    return original.kind in _DEBITS | _CREDITS or original.kind is OperationKind.INCREMENT


def _park(operation: MoneyOperation, batch: Batch, originals: Originals) -> Effect:
    """Keeps the place of an original that has not come, under whatever names it.

    The switch key only where it is free, and only that of the present business date: another operation may use the same
    STAN today.
    """
    key = operation.original
    assert key is not None, "a reversal names its original"
    if key.request_id is None and (key.operation_id is not None or key.stan is None):
        # An RRN is ours: what it does not name will not come.
        return Effect(Reason.ORIGINAL_NOT_FOUND)
    late = Reason.REVERSED_IN_ADVANCE
    message = answer(batch, late, operation_id=batch.operation_id + 1)
    is_of_today = key.business_date in {None, batch.business_date}
    has_place = is_of_today and not originals.has_switch_key(key, business_date=batch.business_date)
    return Effect(
        Reason.REVERSAL_PARKED,
        tombstone=Tombstone(
            request_id=key.request_id or new_request_id(),
            terminal_id=key.terminal_id,
            stan=key.stan if has_place else None,
            mti_class=key.mti_class if has_place and key.stan is not None else None,
            reason=late,
            response_code=RESPONSE_CODES[late],
            response=message.SerializeToString(),
        ),
    )


def _account(batch: Batch, original: Original) -> Account:
    assert original.account_id is not None, "approved on a wallet"
    assert original.card_id is not None, "a wallet is a card's"
    return batch.account(original.account_id, card_id=original.card_id, shard=original.shard)


def _take_back(operation: MoneyOperation, batch: Batch, original: Original, amount: int) -> None:
    original.reversed_minor += amount
    original.changed = True
    card = batch.cards.get(operation.card_id) if operation.card_id is not None else None
    if card is not None:
        original.give_back_usage(card, amount, batch, is_whole=not original.left_minor)


def _undo_debit(
    operation: MoneyOperation, batch: Batch, originals: Originals, original: Original, amount: int
) -> tuple[Posting, ...]:
    account = _account(batch, original)
    postings = give(
        operation,
        account,
        amount,
        from_account_id=operation.settlement_account_id,
        suspense_minor=original.suspense_left_minor,
    )
    if original.kind is OperationKind.COMPLETION:
        returned = sum(p.amount_minor for p in postings if p.credit_account_id == account.account_id)
        hold = originals.holds.get(original.original_operation_id or 0)
        _hold_again(batch, hold, account, amount, returned_minor=returned)
    return postings


def _hold_again(
    batch: Batch, hold: Hold | None, account: Account, amount: int, *, returned_minor: int
) -> None:
    """Holds what a reversed completion gives back while the hold would still run: the completion may be repeated.

    Never other money than came back to the wallet, and never more than was authorized: the tolerance is not held.
    """
    if hold is None:
        return
    hold.captured_minor -= min(amount, hold.captured_minor)
    hold.changed = True
    is_open = hold.state in {HoldState.PENDING, HoldState.CAPTURED} and batch.now < hold.expires_at
    left = max(0, hold.authorized_minor - hold.captured_minor - hold.held_minor)
    held = min(returned_minor, left) if is_open else 0
    hold.held_minor += held
    account.held_minor += held
    if is_open:
        hold.settle_state(HoldState.REVERSED)


def _undo_credit(
    operation: MoneyOperation, batch: Batch, originals: Originals, original: Original, amount: int
) -> tuple[Posting, ...]:
    """Takes a credit back."""
    suspense = 0
    if original.kind in _GIVEN_BACK:
        parent = originals.get(original.original_operation_id)
        assert parent is not None, "what has no parent cannot be undone"
        # What was given back counts as taken again, from where it had come.
        suspense = -parent.suspense_left_minor
        if original.kind is OperationKind.REFUND:
            parent.refunded_minor -= amount
        else:
            parent.reversed_minor -= amount
            card = batch.cards.get(operation.card_id) if operation.card_id is not None else None
            if card is not None:
                parent.use_again(card, amount, batch)
        suspense += parent.suspense_left_minor
        parent.changed = True
    is_benefit = original.kind is OperationKind.BENEFIT_CREDIT
    source = operation.fund_account_id if is_benefit else operation.settlement_account_id
    account = _account(batch, original)
    return take(operation, account, amount, to_account_id=source, suspense_minor=suspense)


def _undo_transfer(
    operation: MoneyOperation, batch: Batch, original: Original, amount: int
) -> tuple[Posting, ...]:
    """Takes the money back from the card it went to, as far as it is there."""
    other = operation.other_facts
    assert other is not None, "without that card it cannot be undone"
    sender = _account(batch, original)
    receiver = batch.account(other.account_id, card_id=other.card_id, shard=other.shard)
    sender.posted_minor += amount
    sender.changed = True
    return take(operation, receiver, amount, to_account_id=sender.account_id)


def _undo_hold(operation: MoneyOperation, batch: Batch, hold: Hold | None, original: Original) -> Effect:
    """Releases what is held; in part where the reversal says less."""
    money = operation.money
    assert money is not None, "every money operation has an amount"
    assert hold is not None, "an approved pre-authorization has a hold"
    if hold.state is not HoldState.PENDING:
        is_captured = hold.state is HoldState.CAPTURED
        return Effect(Reason.ORIGINAL_NOT_ELIGIBLE if is_captured else Reason.ORIGINAL_ALREADY_UNDONE)
    amount = money.amount_minor or hold.held_minor
    if amount > hold.held_minor:
        return Effect(Reason.ORIGINAL_AMOUNT_EXCEEDED)
    _shrink(batch, hold, amount)
    hold.authorized_minor -= amount
    card = batch.cards.get(hold.card_id)
    if card is not None:
        original.give_back_usage(card, amount, batch, is_whole=hold.is_released)
    return Effect(Reason.APPROVED, amount, held_minor=hold.held_minor)


def _undo_increment(
    operation: MoneyOperation, batch: Batch, originals: Originals, original: Original, amount: int
) -> Effect:
    hold = originals.holds.get(original.original_operation_id or 0)
    if hold is None:
        # Its pre-authorization has been archived.
        return Effect(Reason.ORIGINAL_NOT_ELIGIBLE)
    if hold.state is not HoldState.PENDING:
        return Effect(Reason.HOLD_NOT_PENDING)
    amount = min(amount, hold.held_minor)
    _shrink(batch, hold, amount)
    hold.authorized_minor -= amount
    _take_back(operation, batch, original, amount)
    return Effect(Reason.APPROVED, amount, held_minor=hold.held_minor)


def _shrink(batch: Batch, hold: Hold, amount: int) -> None:
    account = batch.accounts[hold.account_id]
    hold.held_minor -= amount
    account.held_minor -= amount
    account.changed = True
    hold.settle_state(HoldState.REVERSED)
