"""Limits, wallets and capture tolerance as rules: each at its border, by card and by channel, alone and as decided."""

from collections.abc import Iterator
from typing import Any

import pytest
from money_scene import BUSINESS_DATE, NOW, Scene, card_state

from server.authorization import rules
from server.authorization.rules import Reason
from server.authorization.usage import Usage
from server.engine.operation import OperationKind as Kind
from server.rulebook.rules import Channel, LimitRule, MerchantRule, WalletRule

NOW_S = int(NOW.timestamp())
BEFORE = ((Channel.CHIP, 300), (Channel.CHIP, 200), (Channel.TAP, 50))


def reason_of(limit: LimitRule, amount_minor: int, **card: int) -> Reason | None:
    """A chip purchase after two others of 500 分 together and a tap of 50."""
    state = card_state(1)
    for name, value in card.items():
        setattr(state, name, value)
    usage = Usage(b"", BUSINESS_DATE)
    for channel, amount in BEFORE:
        usage.add(channel, amount, now_s=NOW_S - 30, window_s=60)
    return rules.reason_of_limits(state, usage, limit, Channel.CHIP, amount_minor=amount_minor, now_s=NOW_S)


def borders() -> Iterator[Any]:
    """A limit, the card's own, the highest amount it admits, and the reason of one more."""
    yield {"transaction_amount_max_minor": 100}, {}, 100, Reason.TRANSACTION_AMOUNT_LIMIT
    yield {}, {"transaction_amount_max_minor": 100}, 100, Reason.TRANSACTION_AMOUNT_LIMIT
    yield {"day_amount_max_minor": 600}, {}, 100, Reason.DAY_AMOUNT_LIMIT
    # The card's own limit of the day is over all channels.
    yield {}, {"day_amount_max_minor": 650}, 100, Reason.DAY_AMOUNT_LIMIT
    yield {"month_amount_max_minor": 600}, {}, 100, Reason.MONTH_AMOUNT_LIMIT


@pytest.mark.parametrize(("limit", "card", "highest", "reason"), list(borders()))
def test_amount_limit_admits_its_amount_and_not_one_more(
    limit: dict[str, int], card: dict[str, int], highest: int, reason: Reason
) -> None:
    assert reason_of(LimitRule(**limit), highest, **card) is None
    assert reason_of(LimitRule(**limit), highest + 1, **card) is reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [("day_count_max", Reason.DAY_COUNT_LIMIT), ("month_count_max", Reason.MONTH_COUNT_LIMIT)],
)
def test_count_limit_admits_its_count_and_not_one_more(name: str, reason: Reason) -> None:
    assert reason_of(LimitRule(**{name: 3}), 1) is None
    assert reason_of(LimitRule(**{name: 2}), 1) is reason


def test_velocity_admits_its_count_within_its_window_and_not_one_more() -> None:
    # The tap of before is of another channel.
    assert reason_of(LimitRule(velocity_count_max=3), 1) is None
    assert reason_of(LimitRule(velocity_count_max=2), 1) is Reason.VELOCITY_LIMIT
    assert reason_of(LimitRule(velocity_count_max=2, velocity_window_s=30), 1) is None


def test_rule_without_limits_admits_anything() -> None:
    assert reason_of(LimitRule(), 999_999_999) is None


def test_only_approved_operations_count() -> None:
    scene = Scene()
    scene.limit(day_count_max=1)
    assert scene.decide(scene.operation(Kind.PURCHASE, 10_001)).reason == Reason.INSUFFICIENT_FUNDS
    assert scene.decide(scene.operation(Kind.PURCHASE, 1)).reason == Reason.APPROVED
    assert scene.decide(scene.operation(Kind.PURCHASE, 1)).reason == Reason.DAY_COUNT_LIMIT
    # Another channel has a limit of its own.
    assert scene.decide(scene.operation(Kind.TAP, 1)).reason == Reason.APPROVED


