"""Other content under a known request id is told by the field's name."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from server.engine.operation import Capability, MoneyFields, Operation, OperationKind, StoredAnswer
from server.engine.request_log import as_stored, differing_field, switch_key, switch_key_of

MONEY = MoneyFields(
    amount_minor=100, stan=1, mti_class=2, merchant_id="M", terminal_time_unix_ms=5, switch_key=bytes(16)
)


def operation(**changes: Any) -> Operation:
    parts: dict[str, Any] = {
        "capability": Capability(),
        "kind": OperationKind.PURCHASE,
        "participant_id": "bank-01",
        "request_id": "0198c5a2-7d3e-7b4a-9c1d-0242ac120002",
        "request_digest": b"digest",
        "deadline": 0.0,
        "terminal_id": "T1",
        "card_id": 7,
        "money": MONEY,
    }
    return Operation(**parts | changes)


STORED: StoredAnswer = as_stored(operation())
OTHER = {"request_digest": b"other"}


def test_same_content_differs_in_nothing() -> None:
    assert differing_field(operation(), STORED) is None


def test_card_that_became_known_since_is_no_other_content() -> None:
    assert differing_field(operation(card_id=8), STORED) is None
    assert differing_field(operation(), as_stored(operation(card_id=None))) is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("caller", {"participant_id": "bank-02"}),
        ("operation", {"kind": OperationKind.DEPOSIT}),
        ("pan", {"card_id": 8}),
        ("pan", {"card_id": None}),
        ("terminal_id", {"terminal_id": "T2"}),
        ("amount_minor", {"money": replace(MONEY, amount_minor=101)}),
        ("stan", {"money": replace(MONEY, stan=2)}),
        ("merchant_id", {"money": replace(MONEY, merchant_id="N")}),
        ("terminal_time_unix_ms", {"money": replace(MONEY, terminal_time_unix_ms=6)}),
        ("chip", {}),
    ],
)
def test_each_field_is_named(name: str, changes: dict[str, Any]) -> None:
    assert differing_field(operation(**OTHER | changes), STORED) == name


def test_caller_and_operation_count_even_with_the_same_digest() -> None:
    assert differing_field(operation(participant_id="bank-02"), STORED) == "caller"
    assert differing_field(operation(kind=OperationKind.DEPOSIT), STORED) == "operation"


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        ("card", OperationKind.REPORT_LOSS, {"card_id": 8}),
        ("content", OperationKind.REPORT_LOSS, {}),
        ("terminal_id", OperationKind.VERIFY_IDENTITY, {"terminal_id": "T2"}),
        ("content", OperationKind.ISSUE_CARD, {"card_id": None}),
    ],
)
def test_requests_without_money_name_what_their_row_holds(
    name: str, kind: OperationKind, changes: dict[str, Any]
) -> None:
    stored = as_stored(operation(kind=kind, money=None))
    assert differing_field(operation(kind=kind, money=None, **OTHER | changes), stored) == name


def test_switch_key_is_of_acquirer_stan_mti_class_and_terminal() -> None:
    parts: dict[str, Any] = {"participant_id": "bank-01", "stan": 1, "mti_class": 2, "terminal_id": "T1"}

    def key(**changes: Any) -> bytes:
        of = parts | changes
        return switch_key(of.pop("participant_id"), **of)

    # As migration 0003 makes it of rows from before.
    assert key() == hashlib.sha256(b"bank-01|1|2|T1").digest()[:16]
    others = {key(participant_id="bank-02"), key(stan=11), key(mti_class=4), key(terminal_id="1")}
    assert len(others | {key()}) == 5
    assert switch_key_of(operation()) == MONEY.switch_key
    assert switch_key_of(operation(money=None)) is None
