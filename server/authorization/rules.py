"""Pure decisions over money: reasons in one enum ordered by precedence, each with its response code.

The first reason that applies is the answer. No I/O and no clock.
"""

from datetime import date
from enum import IntEnum

from server.authorization.usage import Usage
from server.cards.pin_rules import PinVerdict
from server.cards.rules import CardStatus, is_expired
from server.cards.single_use import TokenVerdict
from server.engine.operation import CardState, OperationKind
from server.rulebook.rules import (
    AcceptanceRule,
    Channel,
    LimitRule,
    MerchantRule,
    TerminalRule,
    WalletRule,
)


class Reason(IntEnum):
    """``onecard.v1.DecisionReason``, in ascending order of precedence; numbers are stored and never change."""

    APPROVED = 1
    PARTIALLY_APPROVED = 15
    FORCED_POST = 16
    REVERSAL_PARKED = 17
    REVERSED_IN_ADVANCE = 18
    DUPLICATE_TRANSMISSION = 2
    MESSAGE_MAC_INVALID = 19
    TERMINAL_UNKNOWN = 20
    TERMINAL_NOT_PERMITTED = 21
    MERCHANT_INVALID = 22
    UNKNOWN_CARD = 3
    CARD_TOKEN_UNKNOWN = 23
    CARD_CANCELLED = 4
    CARD_LOST = 5
    CARD_TEMPORARILY_LOST = 6
    APPLICATION_LOCKED = 7
    CARD_SEALED = 8
    CARD_EXPIRED = 9
    CARD_CODE_INVALID = 24
    CARD_CODE_EXPIRED = 25
    CARD_CODE_USED = 26
    CRYPTOGRAM_INVALID = 10
    ATC_REPLAYED = 11
    PIN_REQUIRED = 27
    NO_PIN = 28
    PIN_TRIES_EXCEEDED = 29
    PIN_BLOCK_INVALID = 30
    WRONG_PIN = 31
    ORIGINAL_NOT_FOUND = 32
    ORIGINAL_NOT_ELIGIBLE = 33
    ORIGINAL_ALREADY_UNDONE = 34
    HOLD_NOT_PENDING = 35
    HOLD_EXPIRED = 36
    ORIGINAL_AMOUNT_EXCEEDED = 37
    WALLET_NOT_ALLOWED = 38
    DESTINATION_UNAVAILABLE = 39
    TRANSACTION_AMOUNT_LIMIT = 12
    DAY_AMOUNT_LIMIT = 13
    MONTH_AMOUNT_LIMIT = 40
    DAY_COUNT_LIMIT = 41
    MONTH_COUNT_LIMIT = 42
    VELOCITY_LIMIT = 43
    INSUFFICIENT_FUNDS = 14


