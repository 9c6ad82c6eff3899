"""Codes that terminals put over their messages: over what the core covers, and under what the core derives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2, cryptography_pb2

from clients.message_mac import MAC_SIZE, mac_message, put_mac
from clients.money_requests import MoneyRequests
from clients.pin_pad import PinPad
from crypto import dukpt_aes
from crypto.dukpt_host import DukptHost
from crypto.dukpt_tdes import DukptKeyUse
from crypto.errors import MacInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.message_mac import verify_message_mac
from server.authorization.credential_conversion import message_of

MAC_KEY = Key(Cipher.SM4, KeyUsage.MAC_CMAC, bytes(range(16)))
BDK = Key(Cipher.SM4, KeyUsage.BDK, bytes(range(1, 17)))
KSN = bytes.fromhex("123456789012345600000000")
TEXT = st.text(st.characters(codec="ascii", exclude_characters="|", categories=["L", "N", "P"]), max_size=12)
NUMBER = st.integers(0, 999_999)


@st.composite
def requests(draw: st.DrawFn) -> pb.AuthorizeRequest:
    original = pb.OriginalReference(
        request_id=draw(TEXT),
        rrn=draw(TEXT),
        stan=draw(NUMBER),
        terminal_id=draw(TEXT),
        business_date=draw(TEXT),
        mti_class=draw(st.integers(0, 4)),
    )
    request = pb.AuthorizeRequest(
        request_id=draw(TEXT),
        operation=draw(st.sampled_from(pb.OperationType.values())),
        amount_minor=draw(st.integers(0, 10**12)),
        terminal_id=draw(TEXT),
        merchant_id=draw(TEXT),
        stan=draw(NUMBER),
        to_pan=draw(TEXT),
        wallet=draw(st.integers(0, 99)),
        is_advice=draw(st.booleans()),
        partial_approval_allowed=draw(st.booleans()),
        more_completions_follow=draw(st.booleans()),
        chip=common_pb2.ChipCryptogram(arqc=draw(st.binary(max_size=8))) if draw(st.booleans()) else None,
        pin=cryptography_pb2.EncryptedPin(block=draw(st.binary(max_size=16)))
        if draw(st.booleans())
        else None,
        original=original if draw(st.booleans()) else None,
    )
    setattr(request, draw(st.sampled_from(["pan", "card_code", "card_token"])), draw(TEXT))
    return request


@given(requests())
def test_terminal_and_core_read_one_message_from_a_request(request: pb.AuthorizeRequest) -> None:
    assert mac_message(request) == message_of(request)


@pytest.mark.parametrize("field", ["terminal_id", "merchant_id", "card_token"])
def test_field_with_the_separator_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="separator"):
        mac_message(pb.AuthorizeRequest(**{field: "a|b"}))  # type: ignore[arg-type]


def test_code_fits_the_request_it_was_put_on_and_no_other() -> None:
    request = pb.AuthorizeRequest(pan="6217000000000000008", amount_minor=100, stan=1)
    put_mac(request, MAC_KEY, name="mac")
    assert (request.mac.key.name, request.mac.ksn, len(request.mac.mac)) == ("mac", b"", MAC_SIZE)
    verify_message_mac(MAC_KEY, message_of(request), mac=request.mac.mac, padding=None, size=MAC_SIZE)
    request.amount_minor = 101
    with pytest.raises(MacInvalidError):
        verify_message_mac(MAC_KEY, message_of(request), mac=request.mac.mac, padding=None, size=MAC_SIZE)


def test_pad_puts_each_code_under_a_key_of_its_own() -> None:
    pad = PinPad(dukpt_aes.derive_initial_key(BDK, ksn=KSN), ksn=KSN, bdk_name="bdk")
    host = DukptHost(BDK, cache_max=100)
    serial_numbers = set()
    for stan in range(1, 6):
        request = pb.AuthorizeRequest(pan="6217000000000000008", amount_minor=100, stan=stan)
        pad.put_mac(request)
        (key,) = host.working_keys([(request.mac.ksn, DukptKeyUse.MAC_REQUEST)])
        assert isinstance(key, Key)
        verify_message_mac(key, message_of(request), mac=request.mac.mac, padding=None, size=MAC_SIZE)
        serial_numbers.add(request.mac.ksn)
    assert len(serial_numbers) == 5


@pytest.mark.parametrize("name", ["pan", "card_code", "card_token"])
def test_reversal_names_the_card_as_its_original_did(name: str) -> None:
    terminal = MoneyRequests(terminal_id="T1", merchant_id="M1")
    makers = {"pan": terminal.without_chip, "card_code": terminal.by_code, "card_token": terminal.by_token}
    original = makers[name](pb.OPERATION_TYPE_PURCHASE, "named so", amount_minor=100)
    reversal = terminal.reversal_of(original)
    assert {field: getattr(reversal, field) for field in makers} == {
        field: "named so" if field == name else "" for field in makers
    }
    assert reversal.original.request_id == original.request_id
    assert reversal.stan != original.stan
