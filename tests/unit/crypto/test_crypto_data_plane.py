"""The data plane over every backend: the answers of the standard, and no item's fault in another's place."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from crypto_virtual_card import make_check
from key_store_bureau import Bureau

from crypto.card_verification import CardVerificationKind
from crypto.cryptogram import generate_arpc_method_1
from crypto.diversification import SessionMethod, card_key_usage, derive_pboc_session_key, udk_factor_a
from crypto.dukpt_host import derive_working_key
from crypto.dukpt_tdes import DukptKeyUse, KsnError
from crypto.errors import (
    CardVerificationInvalidError,
    KeyNotFoundError,
    KeyStateError,
    KeyStoreUnavailableError,
    KeyUsageError,
    MacInvalidError,
    PinBlockInvalidError,
    PinTranslationRefusedError,
)
from crypto.issuer_script import IssuerScript, ScriptCommand, ScriptContext, open_issuer_script
from crypto.key_store import data_plane
from crypto.key_store.checks import VerifiedArqc
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import (
    CardVerificationCheck,
    CardVerificationRequest,
    EncryptedPin,
    IssuedPin,
    IssuerScriptRequest,
    MacCheck,
    MacRequest,
    PinIssue,
    PinReferences,
    PinTranslation,
)
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from crypto.message_mac import generate_message_mac
from crypto.pin_block import (
    ALLOWED_TRANSLATIONS,
    Pin,
    PinBlockFormat,
    cipher_of,
    encrypt_pin_block,
    encrypt_pin_blocks,
)
from crypto.script_pin_block import ScriptPinBlock, read_script_pin_block

PAN, OTHER_PAN = "6217000010012345677", "6228480012345678903"
DIGITS, OTHER_DIGITS = "70318264", "5926047183"
SUFFIXES = {Cipher.SM4: "sm4", Cipher.TDES: "tdes", Cipher.AES: "aes"}
ALGORITHMS = pytest.mark.parametrize("suffix", SUFFIXES.values())
FORMATS = pytest.mark.parametrize("layout", list(PinBlockFormat), ids=lambda layout: layout.name)
MISSING = KeyRef("no-such-key", 1)


@pytest.fixture
def plane(any_store):
    return DataPlane(any_store)


@pytest.fixture
def own_store(tmp_path):
    """A software store that a test may change."""
    return SoftwareKeyStore.create(tmp_path / "keys")


def zpk(store, layout):
    return store.active(f"zpk-{SUFFIXES[cipher_of(layout)]}")


def pin_of(store, digits=DIGITS, *, pan=PAN, layout=PinBlockFormat.SM4_0, ref=None) -> EncryptedPin:
    """Encrypted by the store's own primitive, which every backend has."""
    ref = ref or zpk(store, layout)
    [block] = encrypt_pin_blocks(
        lambda blocks: store.encrypt_under_master(ref, blocks), [(Pin(digits), pan)], format=layout
    )
    return EncryptedPin(key=ref, ksn=b"", format=layout, block=block, pan=pan)


def ksn_of(suffix, counter=1):
    return (counter).to_bytes(10 if suffix == "tdes" else 12)


def working_key(store, suffix, ksn, use) -> Key:
    bdk = store.open_key(store.active(f"bdk-{suffix}"), KeyUsage.BDK)
    return derive_working_key(bdk, ksn=ksn, use=use)


def dukpt_pin(store, layout, *, counter=1, pan=PAN, digits=DIGITS) -> EncryptedPin:
    suffix = SUFFIXES[cipher_of(layout)]
    ksn = ksn_of(suffix, counter)
    key = working_key(store, suffix, ksn, DukptKeyUse.PIN)
    block = encrypt_pin_block(key, Pin(digits), pan=pan, format=layout)
    return EncryptedPin(key=store.active(f"bdk-{suffix}"), ksn=ksn, format=layout, block=block, pan=pan)


def references(result) -> dict[int, str]:
    assert isinstance(result, PinReferences), result
    return dict(result.by_version)


@FORMATS
def test_one_pin_has_one_reference_whatever_brought_it(any_store, plane, layout):
    pins = [pin_of(any_store), pin_of(any_store, layout=layout), dukpt_pin(any_store, layout)]
    first, *others = [references(result) for result in plane.pin_references(pins)]
    assert others == [first, first]
    assert list(first) == [1]
    assert len(first[1]) == len(DIGITS)
    [other_pin, other_card] = plane.pin_references(
        [pin_of(any_store, OTHER_DIGITS), pin_of(any_store, pan=OTHER_PAN)]
    )
    assert references(other_pin) != first
    assert references(other_card) != first


