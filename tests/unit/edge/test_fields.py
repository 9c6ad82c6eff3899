"""Fields that many requests share, at their bounds; what lies outside is tried through gRPC."""

import pytest

from server.cards.rules import LossKind
from server.edge import fields
from server.errors import MalformedFieldError


def test_values_at_the_bounds_are_accepted() -> None:
    assert fields.amount_minor("amount_minor", 1) == 1
    assert fields.amount_minor("amount_minor", 999_999_999_999) == 999_999_999_999
    assert fields.amount_minor("amount_minor", 0, minimum=0) == 0
    assert fields.visible("terminal_id", "!~", length_min=1, length_max=2) == "!~"
    assert fields.visible("terminal_id", "", length_max=16) == ""
    assert fields.digits("psn", "", size=2, default="00") == "00"
    assert fields.digits("psn", "07", size=2, default="00") == "07"
    assert fields.exactly("arqc", bytes(8), size=8) == bytes(8)
    assert fields.member("kind", LossKind, 2) is LossKind.TEMPORARY
    assert f"{fields.calendar_date('expires_on', '20280229'):%Y%m%d}" == "20280229"


def test_request_id_is_any_uuid_but_the_nil_one_in_lower_case() -> None:
    version_7 = "0198C5A2-7D3E-7B4A-9C1D-0242AC120002"
    assert fields.request_id(version_7) == version_7.lower()
    for wrong in ("", "0" * 36, "00000000-0000-0000-0000-000000000000", version_7 + " ", version_7[:-1]):
        with pytest.raises(MalformedFieldError) as refused:
            fields.request_id(wrong)
        assert refused.value.field == "request_id"


def test_error_names_the_field_and_the_rule_and_not_the_value() -> None:
    def parse(text: str) -> str:
        raise ValueError("its check digit is wrong")

    with pytest.raises(MalformedFieldError) as refused:
        fields.parsed("card.pan", parse, "6217000010012345678")
    assert (refused.value.field, refused.value.message) == ("card.pan", "card.pan: its check digit is wrong")
    assert refused.value.__suppress_context__
