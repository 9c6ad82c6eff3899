"""DUKPT under AES and SM4: the standard's vectors, both sides, and what is refused."""

import copy
import pickle

import pytest

from crypto.blocks import encrypt_ecb
from crypto.dukpt_aes import (
    KEY_SHAPES,
    AesDukptTerminal,
    WorkingKeyType,
    derivation_data,
    derive_initial_key,
    derive_transaction_value,
    derive_working_key,
)
from crypto.dukpt_host import DukptHost
from crypto.dukpt_host import derive_working_key as derive_from_bdk
from crypto.dukpt_tdes import DukptKeyUse, KsnError
from crypto.errors import KeyStateError, KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage

IDENTITY = bytes.fromhex("1234567890123456")
VALUE = bytes.fromhex("FEDCBA9876543210F1F1F1F1F1F1F1F1" * 2)
BDKS = {
    "AES-128": Key(Cipher.AES, KeyUsage.BDK, VALUE[:16]),
    "AES-192": Key(Cipher.AES, KeyUsage.BDK, VALUE[:24]),
    "AES-256": Key(Cipher.AES, KeyUsage.BDK, VALUE),
    "SM4": Key(Cipher.SM4, KeyUsage.BDK, VALUE[:16]),
}
EACH_BDK = pytest.mark.parametrize("bdk", BDKS.values(), ids=BDKS)
TRANSACTION_KEYS = ["aes-128 dukpt, transaction keys", "aes-256 dukpt, transaction keys"]
USAGES = {
    DukptKeyUse.KEY_ENCRYPTION: ("0002", KeyUsage.KEY_BLOCK_PROTECTION),
    DukptKeyUse.PIN: ("1000", KeyUsage.PIN_ENCRYPTION),
    DukptKeyUse.MAC_REQUEST: ("2000", KeyUsage.MESSAGE_MAC),
    DukptKeyUse.MAC_RESPONSE: ("2001", KeyUsage.MESSAGE_MAC),
    DukptKeyUse.MAC_BOTH: ("2002", KeyUsage.MESSAGE_MAC),
    DukptKeyUse.DATA_REQUEST: ("3000", KeyUsage.DATA_ENCRYPTION),
    DukptKeyUse.DATA_RESPONSE: ("3001", KeyUsage.DATA_ENCRYPTION),
    DukptKeyUse.DATA_BOTH: ("3002", KeyUsage.DATA_ENCRYPTION),
}
ALLOWED = {
    "AES-128": {"TDES_2KEY", "AES_128"},
    "AES-192": {"TDES_2KEY", "AES_128", "AES_192"},
    "AES-256": {"TDES_2KEY", "AES_128", "AES_192", "AES_256"},
    "SM4": {"SM4"},
}


def with_counter(counter: int) -> bytes:
    return IDENTITY + counter.to_bytes(4)


def initial_key_of(bdk: Key) -> Key:
    return derive_initial_key(bdk, ksn=with_counter(0))


def test_keys_of_the_first_transaction(vectors):
    v = vectors["aes-128 dukpt"]
    bdk = Key(Cipher.AES, KeyUsage.BDK, bytes.fromhex(v["bdk"]))
    ksn = bytes.fromhex(v["ikid"]) + (1).to_bytes(4)
    initial_key = derive_initial_key(bdk, ksn=ksn)
    assert initial_key == Key(Cipher.AES, KeyUsage.DUKPT_INITIAL, bytes.fromhex(v["initial_key"]))
    assert derive_transaction_value(initial_key, ksn=ksn) == bytes.fromhex(v["counter_1_derivation"])
    terminal = AesDukptTerminal(initial_key, ksn=ksn[:8] + bytes(4))
    assert terminal.begin() == ksn
    for use, field in (
        (DukptKeyUse.PIN, "counter_1_pin"),
        (DukptKeyUse.MAC_REQUEST, "counter_1_mac_generation"),
        (DukptKeyUse.DATA_REQUEST, "counter_1_data_encryption"),
    ):
        expected = Key(Cipher.AES, USAGES[use][1], bytes.fromhex(v[field]))
        assert derive_working_key(initial_key, ksn=ksn, use=use) == expected
        assert terminal.working_key(use) == expected
        assert DukptHost(bdk).working_keys([(ksn, use)]) == [expected]


@pytest.mark.parametrize("name", TRANSACTION_KEYS)
def test_transaction_keys(vectors, name):
    v = vectors[name]
    bdk = Key(Cipher.AES, KeyUsage.BDK, bytes.fromhex(v["bdk"]))
    identity = bytes.fromhex(v["ikid"])
    initial_key = derive_initial_key(bdk, ksn=identity + bytes(4))
    assert initial_key.value == bytes.fromhex(v["initial_key"])
    for counter, value in v["keys"].items():
        ksn = identity + bytes.fromhex(counter)
        assert derive_transaction_value(initial_key, ksn=ksn) == bytes.fromhex(value)