def test_faults_of_pins_stay_in_their_places(any_store, plane):
    good = pin_of(any_store)
    trials: list[tuple[Any, dict[str, Any]]] = [
        (PinBlockInvalidError, {"block": bytes(16)}),
        (PinBlockInvalidError, {"pan": OTHER_PAN}),
        (PinBlockInvalidError, {"block": bytes(15)}),
        (KeyUsageError, {"key": any_store.active("cvk")}),
        (KeyUsageError, {"key": any_store.active("zpk-aes")}),
        (KeyUsageError, {"key": any_store.active("bdk-sm4")}),
        (KeyUsageError, {"ksn": ksn_of("sm4")}),
        (KeyNotFoundError, {"key": MISSING}),
        (KsnError, {"key": any_store.active("bdk-sm4"), "ksn": bytes(12)}),
        (KeyUsageError, {"key": any_store.active("bdk-aes"), "ksn": ksn_of("aes")}),
    ]
    mixed = [good]
    for _, changes in trials:
        parts = {name: getattr(good, name) for name in ("key", "ksn", "format", "block", "pan")}
        mixed += [EncryptedPin(**parts | changes), good]
    results = plane.pin_references(mixed)
    expected = references(results[0])
    assert [references(result) for result in results[::2]] == [expected] * (len(trials) + 1)
    assert [type(result) for result in results[1::2]] == [kind for kind, _ in trials]


def test_references_are_under_every_usable_version(own_store):
    plane = DataPlane(own_store)
    before = references(plane.pin_references([pin_of(own_store)])[0])
    own_store.rotate("pvk")
    [rotated] = plane.pin_references([pin_of(own_store)])
    assert references(rotated)[1] == before[1]
    assert list(references(rotated)) == [1, 2]
    assert rotated.active_version == 2
    own_store.schedule_destruction(KeyRef("pvk", 1), 0)
    own_store.destroy_due(1)
    [destroyed] = plane.pin_references([pin_of(own_store)])
    assert list(references(destroyed)) == [2]
    own_store.retire(KeyRef("pvk", 2))
    assert isinstance(plane.pin_references([pin_of(own_store)])[0], KeyStateError)


@FORMATS
def test_pins_are_translated_as_far_as_the_table_allows(any_store, plane, layout):
    targets = list(PinBlockFormat)
    for source in (pin_of(any_store, layout=layout), dukpt_pin(any_store, layout)):
        results = plane.translate_pins(
            [
                PinTranslation(source=source, target_key=zpk(any_store, target), target_format=target)
                for target in targets
            ]
        )
        for target, result in zip(targets, results, strict=True):
            if target not in ALLOWED_TRANSLATIONS[layout]:
                assert isinstance(result, PinTranslationRefusedError)
                continue
            moved = EncryptedPin(key=zpk(any_store, target), ksn=b"", format=target, block=result, pan=PAN)
            [expected, found] = plane.pin_references([pin_of(any_store), moved])
            assert references(found) == references(expected)


def test_faults_of_translations_stay_in_their_places(any_store, plane):
    source, sm4 = pin_of(any_store), PinBlockFormat.SM4_0
    good = PinTranslation(source=source, target_key=source.key, target_format=sm4)

    def to(name: str) -> PinTranslation:
        return PinTranslation(source=source, target_key=any_store.active(name), target_format=sm4)

    unreadable = EncryptedPin(key=source.key, ksn=b"", format=sm4, block=bytes(16), pan=PAN)
    broken = PinTranslation(source=unreadable, target_key=source.key, target_format=sm4)
    missing = PinTranslation(source=source, target_key=MISSING, target_format=sm4)
    results = plane.translate_pins([good, to("zpk-aes"), good, to("bdk-sm4"), broken, missing, good])
    assert [type(result) for result in results] == [
        bytes,
        KeyUsageError,
        bytes,
        KeyUsageError,
        PinBlockInvalidError,
        KeyNotFoundError,
        bytes,
    ]


@FORMATS
def test_issued_pins_are_random_and_verified_by_what_comes_with_them(any_store, plane, layout):
    ref = zpk(any_store, layout)
    issues = [PinIssue(key=ref, format=layout, pan=PAN, length=6) for _ in range(20)]
    issued = plane.issue_pins(issues)
    assert all(isinstance(one, IssuedPin) for one in issued)
    presented = [EncryptedPin(key=ref, ksn=b"", format=layout, block=one.block, pan=PAN) for one in issued]
    found = plane.pin_references(presented)
    assert [references(one.references) for one in issued] == [references(one) for one in found]
    assert len({one.references.by_version[1] for one in issued}) > 10


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
    (udk,) = any_store.diversify_udks(check.key, [(check.pan, check.psn)])
    session_key = derive_pboc_session_key(udk, atc=check.atc)
    assert proven.arpc(b"00") == generate_arpc_method_1(session_key, arqc=check.arqc, arc=b"00")