RESPONSE_CODES: dict[Reason, str] = {
    Reason.APPROVED: "00",
    Reason.PARTIALLY_APPROVED: "10",
    Reason.FORCED_POST: "00",
    Reason.REVERSAL_PARKED: "00",
    Reason.REVERSED_IN_ADVANCE: "05",
    Reason.DUPLICATE_TRANSMISSION: "94",
    Reason.MESSAGE_MAC_INVALID: "A0",
    Reason.TERMINAL_UNKNOWN: "97",
    Reason.TERMINAL_NOT_PERMITTED: "58",
    Reason.MERCHANT_INVALID: "03",
    Reason.UNKNOWN_CARD: "14",
    Reason.CARD_TOKEN_UNKNOWN: "14",
    Reason.CARD_CANCELLED: "14",
    Reason.CARD_LOST: "41",
    Reason.CARD_TEMPORARILY_LOST: "41",
    Reason.APPLICATION_LOCKED: "62",
    Reason.CARD_SEALED: "57",
    Reason.CARD_EXPIRED: "54",
    Reason.CARD_CODE_INVALID: "05",
    Reason.CARD_CODE_EXPIRED: "05",
    Reason.CARD_CODE_USED: "05",
    Reason.CRYPTOGRAM_INVALID: "05",
    Reason.ATC_REPLAYED: "05",
    Reason.PIN_REQUIRED: "55",
    Reason.NO_PIN: "57",
    Reason.PIN_TRIES_EXCEEDED: "75",
    Reason.PIN_BLOCK_INVALID: "A7",
    Reason.WRONG_PIN: "55",
    Reason.ORIGINAL_NOT_FOUND: "25",
    Reason.ORIGINAL_NOT_ELIGIBLE: "12",
    Reason.ORIGINAL_ALREADY_UNDONE: "94",
    Reason.HOLD_NOT_PENDING: "12",
    Reason.HOLD_EXPIRED: "12",
    Reason.ORIGINAL_AMOUNT_EXCEEDED: "64",
    Reason.WALLET_NOT_ALLOWED: "57",
    Reason.DESTINATION_UNAVAILABLE: "14",
    Reason.TRANSACTION_AMOUNT_LIMIT: "61",
    Reason.DAY_AMOUNT_LIMIT: "61",
    Reason.MONTH_AMOUNT_LIMIT: "61",
    Reason.DAY_COUNT_LIMIT: "65",
    Reason.MONTH_COUNT_LIMIT: "65",
    Reason.VELOCITY_LIMIT: "65",
    Reason.INSUFFICIENT_FUNDS: "51",
}
OF_PIN: dict[PinVerdict, Reason | None] = {
    PinVerdict.ACCEPTED: None,
    PinVerdict.NO_PIN: Reason.NO_PIN,
    PinVerdict.TRIES_EXCEEDED: Reason.PIN_TRIES_EXCEEDED,
    PinVerdict.BLOCK_INVALID: Reason.PIN_BLOCK_INVALID,
    PinVerdict.WRONG: Reason.WRONG_PIN,
}
OF_CODE: dict[TokenVerdict, Reason | None] = {
    TokenVerdict.GENUINE: None,
    TokenVerdict.INVALID: Reason.CARD_CODE_INVALID,
    TokenVerdict.EXPIRED: Reason.CARD_CODE_EXPIRED,
    TokenVerdict.USED: Reason.CARD_CODE_USED,
}
# With these nobody hears what the card holds, whatever its chip proved: a finder has the chip too.
TELLING_NOTHING = frozenset(
    {
        Reason.MESSAGE_MAC_INVALID,
        Reason.CARD_LOST,
        Reason.CARD_TEMPORARILY_LOST,
        Reason.CARD_CANCELLED,
        Reason.PIN_REQUIRED,
        *(reason for reason in OF_PIN.values() if reason),
    }
)
# With these the operation took place.
APPROVALS = frozenset(
    {Reason.APPROVED, Reason.PARTIALLY_APPROVED, Reason.FORCED_POST, Reason.REVERSAL_PARKED}
)
# What an advice is posted against: it has happened already, and no online decision can undo that. Not among them are
# doubts whether it happened at all, or on this card.
FORCED_OVER = frozenset(
    {
        Reason.TERMINAL_UNKNOWN,
        Reason.TERMINAL_NOT_PERMITTED,
        Reason.MERCHANT_INVALID,
        # Of a card that is known: its token was revoked.
        Reason.CARD_TOKEN_UNKNOWN,
        Reason.CARD_CANCELLED,
        Reason.CARD_LOST,
        Reason.CARD_TEMPORARILY_LOST,
        Reason.APPLICATION_LOCKED,
        Reason.CARD_SEALED,
        Reason.CARD_EXPIRED,
        Reason.PIN_REQUIRED,
        Reason.HOLD_NOT_PENDING,
        Reason.HOLD_EXPIRED,
        Reason.ORIGINAL_AMOUNT_EXCEEDED,
        Reason.WALLET_NOT_ALLOWED,
        Reason.TRANSACTION_AMOUNT_LIMIT,
        Reason.DAY_AMOUNT_LIMIT,
        Reason.MONTH_AMOUNT_LIMIT,
        Reason.DAY_COUNT_LIMIT,
        Reason.MONTH_COUNT_LIMIT,
        Reason.VELOCITY_LIMIT,
        Reason.INSUFFICIENT_FUNDS,
    }
)
_OF_STATUS: dict[int, Reason] = {
    CardStatus.CANCELLED: Reason.CARD_CANCELLED,
    CardStatus.LOST: Reason.CARD_LOST,
    CardStatus.TEMPORARILY_LOST: Reason.CARD_TEMPORARILY_LOST,
    CardStatus.APPLICATION_LOCKED: Reason.APPLICATION_LOCKED,
    CardStatus.SEALED: Reason.CARD_SEALED,
}


def reason_of_switch_key(holder: OperationKind | None) -> Reason | None:
    """Whether the switch key is free; ``holder`` is the kind of operation that has it."""
    if holder is None:
        return None
    return Reason.REVERSED_IN_ADVANCE if holder is OperationKind.TOMBSTONE else Reason.DUPLICATE_TRANSMISSION


