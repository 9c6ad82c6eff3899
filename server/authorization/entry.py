"""How a card enters a money operation, and whether that proves it: asked before the lock, judged under it."""

from crypto.card_code import CardCodeUse
from server.authorization.credentials import Credentials, PresentedCode
from server.authorization.operations import MoneyOperation
from server.authorization.rules import (
    FORCED_OVER,
    OF_CODE,
    OF_PIN,
    Reason,
    pin_is_required,
    reason_of_acceptance,
    reason_of_card,
    reason_of_crediting,
    reason_of_mac,
    reason_of_switch_key,
)
from server.cards.card_tokens import token_in_force
from server.cards.pin_rules import judge_pin, require_comparable
from server.cards.presented import require_checked
from server.cards.rules import advance_atc
from server.cards.single_use import TokenVerdict, judge_token
from server.engine.operation import Batch, CardState
from server.rulebook.book import RuleBook
from server.rulebook.rules import LimitRule, MerchantRule, TerminalRule


def merchant_of(book: RuleBook, operation: MoneyOperation) -> MerchantRule | None:
    """The merchant as its acquirer registered it; None for one that is not."""
    money = operation.money
    assert money is not None, "every money operation has an amount"
    return book.merchants.get((operation.participant_id, money.merchant_id))


def judge_place(book: RuleBook, operation: MoneyOperation, batch: Batch) -> Reason | None:
    """Whether the message is new and unchanged, and its terminal and merchant may send it; None when it may go on."""
    money = operation.money
    assert money is not None, "every money operation has an amount"
    participant_id = operation.participant_id
    terminal = book.terminals.get((participant_id, operation.terminal_id))
    return judge_message(operation, batch, terminal) or reason_of_acceptance(
        book.acceptance.get(participant_id),
        terminal,
        merchant_of(book, operation),
        kind=operation.kind,
        has_merchant=bool(money.merchant_id),
    )


def judge_message(operation: MoneyOperation, batch: Batch, terminal: TerminalRule | None) -> Reason | None:
    """Whether the message is new, and as its sender made it."""
    mac = operation.credentials.mac if operation.credentials is not None else None
    if mac is None and terminal is None:
        return reason_of_switch_key(batch.switch_key_holder)
    return reason_of_switch_key(batch.switch_key_holder) or reason_of_mac(
        terminal,
        key_name=mac.key_name if mac is not None else None,
        fits=mac is not None and mac.fits,
    )


def judge_crediting(operation: MoneyOperation, card: CardState | None) -> Reason | None:
    """Whether money may still come to the card by way of right, under a token that was revoked too."""
    return _reason_of_no_card(operation) if card is None else reason_of_crediting(card)


def judge_card(
    operation: MoneyOperation,
    batch: Batch,
    card: CardState | None,
    limit: LimitRule,
    *,
    earlier: Reason | None,
) -> Reason | None:
    """Judges the card and what it presents: ``earlier`` where that was found before, else a reason, or None to go on.

    The transaction counter moves on every valid cryptogram, whatever the decision, unless the message was changed on
    its way. A PIN is counted, and a code used up, only when nothing before it was wrong.

    Raises:
        OneCardError: the key store did not answer, or a PIN cannot be compared; nothing was changed.
    """
    facts, cryptogram, credentials = operation.facts, operation.cryptogram, operation.credentials
    is_genuine = is_fresh = True
    if cryptogram is not None:
        require_checked(cryptogram)
        is_genuine = cryptogram.verified is not None
        # Anew: a batch that lost a race is decided again.
        cryptogram.is_fresh = False
    reason = earlier
    if reason is None and credentials is not None:
        reason = _reason_of_naming(operation, credentials, batch, card)
    reason = reason or reason_of_card(
        card, expires_on=facts.expires_on if facts is not None else None, today=batch.today
    )
    pin = credentials.pin if credentials is not None else None
    if pin is not None and card is not None and reason is None and is_genuine:
        require_comparable(batch.pins.get(card.card_id), pin.references)
    # From here on nothing is raised any more.
    if (
        cryptogram is not None
        and is_genuine
        and card is not None
        and earlier is not Reason.MESSAGE_MAC_INVALID
    ):
        is_fresh = cryptogram.is_fresh = advance_atc(card, cryptogram.check.atc)
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
    assert card is not None, "an unknown card was declined above"
    if credentials is not None and (code := credentials.code) is not None:
        reason = _use_code(code, batch)
    if pin is not None:
        reason = OF_PIN[judge_pin(card, batch.pins.get(card.card_id), pin.references)]
    elif reason is None and not operation.is_advice:
        money = operation.money
        assert money is not None, "every money operation has an amount"
        if pin_is_required(limit, amount_minor=money.amount_minor):
            reason = Reason.PIN_REQUIRED
    return reason


def _reason_of_no_card(operation: MoneyOperation) -> Reason:
    """Why no card was found: by what should have named it."""
    credentials = operation.credentials
    if credentials is None or (credentials.code is not None and credentials.code.code is not None):
        return Reason.UNKNOWN_CARD
    if credentials.code is not None:
        return Reason.CARD_CODE_INVALID
    return Reason.CARD_TOKEN_UNKNOWN if credentials.token_index is not None else Reason.UNKNOWN_CARD


def _reason_of_naming(
    operation: MoneyOperation, credentials: Credentials, batch: Batch, card: CardState | None
) -> Reason | None:
    """Whether what names the card may: a token of the caller's own is read under the card's lock."""
    if card is None:
        return _reason_of_no_card(operation)
    index = credentials.token_index
    if index is not None and token_in_force(batch, index) is None:
        return Reason.CARD_TOKEN_UNKNOWN
    return None


def _use_code(code: PresentedCode, batch: Batch) -> Reason | None:
    """Judges the code of a payment, and uses it up when it is genuine, whatever becomes of the payment."""
    assert code.code is not None, "a code that does not open names no card"
    if code.code.use is not CardCodeUse.PAYMENT:
        code.verdict = TokenVerdict.INVALID
    else:
        code.verdict = judge_token(
            code.code.issued_at_s, used=code.digest in batch.spent_tokens, now=batch.now, life_s=code.life_s
        )
    if code.verdict is TokenVerdict.GENUINE:
        batch.spent_tokens.add(code.digest)
    return OF_CODE[code.verdict]
