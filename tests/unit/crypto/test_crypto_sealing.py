"""Sealed columns are bound to their place; blind indexes keep kinds apart."""

import pytest

from crypto.errors import KeyNotFoundError, KeyUsageError, SealBrokenError
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from crypto.sealing import KINDS_MAX, BlindIndex, ColumnSealer, RequestDigest, open_sealed, seal

OLD = Key(Cipher.SM4, KeyUsage.SEALING, bytes(range(16)))
NEW = Key(Cipher.SM4, KeyUsage.SEALING, bytes(16))
INDEX = Key(Cipher.HMAC_SM3, KeyUsage.BLIND_INDEX, bytes(range(32)))
SEALER = ColumnSealer(KeyRef("sealing", 1), {1: OLD})
PLACE = {"column": "cardholders.name", "row_id": "42"}


def test_a_sealed_value_opens_in_its_place():
    sealed = SEALER.seal("张三".encode(), **PLACE)
    assert SEALER.open(sealed, **PLACE).decode() == "张三"
    assert len(sealed) == 1 + 12 + 6 + 16
    assert SEALER.open(SEALER.seal(b"", **PLACE), **PLACE) == b""


def test_sealing_twice_gives_two_texts():
    assert SEALER.seal(b"same", **PLACE) != SEALER.seal(b"same", **PLACE)


@pytest.mark.parametrize(
    "place",
    [
        {"column": "cardholders.mobile", "row_id": "42"},
        {"column": "cardholders.name", "row_id": "43"},
        {"column": "cardholders.nam", "row_id": "e42"},
    ],
)
def test_a_sealed_value_moved_to_another_column_or_row_does_not_open(place):
    with pytest.raises(SealBrokenError):
        SEALER.open(SEALER.seal(b"value", **PLACE), **place)


def test_a_sealed_value_with_any_bit_changed_does_not_open():
    sealed = SEALER.seal(b"value", **PLACE)
    for bit in range(8 * (len(sealed) - 1)):
        wrong = (int.from_bytes(sealed) ^ 1 << bit).to_bytes(len(sealed))
        with pytest.raises(SealBrokenError):
            SEALER.open(wrong, **PLACE)
    for length in range(1, len(sealed)):
        with pytest.raises(SealBrokenError):
            SEALER.open(sealed[:length], **PLACE)


def test_values_of_an_older_version_open_beside_the_new():
    both = ColumnSealer(KeyRef("sealing", 2), {1: OLD, 2: NEW})
    assert both.open(SEALER.seal(b"old", **PLACE), **PLACE) == b"old"
    new = both.seal(b"new", **PLACE)
    assert new[0] == 2
    for unknown in (new, b""):
        with pytest.raises(KeyNotFoundError):
            SEALER.open(unknown, **PLACE)


def test_a_value_passed_off_as_another_version_does_not_open():
    same_key_twice = ColumnSealer(KeyRef("sealing", 2), {1: OLD, 2: OLD})
    sealed = SEALER.seal(b"value", **PLACE)
    with pytest.raises(SealBrokenError):
        same_key_twice.open(b"\x02" + sealed[1:], **PLACE)


def test_sealing_refuses_other_keys_and_names():
    with pytest.raises(KeyUsageError):
        seal(Key(Cipher.SM4, KeyUsage.IMK_AC, bytes(16)), b"", aad=b"")
    with pytest.raises(KeyUsageError):
        open_sealed(Key(Cipher.AES, KeyUsage.SEALING, bytes(16)), bytes(28), aad=b"")
    with pytest.raises(KeyUsageError):
        ColumnSealer(KeyRef("imk", 1), {1: Key(Cipher.SM4, KeyUsage.IMK_AC, bytes(16))})
    with pytest.raises(KeyNotFoundError):
        ColumnSealer(KeyRef("sealing", 256), {256: OLD})
    with pytest.raises(ValueError, match="NUL"):
        SEALER.seal(b"", column="a\0b", row_id="1")


def test_a_blind_index_is_stable_per_kind_and_unrelated_between_kinds():
    index, same = BlindIndex(INDEX), BlindIndex(INDEX)
    one = index.of("360102199003070014", kind="identity_number")
    assert len(one) == 16
    assert one == index.of("360102199003070014", kind="identity_number")
    assert one == same.of("360102199003070014", kind="identity_number")
    assert one != index.of("360102199003070014", kind="pan")
    assert one != index.of("360102199003070015", kind="identity_number")
    assert index.of("bc", kind="a") != index.of("c", kind="ab")


def test_blind_index_kinds_are_few_and_clean():
    index = BlindIndex(INDEX)
    for kind in ("", "a\0b"):
        with pytest.raises(ValueError, match="kind"):
            index.of("value", kind=kind)
    for number in range(KINDS_MAX):
        index.of("value", kind=f"kind {number}")
    with pytest.raises(ValueError, match="kind"):
        index.of("value", kind="one more")


def test_a_request_digest_tells_requests_apart():
    digest = RequestDigest(Key(Cipher.HMAC_SM3, KeyUsage.REQUEST_DIGEST, bytes(32)))
    assert len(digest.of(b"one")) == 16
    assert digest.of(b"one") == digest.of(b"one") != digest.of(b"two")


@pytest.mark.parametrize("make", [BlindIndex, RequestDigest])
def test_keyed_digests_refuse_keys_of_another_usage(make):
    with pytest.raises(KeyUsageError):
        make(Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, bytes(32)))