def mac_request(ref, **changes) -> MacRequest:
    parts = {"key": ref, "ksn": b"", "message": b"message", "padding": None, "size": 8}
    return MacRequest(**parts | changes)


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


def script_request(store, suffix, **changes) -> IssuerScriptRequest:
    parts = {
        "integrity_key": store.active(f"imk-smi-{suffix}"),
        "confidentiality_key": store.active(f"imk-smc-{suffix}"),
        "pan": PAN,
        "psn": "00",
        "atc": 7,
        "arqc": bytes(8),
        "session_method": SessionMethod.PBOC,
        "command": ScriptCommand.PIN_CHANGE,
        "new_pin": pin_of(store),
    }
    return IssuerScriptRequest(**parts | changes)


def card_keys(store, suffix) -> dict[str, Key]:
    """The card's keys, by the primitive that every backend has."""
    keys = {}
    for family, usage in (("ac", KeyUsage.IMK_AC), ("smi", KeyUsage.IMK_SMI), ("smc", KeyUsage.IMK_SMC)):
        ref = store.active(f"imk-{family}-{suffix}")
        value = store.encrypt_under_master(ref, udk_factor_a(PAN, "00"))
        keys[family] = Key(store.require_usable(ref, usage).cipher, card_key_usage(usage), value)
    return keys


@ALGORITHMS
def test_scripts_are_what_the_card_opens(any_store, plane, suffix):
    plain = script_request(
        any_store,
        suffix,
        command=ScriptCommand.APPLICATION_BLOCK,
        confidentiality_key=None,
        new_pin=None,
    )
    vis = script_request(any_store, suffix, cryptogram_key=any_store.active(f"imk-ac-{suffix}"))
    proving = script_request(
        any_store, suffix, cryptogram_key=vis.cryptogram_key, current_pin=pin_of(any_store, OTHER_DIGITS)
    )
    commands = plane.generate_issuer_scripts([plain, script_request(any_store, suffix), vis, proving])
    keys = card_keys(any_store, suffix)
    context = ScriptContext(method=SessionMethod.PBOC, atc=7, arqc=bytes(8))
    opened = [
        open_issuer_script(IssuerScript(command), context, udk_smi=keys["smi"], udk_smc=keys["smc"])
        for command in commands
    ]
    assert [one.command for one in opened] == [
        ScriptCommand.APPLICATION_BLOCK,
        ScriptCommand.PIN_CHANGE,
        ScriptCommand.PIN_CHANGE,
        ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN,
    ]
    of_card = {"pin_block": ScriptPinBlock.VIS, "udk_ac": keys["ac"]}
    pins = [
        read_script_pin_block(opened[1].data, pin_block=ScriptPinBlock.ISO_2),
        read_script_pin_block(opened[2].data, **of_card),
        read_script_pin_block(opened[3].data, **of_card, current_pin=Pin(OTHER_DIGITS)),
    ]
    assert pins == [Pin(DIGITS)] * 3


def test_faults_of_scripts_stay_in_their_places(any_store, plane):
    other = any_store.active("imk-ac-sm4")
    unreadable = pin_of(any_store, pan=OTHER_PAN)
    unreadable.pan = PAN
    trials = [
        (KeyUsageError, {"integrity_key": other}),
        (KeyUsageError, {"confidentiality_key": other}),
        (KeyUsageError, {"cryptogram_key": any_store.active("imk-smi-sm4")}),
        (KeyNotFoundError, {"integrity_key": MISSING}),
        (KeyUsageError, {"session_method": SessionMethod.EMV_COMMON}),
        (PinBlockInvalidError, {"new_pin": unreadable}),
        (PinBlockInvalidError, {"current_pin": unreadable, "cryptogram_key": other}),
        (ValueError, {"arqc": bytes(7)}),
        (ValueError, {"pan": "1"}),
    ]
    good = script_request(any_store, "sm4")
    mixed = [one for _, bad in trials for one in (good, script_request(any_store, "sm4", **bad))]
    results = plane.generate_issuer_scripts(mixed)
    assert {type(result) for result in results[::2]} == {bytes}
    assert [type(result) for result in results[1::2]] == [kind for kind, _ in trials]


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