@EACH_BDK
def test_initial_key_ignores_the_counter(bdk):
    assert derive_initial_key(bdk, ksn=with_counter(0xFFFF0000)) == initial_key_of(bdk)


def test_derivation_data_name_version_block_usage_algorithm_bits_and_tail():
    tail = 0x9012345600000001
    data = derivation_data(usage=0x1000, shape=KEY_SHAPES[WorkingKeyType.AES_192], tail=tail)
    assert data.hex() == "01011000000300c09012345600000001" + "01021000000300c09012345600000001"
    data = derivation_data(usage=0x8000, shape=KEY_SHAPES[WorkingKeyType.SM4], tail=tail)
    assert data.hex() == "01018000ff0100809012345600000001"


@EACH_BDK
def test_every_use_has_its_own_key_and_usage(bdk):
    initial_key = initial_key_of(bdk)
    keys = {use: derive_working_key(initial_key, ksn=with_counter(5), use=use) for use in DukptKeyUse}
    assert {use: key.usage for use, key in keys.items()} == {use: row[1] for use, row in USAGES.items()}
    assert len({key.value for key in keys.values()}) == len(DukptKeyUse)


@pytest.mark.parametrize("use", DukptKeyUse)
def test_a_working_key_is_the_encrypted_derivation_data(use):
    ksn = with_counter(0x30)
    initial_key = initial_key_of(BDKS["AES-256"])
    upper = Key(Cipher.AES, KeyUsage.DATA_ENCRYPTION, derive_transaction_value(initial_key, ksn=ksn))
    data = bytes.fromhex("0101" + USAGES[use][0] + "00020080") + ksn[4:]
    key = derive_working_key(initial_key, ksn=ksn, use=use, key_type=WorkingKeyType.AES_128)
    assert key == Key(Cipher.AES, USAGES[use][1], encrypt_ecb(upper, data))


@pytest.mark.parametrize("name", BDKS)
@pytest.mark.parametrize("key_type", WorkingKeyType)
def test_a_working_key_is_never_stronger_than_its_source(name, key_type):
    bdk, ksn, use = BDKS[name], with_counter(6), DukptKeyUse.DATA_BOTH
    initial_key = initial_key_of(bdk)
    terminal = AesDukptTerminal(initial_key, ksn=with_counter(5))
    terminal.begin()
    host = DukptHost(bdk)
    if key_type.value in ALLOWED[name]:
        key = derive_working_key(initial_key, ksn=ksn, use=use, key_type=key_type)
        assert (key.cipher, len(key.value)) == (KEY_SHAPES[key_type].cipher, KEY_SHAPES[key_type].size)
        assert terminal.working_key(use, key_type=key_type) == key
        assert host.working_keys([(ksn, use)], key_type=key_type) == [key]
        return
    with pytest.raises(KeyUsageError):
        derive_working_key(initial_key, ksn=ksn, use=use, key_type=key_type)
    with pytest.raises(KeyUsageError):
        terminal.working_key(use, key_type=key_type)
    with pytest.raises(KeyUsageError):
        host.working_keys([(ksn, use)], key_type=key_type)


@EACH_BDK
def test_another_bit_of_the_ksn_gives_another_key(bdk):
    ksn = with_counter(0x2A)
    keys = {derive_from_bdk(bdk, ksn=ksn, use=DukptKeyUse.PIN).value}
    for bit in range(96):
        other = (int.from_bytes(ksn) ^ 1 << bit).to_bytes(12)
        keys.add(derive_from_bdk(bdk, ksn=other, use=DukptKeyUse.PIN).value)
    assert len(keys) == 97


def test_sm4_and_aes_of_one_value_have_nothing_in_common():
    aes, sm4 = initial_key_of(BDKS["AES-128"]), initial_key_of(BDKS["SM4"])
    assert aes.value != sm4.value
    assert sm4.cipher is Cipher.SM4


@pytest.mark.parametrize(
    "ksn",
    [
        b"",
        with_counter(1)[1:],
        with_counter(1) + b"\x00",
        with_counter(0),
        with_counter(0x1FFFF),
        IDENTITY * 2,
    ],
    ids=["empty", "short", "long", "counter zero", "seventeen ones", "sixteen bytes"],
)
@EACH_BDK
def test_a_ksn_of_no_transaction_is_refused(bdk, ksn):
    with pytest.raises(KsnError) as caught:
        derive_working_key(initial_key_of(bdk), ksn=ksn, use=DukptKeyUse.PIN)
    assert "123456" not in str(caught.value)
    good = with_counter(1)
    bad, neighbour = DukptHost(bdk).working_keys([(ksn, DukptKeyUse.PIN), (good, DukptKeyUse.PIN)])
    assert isinstance(bad, KsnError)
    assert neighbour == derive_from_bdk(bdk, ksn=good, use=DukptKeyUse.PIN)


