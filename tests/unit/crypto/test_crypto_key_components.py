"""Key components: whole keys only of full-length, different, non-empty parts, none of which can be shown."""

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import KeyComponentInvalidError, KeyUnsoundError, KeyUsageError
from crypto.key_components import KeyComponent, combine_components, split_key
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Exportability, Key, KeyUsage, require_sound_value

ONE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
TWO = bytes.fromhex("11223344556677889900AABBCCDDEEFF")
THREE = bytes.fromhex("A0B1C2D3E4F5061728394A5B6C7D8E9F")
USAGES = {Cipher.HMAC_SM3: KeyUsage.MAC_HMAC_SM3}
KINDS = [
    (Cipher.SM4, 16),
    (Cipher.TDES, 16),
    (Cipher.AES, 16),
    (Cipher.AES, 24),
    (Cipher.AES, 32),
    (Cipher.HMAC_SM3, 32),
]


def combine(*values: bytes, cipher: Cipher = Cipher.SM4) -> Key:
    parts = [KeyComponent(cipher, value) for value in values]
    return combine_components(cipher, KeyUsage.KEY_BLOCK_PROTECTION, parts)


def xored(*values: bytes) -> bytes:
    total = 0
    for value in values:
        total ^= int.from_bytes(value)
    return total.to_bytes(len(values[0]))


def test_a_key_is_the_xor_of_its_components_in_any_order():
    assert combine(ONE, TWO).value == xored(ONE, TWO)
    assert combine(THREE, ONE, TWO).value == combine(ONE, TWO, THREE).value == xored(ONE, TWO, THREE)
    assert combine(ONE, TWO).usage is KeyUsage.KEY_BLOCK_PROTECTION


@pytest.mark.parametrize(("cipher", "size"), KINDS)
@pytest.mark.parametrize("count", [2, 3])
@given(value=st.binary(min_size=32, max_size=32))
@settings(max_examples=20, deadline=None)
def test_a_split_key_comes_back_and_each_split_is_another(cipher, size, count, value):
    # Two halves that differ, none of them zero: what a key ceremony would accept.
    value = b"\x02" + value[1:8] + b"\x04" + value[9:size]
    key = Key(cipher, USAGES.get(cipher, KeyUsage.DATA_ENCRYPTION), value)
    parts = split_key(key, count, exportability=Exportability.EXPORTABLE)
    assert len(parts) == count
    assert combine_components(cipher, key.usage, parts) == key
    assert split_key(key, count, exportability=Exportability.EXPORTABLE) != parts
    for part in parts:
        assert part.value != key.value


@pytest.mark.parametrize(
    "values",
    [
        (),
        (ONE,),
        (ONE, TWO, THREE, xored(ONE, THREE)),
        (ONE, ONE),
        (ONE, TWO, ONE),
        (ONE, bytes(16)),
        (ONE, TWO, xored(ONE, TWO)),
    ],
    ids=["none", "one", "four", "equal", "two of three equal", "zero component", "zero key"],
)
def test_a_set_that_one_person_could_complete_is_refused(values):
    with pytest.raises(KeyComponentInvalidError):
        combine(*values)


def test_3des_components_that_differ_in_parity_bits_alone_are_equal():
    parity = xored(ONE, b"\x01" * 16)
    with pytest.raises(KeyComponentInvalidError, match="zero"):
        combine(ONE, parity, cipher=Cipher.TDES)
    with pytest.raises(KeyComponentInvalidError, match="equal"):
        combine(ONE, TWO, parity, cipher=Cipher.TDES)
    with pytest.raises(KeyComponentInvalidError, match="zero"):
        combine(ONE, b"\x01" * 16, cipher=Cipher.TDES)
    assert combine(ONE, parity).value == b"\x01" * 16


def test_a_3des_key_that_would_be_single_des_is_refused():
    doubled = xored(ONE, TWO[:8] * 2)
    with pytest.raises(KeyComponentInvalidError, match="halves"):
        combine(ONE, doubled, cipher=Cipher.TDES)
    assert combine(ONE, doubled).value == TWO[:8] * 2


