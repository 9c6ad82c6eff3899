"""Of several causes of a decline the first in the order of the reasons is the answer, for every kind of operation."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from money_scene import TODAY, Scene

from server.authorization.operations import MoneyOperation, OriginalKey
from server.authorization.originals import HoldState
from server.authorization.rules import RESPONSE_CODES, Reason
from server.cards.rules import CardStatus
from server.engine.operation import OperationKind as Kind
from server.rulebook.rules import AcceptanceRule, TerminalRule

STATUSES = {
    Reason.CARD_CANCELLED: CardStatus.CANCELLED,
    Reason.CARD_LOST: CardStatus.LOST,
    Reason.CARD_TEMPORARILY_LOST: CardStatus.TEMPORARILY_LOST,
    Reason.APPLICATION_LOCKED: CardStatus.APPLICATION_LOCKED,
    Reason.CARD_SEALED: CardStatus.SEALED,
}
AMOUNT = 1_000
DEBITS = (Kind.PURCHASE, Kind.CASH_WITHDRAWAL, Kind.TRANSFER, Kind.TAP, Kind.PRE_AUTHORIZATION)
FOLLOWERS = (Kind.INCREMENT, Kind.COMPLETION, Kind.VOID, Kind.REFUND, Kind.REVERSAL)


@dataclass
class Trial:
    """A scene and the operation to be decided in it."""

    scene: Scene
    kind: Kind
    operation: MoneyOperation
    original: MoneyOperation | None = None


def trial(kind: Kind, *, of_hold: bool = False) -> Trial:
    scene = Scene()
    if kind not in FOLLOWERS:
        return Trial(scene, kind, scene.operation(kind, 0 if kind is Kind.BALANCE_INQUIRY else AMOUNT))
    is_held = of_hold or kind in {Kind.INCREMENT, Kind.COMPLETION}
    original = scene.operation(Kind.PRE_AUTHORIZATION if is_held else Kind.PURCHASE, 2 * AMOUNT)
    assert scene.decide(original).reason == Reason.APPROVED
    amount = 0 if kind is Kind.VOID else AMOUNT
    return Trial(scene, kind, scene.follower(kind, original, amount), original)


def unknown_card(t: Trial) -> None:
    t.scene.card = t.operation.facts = t.operation.cryptogram = None
    t.operation.card_id = t.operation.account_id = None


def acceptance(t: Trial, **parts: bool) -> None:
    held = t.scene.book.acceptance.get("bank-01", AcceptanceRule())
    t.scene.book.acceptance["bank-01"] = replace(held, **parts)


def forge(t: Trial) -> None:
    assert t.operation.cryptogram is not None
    t.operation.cryptogram.verified = None


def replay_counter(t: Trial) -> None:
    assert t.scene.card is not None
    t.scene.card.atc_highest, t.scene.card.atc_window = 500, -1
    assert t.operation.cryptogram is not None
    t.operation.cryptogram.check = replace(t.operation.cryptogram.check, atc=500)


def ask_for_pin(t: Trial) -> None:
    for channel, rule in t.scene.book.limits.items():
        t.scene.book.limits[channel] = replace(rule, pin_required_above_minor=0)


def limit(t: Trial, **limits: int) -> None:
    for channel, rule in t.scene.book.limits.items():
        t.scene.book.limits[channel] = replace(rule, **limits)


def empty_wallet(t: Trial) -> None:
    account = t.scene.account
    account.posted_minor = account.held_minor + AMOUNT - 1


def name_nothing(t: Trial) -> None:
    t.operation.original = OriginalKey(
        request_id="nothing",
        operation_id=None,
        stan=None,
        mti_class=2,
        terminal_id="T1",
        switch_key=None,
        business_date=None,
    )


def decline_original(t: Trial) -> None:
    assert t.original is not None
    original = t.scene.original_of(t.original)
    original.response_code = "51"
    t.scene.originals.holds.pop(original.operation_id, None)


def original_of_yesterday(t: Trial) -> None:
    assert t.original is not None
    t.scene.original_of(t.original).business_date -= timedelta(days=1)


def undo_original(t: Trial) -> None:
    assert t.original is not None
    t.scene.original_of(t.original).reversed_minor = 2 * AMOUNT


def refund_most(t: Trial) -> None:
    assert t.original is not None
    t.scene.original_of(t.original).refunded_minor = AMOUNT + 1


def void_hold(t: Trial) -> None:
    assert t.original is not None
    t.scene.set_hold_state(t.original, HoldState.VOIDED)


def shrink_hold(t: Trial) -> None:
    """Leaves one 分 held, so that the amount is above it."""
    assert t.original is not None
    hold = t.scene.hold_of(t.original)
    t.scene.account.held_minor -= hold.held_minor - 1
    hold.held_minor, hold.authorized_minor = 1, 1


def overdraw(t: Trial) -> None:
    """A tolerance that admits the amount, and a wallet that has no more than the hold."""
    shrink_hold(t)
    limit(t, capture_tolerance_percent=100)
    assert t.original is not None
    t.scene.hold_of(t.original).authorized_minor = 2 * AMOUNT
    t.scene.account.posted_minor = t.scene.account.held_minor


Cause = Callable[[Trial], None]
NEW = {
    Reason.REVERSED_IN_ADVANCE: lambda t: setattr(t.scene, "switch_key_holder", Kind.TOMBSTONE),
    Reason.DUPLICATE_TRANSMISSION: lambda t: setattr(t.scene, "switch_key_holder", Kind.PURCHASE),
}
PLACE = {
    Reason.TERMINAL_UNKNOWN: lambda t: acceptance(t, terminals_registered=True),
    Reason.TERMINAL_NOT_PERMITTED: lambda t: t.scene.book.terminals.update(
        {("bank-01", "T1"): TerminalRule(is_blocked=True)}
    ),
    Reason.MERCHANT_INVALID: lambda t: acceptance(t, merchants_registered=True),
}


def in_status(status: CardStatus) -> Cause:
    return lambda t: setattr(t.scene.card, "status", status) if t.scene.card is not None else None


CARDS = {
    Reason.UNKNOWN_CARD: unknown_card,
    **{reason: in_status(status) for reason, status in STATUSES.items()},
    Reason.CARD_EXPIRED: lambda t: setattr(
        t.operation,
        "facts",
        t.operation.facts and t.operation.facts._replace(expires_on=TODAY - timedelta(1)),
    ),
}
CHIP = {Reason.CRYPTOGRAM_INVALID: forge, Reason.ATC_REPLAYED: replay_counter}
WALLET = {Reason.WALLET_NOT_ALLOWED: lambda t: t.scene.book.wallets.clear()}
LIMITS = {
    Reason.TRANSACTION_AMOUNT_LIMIT: lambda t: limit(t, transaction_amount_max_minor=AMOUNT - 1),
    Reason.DAY_AMOUNT_LIMIT: lambda t: limit(t, day_amount_max_minor=AMOUNT - 1),
    Reason.MONTH_AMOUNT_LIMIT: lambda t: limit(t, month_amount_max_minor=AMOUNT - 1),
    Reason.DAY_COUNT_LIMIT: lambda t: limit(t, day_count_max=0),
    Reason.MONTH_COUNT_LIMIT: lambda t: limit(t, month_count_max=0),
    Reason.VELOCITY_LIMIT: lambda t: limit(t, velocity_count_max=0),
}
FUNDS = {Reason.INSUFFICIENT_FUNDS: empty_wallet}
DEBIT = NEW | PLACE | CARDS | CHIP | {Reason.PIN_REQUIRED: ask_for_pin} | WALLET | LIMITS | FUNDS
NOT_FOUND = {Reason.ORIGINAL_NOT_FOUND: name_nothing}
OF_HOLD = {Reason.ORIGINAL_NOT_ELIGIBLE: decline_original, Reason.HOLD_NOT_PENDING: void_hold}
OF_EXPIRED = {Reason.HOLD_EXPIRED: lambda t: t.scene.expire(t.original)}  # type: ignore[arg-type]
OF_POSTED = {Reason.ORIGINAL_NOT_ELIGIBLE: decline_original, Reason.ORIGINAL_ALREADY_UNDONE: undo_original}
CREDITED = {reason: CARDS[reason] for reason in (Reason.UNKNOWN_CARD, Reason.CARD_CANCELLED)}
EXCEEDED = {Reason.ORIGINAL_AMOUNT_EXCEEDED: shrink_hold}
CAUSES: dict[str, tuple[Callable[[], Trial], dict[Reason, Cause]]] = {
    **{kind.name: ((lambda kind=kind: trial(kind)), DEBIT) for kind in DEBITS if kind is not Kind.TRANSFER},
    "TRANSFER": (
        lambda: trial(Kind.TRANSFER),
        {
            **{reason: cause for reason, cause in DEBIT.items() if reason not in LIMITS | FUNDS},
            Reason.DESTINATION_UNAVAILABLE: lambda t: setattr(t.scene.other_card, "status", CardStatus.LOST),
            **LIMITS,
            **FUNDS,
        },
    ),
    "BALANCE_INQUIRY": (lambda: trial(Kind.BALANCE_INQUIRY), NEW | PLACE | CARDS | WALLET),
    "DEPOSIT": (lambda: trial(Kind.DEPOSIT), NEW | PLACE | CARDS | WALLET),
    "BENEFIT_CREDIT": (lambda: trial(Kind.BENEFIT_CREDIT), NEW | PLACE | CREDITED | WALLET),
    "INCREMENT": (
        lambda: trial(Kind.INCREMENT),
        NEW | PLACE | CARDS | NOT_FOUND | OF_HOLD | OF_EXPIRED | LIMITS | FUNDS,
    ),
    "COMPLETION": (
        lambda: trial(Kind.COMPLETION),
        NEW | PLACE | CARDS | NOT_FOUND | OF_HOLD | OF_EXPIRED | EXCEEDED,
    ),
    "COMPLETION-overdrawn": (
        lambda: trial(Kind.COMPLETION),
        NEW | PLACE | CARDS | NOT_FOUND | {Reason.INSUFFICIENT_FUNDS: overdraw},
    ),
    "VOID": (lambda: trial(Kind.VOID), NEW | PLACE | CREDITED | NOT_FOUND | OF_POSTED),
    "VOID-of-yesterday": (
        lambda: trial(Kind.VOID),
        {
            **NOT_FOUND,
            Reason.ORIGINAL_NOT_ELIGIBLE: original_of_yesterday,
            Reason.ORIGINAL_ALREADY_UNDONE: undo_original,
        },
    ),
    "VOID-of-hold": (
        lambda: trial(Kind.VOID, of_hold=True),
        NEW | PLACE | CREDITED | NOT_FOUND | OF_HOLD | OF_EXPIRED,
    ),
    "REFUND": (
        lambda: trial(Kind.REFUND),
        NEW | PLACE | CREDITED | NOT_FOUND | OF_POSTED | {Reason.ORIGINAL_AMOUNT_EXCEEDED: refund_most},
    ),
    "REVERSAL": (
        lambda: trial(Kind.REVERSAL),
        {
            **NEW,
            Reason.ORIGINAL_ALREADY_UNDONE: undo_original,
            Reason.ORIGINAL_AMOUNT_EXCEEDED: refund_most,
        },
    ),
}
# Causes of which only one can be there: a card has one status and none when there is no card, a hold one state.
EXCLUSIVE: tuple[set[Reason], ...] = (
    {Reason.REVERSED_IN_ADVANCE, Reason.DUPLICATE_TRANSMISSION},
    {Reason.TERMINAL_UNKNOWN, Reason.TERMINAL_NOT_PERMITTED},
    {Reason.UNKNOWN_CARD, *STATUSES},
    {Reason.UNKNOWN_CARD, Reason.CARD_EXPIRED},
    {Reason.UNKNOWN_CARD, *CHIP},
    {Reason.UNKNOWN_CARD, *LIMITS},
    {Reason.ORIGINAL_NOT_ELIGIBLE, Reason.HOLD_NOT_PENDING, Reason.HOLD_EXPIRED},
    {Reason.ORIGINAL_NOT_ELIGIBLE, Reason.ORIGINAL_AMOUNT_EXCEEDED},
    {Reason.HOLD_NOT_PENDING, Reason.ORIGINAL_AMOUNT_EXCEEDED},
    {Reason.ORIGINAL_ALREADY_UNDONE, Reason.ORIGINAL_AMOUNT_EXCEEDED},
    # Without a hold nothing is overdrawn, and an emptied hold has no money to be short of.
    {Reason.ORIGINAL_NOT_ELIGIBLE, Reason.INSUFFICIENT_FUNDS},
)
ORDER = list(Reason)
PAIRS = [
    pytest.param(name, earlier, later, id=f"{name}-{earlier.name}-{later.name}")
    for name, (_, causes) in CAUSES.items()
    for earlier, later in itertools.combinations(sorted(causes, key=ORDER.index), 2)
    if not any({earlier, later} <= group for group in EXCLUSIVE)
]
SINGLES = [
    pytest.param(name, reason, id=f"{name}-{reason.name}")
    for name, (_, causes) in CAUSES.items()
    for reason in causes
]


@pytest.mark.parametrize("name", CAUSES)
def test_without_a_cause_each_is_approved(name: str) -> None:
    make, _ = CAUSES[name]
    made = make()
    assert made.scene.decide(made.operation).reason == Reason.APPROVED


@pytest.mark.parametrize(("name", "reason"), SINGLES)
def test_each_cause_alone_declines_by_its_name_and_moves_nothing(name: str, reason: Reason) -> None:
    make, causes = CAUSES[name]
    made = make()
    causes[reason](made)
    accounts = {n: (a.posted_minor, a.held_minor) for n, a in made.scene.accounts.items()}
    outcome = made.scene.decide(made.operation)
    assert outcome.reason == reason
    assert outcome.response_code == RESPONSE_CODES[reason] == outcome.message.response_code
    assert (outcome.message.reason, outcome.message.authorization_code) == (reason, "")
    assert (outcome.approved_minor, outcome.postings, outcome.message.approved_minor) == (0, (), 0)
    assert {n: (a.posted_minor, a.held_minor) for n, a in made.scene.accounts.items()} == accounts


@pytest.mark.parametrize(("name", "earlier", "later"), PAIRS)
def test_of_two_causes_the_earlier_reason_wins(name: str, earlier: Reason, later: Reason) -> None:
    make, causes = CAUSES[name]
    for first, second in ((earlier, later), (later, earlier)):
        made = make()
        causes[first](made)
        causes[second](made)
        assert made.scene.decide(made.operation).reason == earlier
