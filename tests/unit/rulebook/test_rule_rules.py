"""What a rule may say: every key has its bounds, and what is misspelt is refused and not ignored."""

from typing import Any, get_type_hints

import pytest

from server.rulebook.rules import (
    RULE_CLASSES,
    UNREADABLE_RULES,
    AcceptanceRule,
    LimitRule,
    MerchantRule,
    TerminalRule,
    WalletRule,
    acquirer_of,
    check_subject,
    parse_content,
    parse_rule,
)

AMOUNT_MAX = 999_999_999_999
NUMBERS = [
    ("limit", "pin_required_above_minor", 0, AMOUNT_MAX),
    ("limit", "transaction_amount_max_minor", 0, AMOUNT_MAX),
    ("limit", "day_amount_max_minor", 0, AMOUNT_MAX),
    ("limit", "month_amount_max_minor", 0, AMOUNT_MAX),
    ("limit", "day_count_max", 0, 65_535),
    ("limit", "month_count_max", 0, 65_535),
    ("limit", "velocity_count_max", 0, 255),
    ("limit", "velocity_window_s", 1, 86_400),
    ("limit", "capture_tolerance_percent", 0, 100),
    ("limit", "hold_days", 1, 365),
    ("merchant", "capture_tolerance_percent", 0, 100),
]
BOOLEANS = [
    ("wallet", "cash"),
    ("wallet", "transfer"),
    ("wallet", "deposit"),
    ("merchant", "is_blocked"),
    ("terminal", "is_blocked"),
    ("terminal", "gives_cash"),
    ("acceptance", "terminals_registered"),
    ("acceptance", "merchants_registered"),
]
TEXTS = [
    ("wallet", "name", ["医保", "x" * 40], ["", "x" * 41, "a\nb", "\x00", "\ud800"]),
    ("merchant", "category", ["5411", ""], ["541", "54111", "５４１１", "54a1"]),
    ("terminal", "mac_key", ["bdk-01", "", "a" * 48], ["a" * 49, "Bdk", "bdk_1", "bdk 1"]),
]
CATEGORIES = "merchant_categories"


def rule_of(kind: str, **content: Any) -> Any:
    return parse_rule(kind, ({"name": "wallet"} if kind == "wallet" else {}) | content)


def test_every_key_of_every_kind_is_tried() -> None:
    tried = {(kind, key) for kind, key, *_ in (*NUMBERS, *BOOLEANS, *TEXTS)} | {("wallet", CATEGORIES)}
    assert tried == {(kind, key) for kind, of in RULE_CLASSES.items() for key in get_type_hints(of)}


@pytest.mark.parametrize(("kind", "key", "least", "most"), NUMBERS)
def test_number_is_whole_and_within_its_bounds(kind: str, key: str, least: int, most: int) -> None:
    assert getattr(rule_of(kind, **{key: least}), key) == least
    assert getattr(rule_of(kind, **{key: most}), key) == most
    for wrong in (least - 1, most + 1, 1.0, "1", True, [1], {}):
        with pytest.raises(ValueError, match=f"^{key}: must be a whole number, {least} to {most}$"):
            rule_of(kind, **{key: wrong})


@pytest.mark.parametrize(("kind", "key", "least", "most"), NUMBERS)
def test_null_means_no_limit_where_there_may_be_none(kind: str, key: str, least: int, most: int) -> None:
    if getattr(rule_of(kind), key) is None:
        assert getattr(rule_of(kind, **{key: None}), key) is None
    else:
        with pytest.raises(ValueError, match=f"^{key}: "):
            rule_of(kind, **{key: None})


@pytest.mark.parametrize(("kind", "key"), BOOLEANS)
def test_fact_is_true_or_false(kind: str, key: str) -> None:
    assert getattr(rule_of(kind, **{key: True}), key) is True
    assert getattr(rule_of(kind, **{key: False}), key) is False
    for wrong in (0, 1, "true", None, []):
        with pytest.raises(ValueError, match=f"^{key}: must be true or false$"):
            rule_of(kind, **{key: wrong})


@pytest.mark.parametrize(("kind", "key", "right", "wrong"), TEXTS)
def test_text_has_its_form(kind: str, key: str, right: list[str], wrong: list[Any]) -> None:
    for text in right:
        assert getattr(rule_of(kind, **{key: text}), key) == text
    for text in (*wrong, 1, None, [], {}):
        with pytest.raises(ValueError, match=f"^{key}: "):
            rule_of(kind, **{key: text})