UNSOUND = {
    "zero 3DES": (Cipher.TDES, bytes(16)),
    "parity bits alone": (Cipher.TDES, b"\x01" * 16),
    "equal halves": (Cipher.TDES, ONE[:8] * 2),
    "halves that differ in parity bits": (Cipher.TDES, ONE[:8] + xored(ONE[:8], b"\x01" * 8)),
    "zero SM4": (Cipher.SM4, bytes(16)),
    "zero AES-256": (Cipher.AES, bytes(32)),
    "zero HMAC-SM3": (Cipher.HMAC_SM3, bytes(32)),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_value_that_protects_nothing_is_refused_wherever_one_comes_in(tmp_path, name):
    cipher, value = UNSOUND[name]
    key = Key(cipher, USAGES.get(cipher, KeyUsage.PIN_ENCRYPTION), value)
    with pytest.raises(KeyUnsoundError, match=r"zero|halves"):
        require_sound_value(cipher, value)
    store = SoftwareKeyStore.create(tmp_path / "keys")
    with pytest.raises(KeyUnsoundError, match=r"zero|halves"):
        store.install("unsound", key)
    assert not [info for info in store.describe() if info.name == "unsound"]
    part = (THREE * 2)[: len(value)]
    with pytest.raises(KeyComponentInvalidError, match=r"zero|halves"):
        combine_components(
            cipher, key.usage, [KeyComponent(cipher, part), KeyComponent(cipher, xored(part, value))]
        )


def test_what_is_unsound_under_3des_alone_is_sound_elsewhere(tmp_path):
    store = SoftwareKeyStore.create(tmp_path / "keys")
    for cipher, value in ((Cipher.SM4, ONE[:8] * 2), (Cipher.AES, b"\x01" * 16), (Cipher.TDES, ONE)):
        require_sound_value(cipher, value)
        name = f"sound-{cipher.value.lower()}"
        assert store.install(name, Key(cipher, KeyUsage.PIN_ENCRYPTION, value)).version == 1


def test_components_of_another_cipher_or_length_are_refused():
    mixed = [KeyComponent(Cipher.SM4, ONE), KeyComponent(Cipher.AES, TWO)]
    with pytest.raises(KeyComponentInvalidError, match="cipher"):
        combine_components(Cipher.SM4, KeyUsage.DATA_ENCRYPTION, mixed)
    with pytest.raises(KeyComponentInvalidError, match="lengths"):
        combine(ONE, TWO + THREE, cipher=Cipher.AES)
    with pytest.raises(ValueError, match="length"):
        KeyComponent(Cipher.SM4, ONE[:15])


def test_a_usage_that_does_not_go_with_the_cipher_is_refused():
    parts = [KeyComponent(Cipher.SM4, ONE), KeyComponent(Cipher.SM4, TWO)]
    with pytest.raises(KeyUsageError):
        combine_components(Cipher.SM4, KeyUsage.MAC_HMAC_SM3, parts)


@pytest.mark.parametrize("cipher", [Cipher.SM4, Cipher.TDES, Cipher.AES])
def test_a_mistyped_component_does_not_fit_its_check_value(cipher):
    component = KeyComponent(cipher, ONE)
    assert component.kcv() == Key(cipher, KeyUsage.DATA_ENCRYPTION, ONE).kcv()
    component.verify_kcv(component.kcv())
    component.verify_kcv(component.kcv().lower())
    for wrong in ("", component.kcv()[:4], "000000", KeyComponent(cipher, TWO).kcv()):
        with pytest.raises(KeyComponentInvalidError):
            component.verify_kcv(wrong)


def test_a_key_that_may_not_leave_is_not_split():
    key = Key(Cipher.SM4, KeyUsage.DATA_ENCRYPTION, ONE)
    with pytest.raises(KeyUsageError):
        split_key(key, 2, exportability=Exportability.NON_EXPORTABLE)
    for count in (1, 4):
        with pytest.raises(ValueError, match="two or three"):
            split_key(key, count, exportability=Exportability.EXPORTABLE)


def test_a_component_is_neither_shown_nor_copied():
    component = KeyComponent(Cipher.SM4, ONE)
    for text in (repr(component), str(component), f"{component}", repr([component])):
        assert "0123456789" not in text.upper()
        assert repr(ONE) not in text
    for leak in (lambda: pickle.dumps(component), lambda: copy.copy(component), lambda: hash(component)):
        with pytest.raises(TypeError):
            leak()
    with pytest.raises(KeyComponentInvalidError) as refusal:
        combine(ONE, ONE)
    assert ONE.hex() not in str(refusal.value).lower()
