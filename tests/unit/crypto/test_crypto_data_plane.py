"""The data plane over every backend: the answers of the standard, and no item's fault in another's place."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from crypto_virtual_card import make_check
from key_store_bureau import Bureau, handing_out_card_keys

from crypto.card_verification import CardVerificationKind
from crypto.cryptogram import generate_arpc_method_1
from crypto.diversification import (
    SessionMethod,
    card_key_usage,
    derive_pboc_session_key,
    odd_parity,
    udk_factor_a,
)
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
BOUND_FORMATS = pytest.mark.parametrize(
    "layout",
    [layout for layout in PinBlockFormat if layout is not PinBlockFormat.ISO_1],
    ids=lambda layout: layout.name,
)
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


@BOUND_FORMATS
def test_issued_pins_are_random_and_verified_by_what_comes_with_them(any_store, plane, layout):
    ref = zpk(any_store, layout)
    issues = [PinIssue(key=ref, format=layout, pan=PAN, length=6) for _ in range(20)]
    issued = plane.issue_pins(issues)
    assert all(isinstance(one, IssuedPin) for one in issued)
    presented = [EncryptedPin(key=ref, ksn=b"", format=layout, block=one.block, pan=PAN) for one in issued]
    found = plane.pin_references(presented)
    assert [references(one.references) for one in issued] == [references(one) for one in found]
    assert len({one.references.by_version[1] for one in issued}) > 10


def test_faults_of_issues_stay_in_their_places(any_store, plane):
    sm4, iso_0, iso_1 = PinBlockFormat.SM4_0, PinBlockFormat.ISO_0, PinBlockFormat.ISO_1
    good = PinIssue(key=zpk(any_store, sm4), format=sm4, pan=PAN, length=6)
    trials = [
        (ValueError, PinIssue(key=good.key, format=sm4, pan=PAN, length=3)),
        (ValueError, PinIssue(key=good.key, format=sm4, pan=PAN, length=13)),
        (ValueError, PinIssue(key=good.key, format=sm4, pan="1", length=6)),
        (ValueError, PinIssue(key=zpk(any_store, iso_1), format=iso_1, pan=PAN, length=6)),
        (KeyUsageError, PinIssue(key=good.key, format=iso_0, pan=PAN, length=6)),
        (KeyNotFoundError, PinIssue(key=MISSING, format=sm4, pan=PAN, length=6)),
    ]
    issued = plane.issue_pins([one for _, bad in trials for one in (good, bad)])
    assert {type(one) for one in issued[::2]} == {IssuedPin}
    assert [type(one) for one in issued[1::2]] == [kind for kind, _ in trials]
    for one in issued[::2]:
        presented = EncryptedPin(key=good.key, ksn=b"", format=sm4, block=one.block, pan=PAN)
        [found] = plane.pin_references([presented])
        assert references(found) == references(one.references)


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


def card_keys(store, suffix, *, pan=PAN) -> dict[str, Key]:
    """The card's keys, by the primitive that every backend has."""
    keys = {}
    for family, usage in (("ac", KeyUsage.IMK_AC), ("smi", KeyUsage.IMK_SMI), ("smc", KeyUsage.IMK_SMC)):
        ref = store.active(f"imk-{family}-{suffix}")
        with handing_out_card_keys(store):
            value = store.encrypt_under_master(ref, udk_factor_a(pan, "00"))
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
    with handing_out_card_keys(any_store):
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


