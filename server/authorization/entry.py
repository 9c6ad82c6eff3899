"""How a card enters a money operation, and whether that proves it: asked before the lock, judged under it."""

from server.authorization.operations import MoneyOperation
from server.authorization.rules import (
    FORCED_OVER,
    Reason,
    pin_is_required,
    reason_of_acceptance,
    reason_of_card,
    reason_of_switch_key,
)
from server.cards.presented import require_checked
from server.cards.rules import advance_atc
from server.engine.operation import Batch, CardState
from server.rulebook.book import RuleBook
from server.rulebook.rules import LimitRule, MerchantRule


def merchant_of(book: RuleBook, operation: MoneyOperation) -> MerchantRule | None:
    """The merchant as its acquirer registered it; None for one that is not."""
    money = operation.money
    assert money is not None, "every money operation has an amount"
    return book.merchants.get((operation.participant_id, money.merchant_id))


def judge_place(book: RuleBook, operation: MoneyOperation, batch: Batch) -> Reason | None:
    """Whether the message is new, and its terminal and merchant may send it; None when it may go on."""
    money = operation.money
    assert money is not None, "every money operation has an amount"
    participant_id = operation.participant_id
    return reason_of_switch_key(batch.switch_key_holder) or reason_of_acceptance(
        book.acceptance.get(participant_id),
        book.terminals.get((participant_id, operation.terminal_id)),
        merchant_of(book, operation),
        kind=operation.kind,
        has_merchant=bool(money.merchant_id),
    )


def judge_card(
    operation: MoneyOperation,
    batch: Batch,
    card: CardState | None,
    limit: LimitRule,
    *,
    earlier: Reason | None,
) -> Reason | None:
    """Judges the card and what it presents: ``earlier`` where that was found before, else a reason, or None to go on.

    The transaction counter moves on every valid cryptogram, whatever the decision.

    Raises:
        UnavailableError: the key store did not answer; nothing was changed.
    """
    facts, cryptogram, money = operation.facts, operation.cryptogram, operation.money
    assert money is not None, "every money operation has an amount"
    is_genuine = is_fresh = True
    if cryptogram is not None:
        require_checked(cryptogram)
        is_genuine = cryptogram.verified is not None
        if is_genuine and card is not None:
            is_fresh = advance_atc(card, cryptogram.check.atc)
    reason = earlier or reason_of_card(
        card, expires_on=facts.expires_on if facts is not None else None, today=batch.today
    )
    doubt = None
    if not is_genuine:
        doubt = Reason.CRYPTOGRAM_INVALID
    elif not is_fresh:
        doubt = Reason.ATC_REPLAYED
    # An advice is posted over what was found so far, but not when it was not this card, or heard before.
    if doubt is not None and (reason is None or (operation.is_advice and reason in FORCED_OVER)):
        return doubt
    if reason is not None:
        return reason
    if pin_is_required(limit, amount_minor=money.amount_minor) and not operation.is_advice:
        return Reason.PIN_REQUIRED
    return None