@pytest.mark.parametrize("ksn", [b"", IDENTITY, with_counter(0) + b"\x00"], ids=["empty", "short", "long"])
def test_a_terminal_is_not_loaded_with_a_ksn_of_another_length(ksn):
    with pytest.raises(KsnError):
        derive_initial_key(BDKS["AES-128"], ksn=ksn)
    with pytest.raises(KsnError):
        AesDukptTerminal(initial_key_of(BDKS["AES-128"]), ksn=ksn)


def test_a_terminal_is_not_loaded_with_a_counter_of_seventeen_ones():
    with pytest.raises(KsnError):
        AesDukptTerminal(initial_key_of(BDKS["AES-128"]), ksn=with_counter(0x1FFFF))


@pytest.mark.parametrize(
    "key",
    [
        Key(Cipher.AES, KeyUsage.DUKPT_INITIAL, VALUE),
        Key(Cipher.SM4, KeyUsage.PIN_ENCRYPTION, VALUE[:16]),
        Key(Cipher.TDES, KeyUsage.BDK, VALUE[:16]),
    ],
    ids=repr,
)
def test_only_an_aes_or_sm4_bdk_gives_initial_keys(key):
    with pytest.raises(KeyUsageError):
        derive_initial_key(key, ksn=with_counter(0))


@pytest.mark.parametrize(
    "key", [BDKS["AES-128"], Key(Cipher.TDES, KeyUsage.DUKPT_INITIAL, VALUE[:16])], ids=repr
)
def test_only_an_aes_or_sm4_initial_key_gives_transaction_keys(key):
    with pytest.raises(KeyUsageError):
        derive_working_key(key, ksn=with_counter(1), use=DukptKeyUse.PIN)
    with pytest.raises(KeyUsageError):
        AesDukptTerminal(key, ksn=with_counter(0))


@EACH_BDK
def test_a_terminal_at_its_end_raises(bdk):
    initial_key = initial_key_of(bdk)
    terminal = AesDukptTerminal(initial_key, ksn=with_counter(0xFFFE8000))
    assert terminal.begin() == with_counter(0xFFFF0000)
    last = derive_working_key(initial_key, ksn=with_counter(0xFFFF0000), use=DukptKeyUse.PIN)
    assert terminal.working_key(DukptKeyUse.PIN) == last
    for _ in range(2):
        with pytest.raises(KeyStateError):
            terminal.begin()
        with pytest.raises(KeyStateError):
            terminal.working_key(DukptKeyUse.PIN)
    with pytest.raises(KeyStateError):
        AesDukptTerminal(initial_key, ksn=with_counter(0xFFFF0000)).begin()


def test_a_terminal_skips_counters_of_more_than_sixteen_ones():
    terminal = AesDukptTerminal(initial_key_of(BDKS["AES-128"]), ksn=with_counter(0x1FFFD))
    assert [terminal.begin() for _ in range(3)] == [with_counter(c) for c in (0x1FFFE, 0x20000, 0x20001)]


def test_a_terminal_has_no_key_outside_a_transaction():
    terminal = AesDukptTerminal(initial_key_of(BDKS["SM4"]), ksn=with_counter(0))
    with pytest.raises(KeyStateError):
        terminal.working_key(DukptKeyUse.PIN)
    terminal.begin()
    terminal.working_key(DukptKeyUse.PIN)
    terminal.end()
    with pytest.raises(KeyStateError):
        terminal.working_key(DukptKeyUse.PIN)


@EACH_BDK
def test_a_terminal_holds_no_used_key_and_not_the_initial_key(bdk):
    initial_key = initial_key_of(bdk)
    terminal = AesDukptTerminal(initial_key, ksn=with_counter(0))
    used = {initial_key.value}
    for _ in range(100):
        used.add(derive_transaction_value(initial_key, ksn=terminal.begin()))
        terminal.end()
        held = set(terminal._future._registers.values())
        assert len(held) <= 32
        assert not held & used


@EACH_BDK
def test_holders_of_keys_are_masked_and_neither_pickled_nor_copied(bdk):
    for holder in (AesDukptTerminal(initial_key_of(bdk), ksn=with_counter(0)), DukptHost(bdk)):
        assert repr(holder) == f"{type(holder).__name__}(****)"
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                duplicate(holder)


@EACH_BDK
def test_the_hosts_memory_is_bounded_and_can_be_forgotten(bdk):
    host = DukptHost(bdk, cache_max=3)
    requests = [(with_counter(counter), DukptKeyUse.MAC_BOTH) for counter in range(1, 200)]
    expected = [derive_from_bdk(bdk, ksn=ksn, use=use) for ksn, use in requests]
    assert host.working_keys(requests) == expected
    assert 0 < len(host._families) <= 3
    host.forget()
    assert not host._families
    assert host.working_keys(requests[::-1]) == expected[::-1]