def test_a_command_takes_the_parts_of_its_own_alone(any_store, plane):
    pin, key, other = pin_of(any_store), any_store.active("imk-smc-sm4"), any_store.active("imk-ac-sm4")
    bare = {"confidentiality_key": None, "new_pin": None}
    plain = {**bare, "command": ScriptCommand.APPLICATION_BLOCK}
    mismatches = [
        {"command": ScriptCommand.APPLICATION_BLOCK},
        {**plain, "new_pin": pin},
        {**plain, "current_pin": pin},
        {**plain, "confidentiality_key": key},
        {**plain, "cryptogram_key": other},
        bare,
        {"new_pin": None},
        {"confidentiality_key": None},
        {"current_pin": pin},
        {"command": ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN, "cryptogram_key": other},
        {**bare, "command": ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN},
    ]
    requests = [script_request(any_store, "sm4", **changes) for changes in mismatches]
    assert {type(result) for result in plane.generate_issuer_scripts(requests)} == {ValueError}
    fitting = [
        (plain, "841e0000"),
        ({}, "84240002"),
        ({"current_pin": pin, "cryptogram_key": other}, "84240001"),
        (
            {
                "command": ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN,
                "current_pin": pin,
                "cryptogram_key": other,
            },
            "84240001",
        ),
    ]
    scripts = plane.generate_issuer_scripts(
        [script_request(any_store, "sm4", **changes) for changes, _ in fitting]
    )
    assert [script[:4].hex() for script in scripts] == [header for _, header in fitting]


def test_scripts_of_a_batch_ask_each_master_key_once(own_store, monkeypatch):
    plane, asked = DataPlane(own_store), []
    requests = []
    for n in range(40):
        suffix, pan = ("sm4", "tdes")[n % 2], f"62170000100123456{n:02d}"
        changes = {"pan": pan, "new_pin": pin_of(own_store, pan=pan)}
        if n % 4 >= 2:
            changes |= {
                "cryptogram_key": own_store.active(f"imk-ac-{suffix}"),
                "current_pin": pin_of(own_store, OTHER_DIGITS, pan=pan),
            }
        requests.append(script_request(own_store, suffix, **changes))
    one_by_one = [plane.generate_issuer_scripts([request])[0] for request in requests]
    for method in ("encrypt_under_master", "decrypt_under_master"):
        right = getattr(own_store, method)

        def counted(ref: KeyRef, blocks: bytes, right: Any = right) -> bytes:
            asked.append(ref.name)
            return right(ref, blocks)

        monkeypatch.setattr(own_store, method, counted)
    assert plane.generate_issuer_scripts(requests) == one_by_one
    assert {type(script) for script in one_by_one} == {bytes}
    masters = [f"imk-{family}-{suffix}" for family in ("smi", "ac", "smc") for suffix in ("sm4", "tdes")]
    assert sorted(asked) == sorted([*masters, "zpk-sm4"])


@pytest.mark.parametrize("method", list(SessionMethod), ids=lambda method: method.name)
def test_the_vis_block_shows_parity_as_the_card_has_it(own_store, method):
    """EMV puts 3DES keys into cards with odd parity, PBOC as computed: one block in sixteen cannot tell."""
    plane, masked = DataPlane(own_store), []
    master = own_store.active("imk-ac-tdes")
    for n in range(20):
        pan = f"62170000100123456{n:02d}"
        request = script_request(
            own_store,
            "tdes",
            pan=pan,
            session_method=method,
            new_pin=pin_of(own_store, pan=pan),
            cryptogram_key=master,
        )
        [command] = plane.generate_issuer_scripts([request])
        keys = card_keys(own_store, "tdes", pan=pan)
        context = ScriptContext(method=method, atc=7, arqc=bytes(8))
        script = open_issuer_script(IssuerScript(command), context, udk_smi=keys["smi"], udk_smc=keys["smc"])
        plain = bytes.fromhex(f"0{len(DIGITS):x}{DIGITS}".ljust(16, "f"))
        mask = bytes(a ^ b for a, b in zip(script.data, plain, strict=True))[4:]
        value = keys["ac"].value[4:8]
        assert mask == (odd_parity(value) if method is SessionMethod.EMV_COMMON else value)
        masked.append(odd_parity(value) != value)
    assert any(masked)


def test_scripts_are_written_under_verifying_versions_too(own_store):
    for name in ("imk-smi-sm4", "imk-smc-sm4", "imk-ac-sm4"):
        own_store.rotate(name)
    old = script_request(
        own_store,
        "sm4",
        integrity_key=KeyRef("imk-smi-sm4", 1),
        confidentiality_key=KeyRef("imk-smc-sm4", 1),
        cryptogram_key=KeyRef("imk-ac-sm4", 1),
    )
    assert [type(result) for result in DataPlane(own_store).generate_issuer_scripts([old])] == [bytes]


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
