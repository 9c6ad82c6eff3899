"""PINs in the data plane over every backend: compared, translated, issued; no item's fault in another's place."""

from typing import Any

import pytest
from data_plane_requests import (
    DIGITS,
    MISSING,
    OTHER_DIGITS,
    OTHER_PAN,
    PAN,
    dukpt_pin,
    ksn_of,
    pin_of,
    references,
    zpk,
)

from crypto.dukpt_tdes import KsnError
from crypto.errors import (
    KeyNotFoundError,
    KeyStateError,
    KeyUsageError,
    PinBlockInvalidError,
    PinTranslationRefusedError,
)
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin, IssuedPin, PinIssue, PinTranslation
from crypto.keys import KeyRef
from crypto.pin_block import ALLOWED_TRANSLATIONS, PinBlockFormat

FORMATS = pytest.mark.parametrize("layout", list(PinBlockFormat), ids=lambda layout: layout.name)
BOUND_FORMATS = pytest.mark.parametrize(
    "layout",
    [layout for layout in PinBlockFormat if layout is not PinBlockFormat.ISO_1],
    ids=lambda layout: layout.name,
)


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
