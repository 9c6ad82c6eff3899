"""Masks show what the law lets people see, and hide whole whatever has no known form."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onecard.v1 import authorization_pb2, common_pb2, identity_pb2

from server.edge.access_line import SUBJECTS
from server.edge.admission import RPC_POLICIES
from server.masking import (
    HIDDEN,
    mask_identification_code,
    mask_identity_number,
    mask_name,
    mask_pan,
)

CODE = "639900D15600000500BF7C7A48FB4966"
# What str.isdigit and str.isalnum take for digits and letters: superscript, full-width and Arabic ones among them.
DIGITS = "09²０٣"
ALMOST_KNOWN = st.one_of(
    st.text(DIGITS, min_size=15, max_size=20),
    st.builds(str.__add__, st.text(DIGITS, min_size=17, max_size=17), st.sampled_from("0XéＸ码x-\n")),
    st.text("0Aéｆ码²", min_size=32, max_size=32),
)


def test_known_forms_are_masked_as_the_domain_page_shows() -> None:
    assert mask_pan("6217000010012345678") == "6217****5678"
    assert mask_pan("6217000010012345") == "6217****2345"
    assert mask_identity_number("360102199003070014") == "3601**********0014"
    assert mask_identity_number("36112119851231123X") == "3611**********123X"
    assert mask_name("张三") == "张*"
    assert mask_identification_code(CODE) == "639900****66"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "张三",
        "6217",
        "621700001001234",
        "62170000100123456789",
        "6217-0000-1001-2345",
        "６２１７000010012345677",
        "110105491231002",
        "360102-19900307-001",
        CODE[:-1],
        CODE + "0",
        CODE[:-1] + "码",
        "x" * 200,
        "\x00" * 16,
    ],
)
def test_unknown_forms_are_hidden_whole(text: str) -> None:
    assert mask_pan(text) == HIDDEN
    assert mask_identity_number(text) == HIDDEN
    assert mask_identification_code(text) == HIDDEN


@given(st.one_of(ALMOST_KNOWN, st.text()))
def test_mask_shows_nothing_but_ascii_letters_digits_and_stars(text: str) -> None:
    for mask in (mask_pan, mask_identity_number, mask_identification_code):
        assert re.fullmatch("[0-9A-Za-z*]*", mask(text))


def test_empty_name_is_hidden() -> None:
    assert mask_name("") == HIDDEN


def test_subject_of_a_verification_is_masked_for_every_credential() -> None:
    subject = SUBJECTS["/onecard.v1.IdentityService/VerifyIdentity"]
    request = identity_pb2.VerifyIdentityRequest
    stated = identity_pb2.NameAndNumber(name="张三", identity_number="360102199003070014")
    assert subject(request(name_and_number=stated)) == "3601**********0014"
    assert subject(request(card_code="secret code")) == "card_code"
    assert subject(request(chip=common_pb2.ChipAnswer(identification_code=CODE))) == "639900****66"
    assert subject(request()) == ""


def test_subject_of_a_payment_shows_no_code_and_no_token() -> None:
    subject = SUBJECTS["/onecard.v1.AuthorizationService/Authorize"]
    request = authorization_pb2.AuthorizeRequest
    assert subject(request(pan="6217000000000000008")) == "6217****0008"
    assert subject(request(card_code="secret code")) == "card_code"
    assert subject(request(card_token="secret token")) == "card_token"
    assert subject(request()) == ""


@pytest.mark.parametrize("kind", ["pan", "identification_code", "identity_number"])
def test_subject_of_a_card_reference_is_masked_even_when_malformed(kind: str) -> None:
    for rpc in ("GetCardStatus", "ReportLoss", "LiftLoss"):
        subject = SUBJECTS[f"/onecard.v1.CardService/{rpc}"]
        request = type("Request", (), {"card": common_pb2.CardReference(**{kind: "张三 360102"})})
        assert subject(request) == HIDDEN
        request = type("Request", (), {"card": common_pb2.CardReference()})
        assert subject(request) == ""


def test_subjects_are_of_served_rpcs() -> None:
    assert set(SUBJECTS) <= set(RPC_POLICIES)