def reason_of_acceptance(
    acceptance: AcceptanceRule | None,
    terminal: TerminalRule | None,
    merchant: MerchantRule | None,
    *,
    kind: OperationKind,
    has_merchant: bool,
) -> Reason | None:
    """Whether terminal and merchant, as registered by their acquirer, may do this; None is unregistered."""
    if terminal is None:
        if acceptance is not None and acceptance.terminals_registered:
            return Reason.TERMINAL_UNKNOWN
    elif terminal.is_blocked or (kind is OperationKind.CASH_WITHDRAWAL and not terminal.gives_cash):
        return Reason.TERMINAL_NOT_PERMITTED
    if merchant is None:
        if has_merchant and acceptance is not None and acceptance.merchants_registered:
            return Reason.MERCHANT_INVALID
    elif merchant.is_blocked:
        return Reason.MERCHANT_INVALID
    return None


def reason_of_card(card: CardState | None, *, expires_on: date | None, today: date) -> Reason | None:
    """Whether the card may be used."""
    if card is None or expires_on is None:
        return Reason.UNKNOWN_CARD
    if card.status != CardStatus.NORMAL:
        return _OF_STATUS[card.status]
    return Reason.CARD_EXPIRED if is_expired(expires_on, today) else None


def reason_of_crediting(card: CardState | None) -> Reason | None:
    """Whether money may still come to the card by way of right: a lost or expired card's wallet is the holder's."""
    if card is None:
        return Reason.UNKNOWN_CARD
    return Reason.CARD_CANCELLED if card.status == CardStatus.CANCELLED else None


def reason_of_wallet(
    wallet: WalletRule | None, merchant: MerchantRule | None, kind: OperationKind
) -> Reason | None:
    """Whether the wallet is for this operation, at this merchant."""
    if wallet is None:
        return Reason.WALLET_NOT_ALLOWED
    allowed = True
    if kind is OperationKind.CASH_WITHDRAWAL:
        allowed = wallet.cash
    elif kind is OperationKind.TRANSFER:
        allowed = wallet.transfer
    elif kind is OperationKind.DEPOSIT:
        allowed = wallet.deposit
    elif wallet.merchant_categories and kind in _AT_MERCHANTS:
        allowed = merchant is not None and merchant.category in wallet.merchant_categories
    return None if allowed else Reason.WALLET_NOT_ALLOWED


_AT_MERCHANTS = frozenset({OperationKind.PURCHASE, OperationKind.TAP, OperationKind.PRE_AUTHORIZATION})


def reason_of_limits(
    card: CardState, usage: Usage, limit: LimitRule, channel: Channel, *, amount_minor: int, now_s: int
) -> Reason | None:
    """Whether the amount stays within the card's limits and the channel's."""
    if amount_minor > card.transaction_amount_max_minor or _passes(
        amount_minor, limit.transaction_amount_max_minor
    ):
        return Reason.TRANSACTION_AMOUNT_LIMIT
    day_count, month_count, day_amount, month_amount = usage.of(channel)
    if usage.day_amount_minor + amount_minor > card.day_amount_max_minor or _passes(
        day_amount + amount_minor, limit.day_amount_max_minor
    ):
        return Reason.DAY_AMOUNT_LIMIT
    if _passes(month_amount + amount_minor, limit.month_amount_max_minor):
        return Reason.MONTH_AMOUNT_LIMIT
    if _passes(day_count + 1, limit.day_count_max):
        return Reason.DAY_COUNT_LIMIT
    if _passes(month_count + 1, limit.month_count_max):
        return Reason.MONTH_COUNT_LIMIT
    if limit.velocity_count_max is not None:
        in_window = usage.in_window(channel, now_s=now_s, window_s=limit.velocity_window_s)
        if in_window + 1 > limit.velocity_count_max:
            return Reason.VELOCITY_LIMIT
    return None


def _passes(value: int, maximum: int | None) -> bool:
    return maximum is not None and value > maximum


def reason_of_mac(terminal: TerminalRule | None, *, key_name: str | None, fits: bool) -> Reason | None:
    """Whether the message is as its sender made it; ``key_name`` is None when it came without a code."""
    demanded = terminal.mac_key if terminal is not None else ""
    if key_name is None:
        return Reason.MESSAGE_MAC_INVALID if demanded else None
    return None if fits and demanded in {"", key_name} else Reason.MESSAGE_MAC_INVALID


def pin_is_required(limit: LimitRule, *, amount_minor: int) -> bool:
    """Whether the channel asks for a PIN at this amount."""
    return limit.pin_required_above_minor is not None and amount_minor > limit.pin_required_above_minor


def capture_max_minor(
    limit: LimitRule, merchant: MerchantRule | None, *, held_minor: int, authorized_minor: int
) -> int:
    """The most that a completion may take: what is held, and the tolerance over what was authorized."""
    percent = limit.capture_tolerance_percent
    if merchant is not None and merchant.capture_tolerance_percent is not None:
        percent = merchant.capture_tolerance_percent
    return held_minor + authorized_minor * percent // 100