def test_categories_are_a_list_of_four_digits_each() -> None:
    assert rule_of("wallet", **{CATEGORIES: ["5912", "8011"]}).merchant_categories == {"5912", "8011"}
    assert rule_of("wallet", **{CATEGORIES: []}).merchant_categories == frozenset()
    for wrong in ("5912", ["591"], ["59120"], [5912], [["5912"]], {"5912": 1}, None):
        with pytest.raises(ValueError, match=f"^{CATEGORIES}: must be a list of four digits each$"):
            rule_of("wallet", **{CATEGORIES: wrong})


@pytest.mark.parametrize("kind", RULE_CLASSES)
def test_unknown_key_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ValueError, match=f"^day_amount_max: a {kind} rule has no such key$"):
        rule_of(kind, day_amount_max=1)
    # What is no name at all could be anything, and is not repeated.
    with pytest.raises(ValueError, match=f"^content: a {kind} rule has no such key$"):
        rule_of(kind, **{"6217000000000000008": 1})


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^kind: "):
        parse_rule("fee", {})


def test_a_wallet_needs_a_name_and_others_need_nothing() -> None:
    with pytest.raises(ValueError, match=r"^name: is required$"):
        parse_rule("wallet", {"cash": True})
    assert parse_rule("limit", {}) == LimitRule()
    assert parse_rule("merchant", {}) == MerchantRule()
    assert parse_rule("terminal", {}) == TerminalRule(gives_cash=True)
    assert parse_rule("acceptance", {}) == AcceptanceRule()
    assert parse_rule("wallet", {"name": "w"}) == WalletRule(name="w")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("{} {}", "must be a JSON object"),
        ('{"a": 1, "a": 2}', "must name each key once"),
        ('{"a": {"b": 1, "b": 1}}', "must name each key once"),
        ('{"a": "' + "x" * 4_000 + '"}', "must be at most 4000 characters"),
        ('{"a": ' + "[" * 3_000, "must be a JSON object"),
        ('{"a": ' + "9" * 3_900 + "}", None),
    ],
)
def test_content_is_one_json_object(text: str, rule: str | None) -> None:
    if rule is None:
        assert parse_content(text)
        return
    with pytest.raises(ValueError, match=f"^{rule}"):
        parse_content(text)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (
            "limit",
            ["chip", "card_on_file", "pre_authorization"],
            ["", "CHIP", "purchase", "chip ", "ch\u0131p"],
        ),
        ("wallet", ["1", "99"], ["", "0", "01", "100", "-1", "１", "1" * 5_000]),
        ("acceptance", ["bank-a", "a" * 32], ["", "a", "-a", "Bank", "a" * 33, "bank-a/", "bank-a\n"]),
        (
            "merchant",
            ["bank-a/M1", "bank-a/" + "x" * 16, "bank-a/a/b"],
            ["", "bank-a", "bank-a/", "/M1", "bank-a/" + "x" * 17, "bank-a/M 1", "bank-a/é", "Bank/M1"],
        ),
        ("terminal", ["bank-a/T0000001"], ["T0000001", "bank-a/T\n"]),
    ],
)
def test_subject_names_what_a_rule_can_be_for(kind: str, right: list[str], wrong: list[str]) -> None:
    for subject in right:
        check_subject(kind, subject)
    for subject in wrong:
        with pytest.raises(ValueError, match=r"^must be "):
            check_subject(kind, subject)


def test_who_answers_for_a_subject() -> None:
    assert acquirer_of("terminal", "bank-a/T/1") == "bank-a"
    assert acquirer_of("merchant", "bank-a/M1") == "bank-a"
    assert acquirer_of("acceptance", "bank-a") == "bank-a"
    assert acquirer_of("limit", "chip") is None
    assert acquirer_of("wallet", "1") is None


def test_what_cannot_be_read_stops_what_it_is_about() -> None:
    assert set(UNREADABLE_RULES) == set(RULE_CLASSES)
    assert UNREADABLE_RULES["terminal"] == TerminalRule(is_blocked=True, gives_cash=False, mac_key="?")
    # No key can have the name of the one it asks for.
    with pytest.raises(ValueError, match="mac_key"):
        parse_rule("terminal", {"mac_key": "?"})
    assert UNREADABLE_RULES["merchant"] == MerchantRule(is_blocked=True)
    limit, wallet = UNREADABLE_RULES["limit"], UNREADABLE_RULES["wallet"]
    assert isinstance(limit, LimitRule)
    assert (limit.transaction_amount_max_minor, limit.day_count_max) == (0, 0)
    assert isinstance(wallet, WalletRule)
    assert (wallet.cash, wallet.transfer, wallet.deposit) == (False, False, False)
    # No merchant can be registered with any of its categories, and it has some.
    assert wallet.merchant_categories
    for category in wallet.merchant_categories:
        with pytest.raises(ValueError, match="category"):
            parse_rule("merchant", {"category": category})