def test_partial_approval_uses_what_was_approved() -> None:
    scene = Scene()
    outcome = scene.decide(scene.operation(Kind.PURCHASE, 10_500, partial_approval_allowed=True))
    assert (outcome.reason, outcome.response_code, outcome.approved_minor) == (
        Reason.PARTIALLY_APPROVED,
        "10",
        10_000,
    )
    assert scene.card is not None
    assert Usage(scene.card.usage, BUSINESS_DATE).of(Channel.CHIP) == (1, 1, 10_000, 10_000)
    empty = scene.decide(scene.operation(Kind.PURCHASE, 1, partial_approval_allowed=True))
    assert empty.reason == Reason.INSUFFICIENT_FUNDS


MEDICAL = WalletRule(name="medical", merchant_categories=frozenset({"5912"}))
PHARMACY, GROCER = MerchantRule(category="5912"), MerchantRule(category="5411")


@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.TAP, Kind.PRE_AUTHORIZATION])
def test_wallet_with_categories_serves_at_merchants_of_them_only(kind: Kind) -> None:
    assert rules.reason_of_wallet(MEDICAL, PHARMACY, kind) is None
    for merchant in (GROCER, MerchantRule(), None):
        assert rules.reason_of_wallet(MEDICAL, merchant, kind) is Reason.WALLET_NOT_ALLOWED
    assert rules.reason_of_wallet(WalletRule(name="any"), None, kind) is None


@pytest.mark.parametrize("kind", [Kind.BALANCE_INQUIRY, Kind.BENEFIT_CREDIT])
def test_every_wallet_may_be_asked_and_credited(kind: Kind) -> None:
    assert rules.reason_of_wallet(MEDICAL, None, kind) is None


@pytest.mark.parametrize(
    ("kind", "allowance"),
    [(Kind.CASH_WITHDRAWAL, "cash"), (Kind.TRANSFER, "transfer"), (Kind.DEPOSIT, "deposit")],
)
def test_wallet_gives_cash_transfers_and_takes_deposits_only_where_its_rule_says(
    kind: Kind, allowance: str
) -> None:
    everything = {"cash": True, "transfer": True, "deposit": True}
    assert rules.reason_of_wallet(WalletRule(name="w", **{allowance: True}), PHARMACY, kind) is None
    others = WalletRule(name="w", **everything | {allowance: False})
    assert rules.reason_of_wallet(others, PHARMACY, kind) is Reason.WALLET_NOT_ALLOWED


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind <= Kind.BALANCE_INQUIRY])
def test_wallet_without_a_rule_is_none(kind: Kind) -> None:
    assert rules.reason_of_wallet(None, PHARMACY, kind) is Reason.WALLET_NOT_ALLOWED


@pytest.mark.parametrize(
    ("channel_percent", "merchant", "most"),
    [
        (0, None, 700),
        (15, None, 850),
        (15, MerchantRule(), 850),
        (15, MerchantRule(capture_tolerance_percent=0), 700),
        (0, MerchantRule(capture_tolerance_percent=20), 900),
        (1, None, 710),
    ],
)
def test_tolerance_is_over_what_was_authorized_and_the_merchants_before_the_channels(
    channel_percent: int, merchant: MerchantRule | None, most: int
) -> None:
    limit = LimitRule(capture_tolerance_percent=channel_percent)
    assert rules.capture_max_minor(limit, merchant, held_minor=700, authorized_minor=1_000) == most


def test_tolerance_is_rounded_down() -> None:
    limit = LimitRule(capture_tolerance_percent=15)
    assert rules.capture_max_minor(limit, None, held_minor=99, authorized_minor=99) == 113


@pytest.mark.parametrize(
    ("above", "amount", "is_required"),
    [(None, 10**9, False), (0, 1, True), (100, 100, False), (100, 101, True)],
)
def test_pin_is_asked_for_above_the_channels_amount(
    above: int | None, amount: int, is_required: bool
) -> None:
    assert (
        rules.pin_is_required(LimitRule(pin_required_above_minor=above), amount_minor=amount) is is_required
    )
