"""The data plane over every backend: the answers of the standard, and no item's fault in another's place."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from crypto_virtual_card import make_check
from data_plane_requests import (
    ALGORITHMS,
    MISSING,
    PAN,
    SUFFIXES,
    dukpt_pin,
    ksn_of,
    mac_request,
    pin_of,
    references,
    script_request,
    working_key,
    zpk,
)
from key_store_bureau import Bureau, handing_out_card_keys

from crypto.card_verification import CardVerificationKind
from crypto.cryptogram import generate_arpc_method_1
from crypto.diversification import derive_pboc_session_key
from crypto.dukpt_tdes import DukptKeyUse, KsnError
from crypto.errors import (
    CardVerificationInvalidError,
    KeyNotFoundError,
    KeyStateError,
    KeyStoreUnavailableError,
    KeyUsageError,
    MacInvalidError,
)
from crypto.key_store import data_plane
from crypto.key_store.checks import VerifiedArqc
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import (
    CardVerificationCheck,
    CardVerificationRequest,
    MacCheck,
    PinIssue,
    PinTranslation,
)
from crypto.keys import KeyRef
from crypto.message_mac import generate_message_mac
from crypto.pin_block import PinBlockFormat


@ALGORITHMS
def test_cryptograms_are_verified_and_answered(any_store, plane, suffix):
    check = make_check(Bureau(any_store), suffix)
    other_usage = make_check(Bureau(any_store), suffix)
    other_usage.key = any_store.active(f"imk-smi-{suffix}")
    missing = make_check(Bureau(any_store), suffix)
    missing.key = MISSING
    wrong = make_check(Bureau(any_store), suffix)
    wrong.arqc = bytes(8)
    proven, unproven, misused, absent = plane.verify_arqcs([check, wrong, other_usage, missing])
    assert isinstance(proven, VerifiedArqc)
    assert unproven is None
    assert isinstance(misused, KeyUsageError)
    assert isinstance(absent, KeyNotFoundError)
    with handing_out_card_keys(any_store) as store:
        (udk,) = store.diversify_udks(check.key, [(check.pan, check.psn)])
    session_key = derive_pboc_session_key(udk, atc=check.atc)
    assert proven.arpc(b"00") == generate_arpc_method_1(session_key, arqc=check.arqc, arc=b"00")


def test_the_store_is_asked_once_for_all_cryptograms(own_store, monkeypatch):
    plane, batches = DataPlane(own_store), []
    checks = [make_check(Bureau(own_store), suffix) for suffix in SUFFIXES.values()]
    missing = make_check(Bureau(own_store), "sm4")
    missing.key = MISSING
    right = own_store.verify_arqcs

    def counted(asked: Sequence[Any]) -> Any:
        batches.append(list(asked))
        return right(asked)

    monkeypatch.setattr(own_store, "verify_arqcs", counted)
    results = plane.verify_arqcs([checks[0], missing, *checks[1:]])
    assert batches == [checks]
    assert [type(result) for result in results] == [
        VerifiedArqc,
        KeyNotFoundError,
        VerifiedArqc,
        VerifiedArqc,
    ]


@ALGORITHMS
def test_terminals_macs_are_request_to_the_host_and_response_from_it(any_store, plane, suffix):
    ref, ksns = any_store.active(f"bdk-{suffix}"), [ksn_of(suffix, n) for n in (1, 2, 3)]
    requests = [mac_request(ref, ksn=ksn) for ksn in ksns]

    def expected(use: DukptKeyUse) -> list[bytes]:
        return [
            generate_message_mac(working_key(any_store, suffix, ksn, use), b"message", padding=None, size=8)
            for ksn in ksns
        ]

    assert plane.generate_macs(requests) == expected(DukptKeyUse.MAC_RESPONSE)
    checks = [
        MacCheck(request=request, mac=mac)
        for request, mac in zip(requests, expected(DukptKeyUse.MAC_REQUEST), strict=True)
    ]
    assert plane.verify_macs(checks) == [None] * 3
    checks[1].mac = checks[0].mac
    assert [type(result) for result in plane.verify_macs(checks)] == [
        type(None),
        MacInvalidError,
        type(None),
    ]


def test_faults_of_macs_stay_in_their_places(any_store, plane):
    ref = any_store.active("mac-sm4")
    good = mac_request(ref)
    trials = [
        (KeyUsageError, mac_request(any_store.active("zpk-sm4"))),
        (KeyUsageError, mac_request(any_store.active("bdk-sm4"))),
        (KeyUsageError, mac_request(ref, ksn=ksn_of("sm4"))),
        (KsnError, mac_request(any_store.active("bdk-sm4"), ksn=bytes(12))),
        (KeyNotFoundError, mac_request(MISSING)),
        (ValueError, mac_request(ref, size=17)),
    ]
    mixed = [one for _, bad in trials for one in (good, bad)]
    generated = plane.generate_macs(mixed)
    assert len(set(generated[::2])) == 1
    assert [type(result) for result in generated[1::2]] == [kind for kind, _ in trials]
    verified = plane.verify_macs([MacCheck(request=one, mac=generated[0]) for one in mixed])
    assert verified[::2] == [None] * len(trials)
    assert [type(result) for result in verified[1::2]] == [kind for kind, _ in trials]


def test_as_many_bytes_of_a_code_are_compared_as_were_asked_for(any_store, plane):
    request = mac_request(any_store.active("mac-sm4"), size=8)
    [mac] = plane.generate_macs([request])
    for came in (mac[:7], mac[:4], mac + b"\x00", b""):
        assert isinstance(plane.verify_macs([MacCheck(request=request, mac=came)])[0], MacInvalidError)
    # A key fixes no length: who asks for four bytes gets four compared.
    short = mac_request(request.key, size=4)
    assert plane.verify_macs([MacCheck(request=short, mac=mac[:4])]) == [None]


def test_card_verification_values_are_made_and_checked(any_store, plane):
    parts = {"kind": CardVerificationKind.CVV, "pan": PAN, "expiry": "2812", "service_code": "201"}
    good = CardVerificationRequest(key=any_store.active("cvk"), **parts)
    other = CardVerificationRequest(key=any_store.active("zpk-tdes"), **parts)
    absent = CardVerificationRequest(key=MISSING, **parts)
    malformed = CardVerificationRequest(key=good.key, **parts | {"service_code": "000"})
    value, *faults = plane.generate_card_verifications([good, other, absent, malformed])
    kinds = [KeyUsageError, KeyNotFoundError, ValueError]
    assert [type(fault) for fault in faults] == kinds
    wrong = f"{(int(value) + 1) % 1000:03d}"
    checks = [
        CardVerificationCheck(request=request, value=text)
        for request, text in (
            (good, value),
            (good, wrong),
            (other, value),
            (absent, value),
            (malformed, value),
        )
    ]
    right, unfit, *faults = plane.verify_card_verifications(checks)
    assert right is None
    assert isinstance(unfit, CardVerificationInvalidError)
    assert [type(fault) for fault in faults] == kinds


def test_a_key_that_only_verifies_generates_nothing(own_store):
    plane = DataPlane(own_store)
    for name in ("mac-sm4", "cvk", "zpk-sm4", "bdk-sm4"):
        own_store.rotate(name)
    old = pin_of(own_store, ref=KeyRef("zpk-sm4", 1))
    sm4 = PinBlockFormat.SM4_0
    card_verification = CardVerificationRequest(
        key=KeyRef("cvk", 1), kind=CardVerificationKind.CVV2, pan=PAN, expiry="2812", service_code=""
    )
    for results in (
        plane.generate_macs([mac_request(KeyRef("mac-sm4", 1))]),
        plane.generate_card_verifications([card_verification]),
        plane.translate_pins([PinTranslation(source=old, target_key=old.key, target_format=sm4)]),
        plane.issue_pins([PinIssue(key=old.key, format=sm4, pan=PAN, length=6)]),
    ):
        assert [type(result) for result in results] == [KeyStateError]
    new = PinTranslation(source=old, target_key=KeyRef("zpk-sm4", 2), target_format=sm4)
    assert [type(result) for result in plane.translate_pins([new])] == [bytes]
    check = MacCheck(request=mac_request(KeyRef("mac-sm4", 1)), mac=bytes(8))
    assert [type(result) for result in plane.verify_macs([check])] == [MacInvalidError]
    # Terminals keep the initial key they were loaded with, longer than a BDK generates.
    request = mac_request(KeyRef("bdk-sm4", 1), ksn=ksn_of("sm4"))
    assert [type(result) for result in plane.generate_macs([request])] == [bytes]


def test_nothing_is_derived_any_more_of_a_bdk_that_was_destroyed(own_store):
    plane = DataPlane(own_store)
    pin = dukpt_pin(own_store, PinBlockFormat.SM4_0)
    assert references(plane.pin_references([pin])[0])
    own_store.rotate("bdk-sm4")
    own_store.schedule_destruction(pin.key, 0)
    own_store.destroy_due(1)
    assert isinstance(plane.pin_references([pin])[0], KeyStateError)
    assert not plane._dukpt_hosts


# A call of each kind, none of which has to do with a terminal.
OTHER_CALLS: dict[str, Callable[[DataPlane, Any], Any]] = {
    "verify_arqcs": lambda plane, store: plane.verify_arqcs([]),
    "pin_references": lambda plane, store: plane.pin_references([pin_of(store)]),
    "translate_pins": lambda plane, store: plane.translate_pins([]),
    "issue_pins": lambda plane, store: plane.issue_pins([]),
    "generate_macs": lambda plane, store: plane.generate_macs([mac_request(store.active("mac-sm4"))]),
    "verify_macs": lambda plane, store: plane.verify_macs([]),
    "generate_card_verifications": lambda plane, store: plane.generate_card_verifications([]),
    "verify_card_verifications": lambda plane, store: plane.verify_card_verifications([]),
    "generate_issuer_scripts": lambda plane, store: plane.generate_issuer_scripts([]),
}


@pytest.mark.parametrize("name", OTHER_CALLS)
def test_a_destroyed_bdk_is_forgotten_at_any_call_within_a_second(own_store, monkeypatch, name):
    now_s = 1000.0
    monkeypatch.setattr(data_plane.time, "monotonic", lambda: now_s)
    plane = DataPlane(own_store)
    pins = [dukpt_pin(own_store, layout) for layout in (PinBlockFormat.SM4_0, PinBlockFormat.ISO_4)]
    assert all(references(result) for result in plane.pin_references(pins))
    destroyed, kept = [pin.key for pin in pins]
    own_store.retire(destroyed)
    own_store.schedule_destruction(destroyed, 0)
    own_store.destroy_due(1)
    OTHER_CALLS[name](plane, own_store)
    assert set(plane._dukpt_hosts) == {destroyed, kept}
    now_s += data_plane.HOSTS_CHECKED_EVERY_S
    OTHER_CALLS[name](plane, own_store)
    assert set(plane._dukpt_hosts) == {kept}


def test_hosts_of_many_bdks_are_bounded(own_store, monkeypatch):
    monkeypatch.setattr(data_plane, "DUKPT_HOSTS_MAX", 2)
    plane = DataPlane(own_store)
    for layout in (PinBlockFormat.SM4_0, PinBlockFormat.ISO_4, PinBlockFormat.ISO_0, PinBlockFormat.SM4_0):
        assert references(plane.pin_references([dukpt_pin(own_store, layout)])[0])
        assert 1 <= len(plane._dukpt_hosts) <= 2


Call = Callable[[DataPlane, Sequence[Any]], Any]
CALLS: dict[str, tuple[Call, Callable[[Any], Any]]] = {
    "pin_references": (DataPlane.pin_references, pin_of),
    "issue_pins": (
        DataPlane.issue_pins,
        lambda store: PinIssue(
            key=zpk(store, PinBlockFormat.SM4_0), format=PinBlockFormat.SM4_0, pan=PAN, length=6
        ),
    ),
    "generate_macs": (DataPlane.generate_macs, lambda store: mac_request(store.active("mac-sm4"))),
    "generate_issuer_scripts": (
        DataPlane.generate_issuer_scripts,
        lambda store: script_request(store, "sm4"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_store_that_does_not_answer_fails_the_whole_call(own_store, monkeypatch, name):
    call, make = CALLS[name]
    item = make(own_store)

    def gone(*_: Any, **__: Any) -> None:
        raise KeyStoreUnavailableError("gone")

    for method in ("open_key", "encrypt_under_master", "decrypt_under_master"):
        monkeypatch.setattr(own_store, method, gone)
    with pytest.raises(KeyStoreUnavailableError):
        call(DataPlane(own_store), [item])
    assert call(DataPlane(own_store), []) == []


def test_requests_show_neither_pin_nor_card_number_nor_block(own_store):
    plane = DataPlane(own_store)
    pin = pin_of(own_store)
    [issued] = plane.issue_pins([PinIssue(key=pin.key, format=pin.format, pan=PAN, length=6)])
    shown = [
        pin,
        PinTranslation(source=pin, target_key=pin.key, target_format=pin.format),
        PinIssue(key=pin.key, format=pin.format, pan=PAN, length=6),
        issued,
        issued.references,
        mac_request(pin.key),
        script_request(own_store, "sm4"),
        plane,
    ]
    for each in shown:
        assert repr(each) == f"{type(each).__name__}(****)"
