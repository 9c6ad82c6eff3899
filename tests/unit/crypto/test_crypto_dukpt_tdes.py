"""DUKPT under 3DES: the standard's own sequences, both sides, and what is refused."""

import copy
import pickle

import pytest

from crypto.blocks import encrypt_cbc, encrypt_ecb
from crypto.dukpt_aes import WorkingKeyType
from crypto.dukpt_host import DukptHost
from crypto.dukpt_host import derive_working_key as derive_from_bdk
from crypto.dukpt_tdes import (
    DukptKeyUse,
    KsnError,
    TdesDukptTerminal,
    derive_initial_key,
    derive_transaction_value,
    derive_working_key,
    next_counter,
)
from crypto.errors import KeyStateError, KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, mac_algorithm_3

BDK = Key(Cipher.TDES, KeyUsage.BDK, bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
NEW_KSN = bytes.fromhex("FFFF9876543210E00000")
FIRST_KSN = bytes.fromhex("FFFF9876543210E00001")
INITIAL_KEY = derive_initial_key(BDK, ksn=NEW_KSN)
SEQUENCES = ["tdes dukpt", "tdes dukpt, initial sequence", "tdes dukpt, rollover sequence"]
USES = [use for use in DukptKeyUse if use is not DukptKeyUse.KEY_ENCRYPTION]


def with_counter(counter: int) -> bytes:
    return (int.from_bytes(NEW_KSN) | counter).to_bytes(10)


def test_initial_key(vectors):
    v = vectors["tdes dukpt"]
    assert bytes.fromhex(v["bdk"]) == BDK.value
    initial_key = derive_initial_key(BDK, ksn=bytes.fromhex(v["iksn"]))
    assert initial_key == Key(Cipher.TDES, KeyUsage.DUKPT_INITIAL, bytes.fromhex(v["initial_key"]))


def test_initial_key_ignores_the_counter():
    assert derive_initial_key(BDK, ksn=with_counter(0x1FF800)) == INITIAL_KEY


@pytest.mark.parametrize("name", SEQUENCES)
def test_transaction_keys(vectors, name):
    for ksn, value in vectors[name]["keys"].items():
        assert derive_transaction_value(INITIAL_KEY, ksn=bytes.fromhex(ksn)) == bytes.fromhex(value)


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_host_in_batches_and_the_terminal_reach_the_same_transaction_keys(vectors, name):
    keys = {bytes.fromhex(ksn): bytes.fromhex(value) for ksn, value in vectors[name]["keys"].items()}
    pin_mask = int.from_bytes(bytes.fromhex("00000000000000FF") * 2)
    expected = [(int.from_bytes(value) ^ pin_mask).to_bytes(16) for value in keys.values()]
    batch = DukptHost(BDK).working_keys([(ksn, DukptKeyUse.PIN) for ksn in keys])
    assert [key.value for key in batch] == expected
    for ksn, value in zip(keys, expected, strict=True):
        # A terminal that last used a counter whose next is this one.
        counter = int.from_bytes(ksn) & 0x1FFFFF
        last = next(c for c in range(counter - 1, -1, -1) if c.bit_count() <= 10)
        terminal = TdesDukptTerminal(INITIAL_KEY, ksn=with_counter(last))
        assert terminal.begin() == ksn
        assert terminal.working_key(DukptKeyUse.PIN).value == value


def test_the_rollover_sequence_is_what_a_terminal_counts(vectors):
    sequence = [bytes.fromhex(ksn) for ksn in vectors["tdes dukpt, rollover sequence"]["keys"]]
    terminal = TdesDukptTerminal(INITIAL_KEY, ksn=sequence[0])
    assert [terminal.begin() for _ in sequence[1:]] == sequence[1:]


def test_pin_blocks(vectors):
    v = vectors["tdes dukpt"]
    pin_field = bytes.fromhex("04" + v["pin"] + "F" * 10)
    pan_field = bytes.fromhex("0000" + v["pan"][:-1][-12:])
    block = bytes(a ^ b for a, b in zip(pin_field, pan_field, strict=True))
    blocks = {FIRST_KSN.hex(): v["pin_block_1"], **vectors["tdes dukpt, initial sequence"]["pin_blocks"]}
    for ksn, encrypted in blocks.items():
        key = derive_working_key(INITIAL_KEY, ksn=bytes.fromhex(ksn), use=DukptKeyUse.PIN)
        assert key.usage is KeyUsage.PIN_ENCRYPTION
        assert encrypt_ecb(key, block) == bytes.fromhex(encrypted)


@pytest.mark.parametrize(
    ("field", "use"), [("request", DukptKeyUse.MAC_REQUEST), ("response", DukptKeyUse.MAC_RESPONSE)]
)
def test_macs(vectors, field, use):
    v = vectors["tdes dukpt, macs"]
    for ksn, mac in v[field].items():
        key = derive_working_key(INITIAL_KEY, ksn=bytes.fromhex(ksn), use=use)
        assert key.usage is KeyUsage.MESSAGE_MAC
        tag = mac_algorithm_3(key, v["message_ascii"].encode(), padding=Padding.ZEROS, size=4)
        assert tag == bytes.fromhex(mac)


@pytest.mark.parametrize(
    ("field", "use"), [("request", DukptKeyUse.DATA_REQUEST), ("response", DukptKeyUse.DATA_RESPONSE)]
)
def test_data(vectors, field, use):
    v = vectors["tdes dukpt, data"]
    plaintext = v["message_ascii"].encode().ljust(24, b"\x00")
    for ksn, ciphertext in v[field].items():
        key = derive_working_key(INITIAL_KEY, ksn=bytes.fromhex(ksn), use=use)
        assert key.usage is KeyUsage.DATA_ENCRYPTION
        assert encrypt_cbc(key, iv=bytes(8), blocks=plaintext) == bytes.fromhex(ciphertext)


def test_request_and_both_ways_are_one_key_and_all_others_differ():
    keys = {use: derive_working_key(INITIAL_KEY, ksn=FIRST_KSN, use=use).value for use in USES}
    assert keys[DukptKeyUse.MAC_BOTH] == keys[DukptKeyUse.MAC_REQUEST]
    assert keys[DukptKeyUse.DATA_BOTH] == keys[DukptKeyUse.DATA_REQUEST]
    assert len(set(keys.values())) == len(USES) - 2


def test_another_bit_of_the_ksn_gives_another_key():
    ksn = with_counter(0x2A)
    keys = {derive_from_bdk(BDK, ksn=ksn, use=DukptKeyUse.PIN).value}
    for bit in range(80):
        other = (int.from_bytes(ksn) ^ 1 << bit).to_bytes(10)
        keys.add(derive_from_bdk(BDK, ksn=other, use=DukptKeyUse.PIN).value)
    assert len(keys) == 81


@pytest.mark.parametrize(
    "ksn",
    [b"", FIRST_KSN[1:], FIRST_KSN + b"\x00", NEW_KSN, with_counter(0x7FF), with_counter(0x1FFFFF)],
    ids=["empty", "short", "long", "counter zero", "eleven ones", "all ones"],
)
def test_a_ksn_of_no_transaction_is_refused(ksn):
    with pytest.raises(KsnError) as caught:
        derive_working_key(INITIAL_KEY, ksn=ksn, use=DukptKeyUse.PIN)
    assert "9876543210" not in str(caught.value)
    (result,) = DukptHost(BDK).working_keys([(ksn, DukptKeyUse.PIN)])
    assert isinstance(result, KsnError)


@pytest.mark.parametrize("ksn", [b"", NEW_KSN[1:], NEW_KSN + b"\x00"], ids=["empty", "short", "long"])
def test_a_terminal_is_not_loaded_with_a_ksn_of_another_length(ksn):
    with pytest.raises(KsnError):
        derive_initial_key(BDK, ksn=ksn)
    with pytest.raises(KsnError):
        TdesDukptTerminal(INITIAL_KEY, ksn=ksn)


def test_a_terminal_is_not_loaded_with_a_counter_of_eleven_ones():
    with pytest.raises(KsnError):
        TdesDukptTerminal(INITIAL_KEY, ksn=with_counter(0x7FF))


@pytest.mark.parametrize(
    "key",
    [
        Key(Cipher.TDES, KeyUsage.DUKPT_INITIAL, BDK.value),
        Key(Cipher.TDES, KeyUsage.PIN_ENCRYPTION, BDK.value),
        Key(Cipher.AES, KeyUsage.BDK, BDK.value),
        Key(Cipher.SM4, KeyUsage.BDK, BDK.value),
    ],
    ids=repr,
)
def test_only_a_3des_bdk_gives_initial_keys(key):
    with pytest.raises(KeyUsageError):
        derive_initial_key(key, ksn=NEW_KSN)


@pytest.mark.parametrize("key", [BDK, Key(Cipher.AES, KeyUsage.DUKPT_INITIAL, BDK.value)], ids=repr)
def test_only_a_3des_initial_key_gives_transaction_keys(key):
    with pytest.raises(KeyUsageError):
        derive_working_key(key, ksn=FIRST_KSN, use=DukptKeyUse.PIN)
    with pytest.raises(KeyUsageError):
        TdesDukptTerminal(key, ksn=NEW_KSN)


def test_there_is_no_key_encryption_key():
    with pytest.raises(KeyUsageError):
        derive_working_key(INITIAL_KEY, ksn=FIRST_KSN, use=DukptKeyUse.KEY_ENCRYPTION)
    results = DukptHost(BDK).working_keys(
        [(FIRST_KSN, DukptKeyUse.KEY_ENCRYPTION), (FIRST_KSN, DukptKeyUse.PIN)]
    )
    assert isinstance(results[0], KeyUsageError)
    assert results[1] == derive_working_key(INITIAL_KEY, ksn=FIRST_KSN, use=DukptKeyUse.PIN)


@pytest.mark.parametrize("key_type", [WorkingKeyType.AES_128, WorkingKeyType.SM4])
def test_3des_has_3des_working_keys_only(key_type):
    with pytest.raises(KeyUsageError):
        derive_from_bdk(BDK, ksn=FIRST_KSN, use=DukptKeyUse.PIN, key_type=key_type)
    with pytest.raises(KeyUsageError):
        DukptHost(BDK).working_keys([(FIRST_KSN, DukptKeyUse.PIN)], key_type=key_type)


def test_counters_of_more_than_ten_ones_are_skipped():
    counter, passed = 0, []
    while counter <= 0x1000:
        counter = next_counter(counter, ones_max=10)
        passed.append(counter)
    assert passed == [c for c in range(1, passed[-1] + 1) if c.bit_count() <= 10]


def test_a_terminal_at_its_end_raises():
    terminal = TdesDukptTerminal(INITIAL_KEY, ksn=with_counter(0x1FF200))
    assert terminal.begin() == with_counter(0x1FF400)
    assert terminal.begin() == with_counter(0x1FF800)
    last = terminal.working_key(DukptKeyUse.PIN)
    assert last == derive_working_key(INITIAL_KEY, ksn=with_counter(0x1FF800), use=DukptKeyUse.PIN)
    for _ in range(2):
        with pytest.raises(KeyStateError):
            terminal.begin()
        with pytest.raises(KeyStateError):
            terminal.working_key(DukptKeyUse.PIN)
    with pytest.raises(KeyStateError):
        TdesDukptTerminal(INITIAL_KEY, ksn=with_counter(0x1FF800)).begin()


def test_a_terminal_has_no_key_outside_a_transaction():
    terminal = TdesDukptTerminal(INITIAL_KEY, ksn=NEW_KSN)
    with pytest.raises(KeyStateError):
        terminal.working_key(DukptKeyUse.PIN)
    terminal.begin()
    terminal.working_key(DukptKeyUse.PIN)
    terminal.end()
    with pytest.raises(KeyStateError):
        terminal.working_key(DukptKeyUse.PIN)


def test_a_terminal_holds_no_used_key_and_not_the_initial_key():
    terminal = TdesDukptTerminal(INITIAL_KEY, ksn=NEW_KSN)
    used = {INITIAL_KEY.value}
    for _ in range(300):
        used.add(derive_transaction_value(INITIAL_KEY, ksn=terminal.begin()))
        terminal.end()
        held = set(terminal._future._registers.values())
        assert len(held) <= 21
        assert not held & used


@pytest.mark.parametrize("holder", [TdesDukptTerminal(INITIAL_KEY, ksn=NEW_KSN), DukptHost(BDK)], ids=repr)
def test_holders_of_keys_are_masked_and_neither_pickled_nor_copied(holder):
    assert repr(holder) == f"{type(holder).__name__}(****)"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(holder)


def test_the_hosts_memory_is_bounded_and_can_be_forgotten():
    host = DukptHost(BDK, cache_max=7)
    requests = [(with_counter(counter), DukptKeyUse.PIN) for counter in range(1, 513)]
    requests = [request for request in requests if int.from_bytes(request[0]) % 16]
    expected = [derive_from_bdk(BDK, ksn=ksn, use=use) for ksn, use in requests]
    assert host.working_keys(requests) == expected
    assert 0 < len(host._families) <= 7
    host.forget()
    assert not host._families
    assert host.working_keys(requests[::-1]) == expected[::-1]
    with pytest.raises(ValueError, match="at least one"):
        DukptHost(BDK, cache_max=0)


@pytest.mark.parametrize("key", [INITIAL_KEY, Key(Cipher.TDES, KeyUsage.PIN_ENCRYPTION, BDK.value)], ids=repr)
def test_a_host_needs_a_bdk(key):
    with pytest.raises(KeyUsageError):
        DukptHost(key)


def test_a_malformed_ksn_does_not_disturb_its_neighbours():
    good = [with_counter(counter) for counter in (1, 2, 3, 0x2A)]
    bad = [b"", NEW_KSN, with_counter(0x7FF), FIRST_KSN + b"\x00"]
    requests = [(ksn, DukptKeyUse.DATA_REQUEST) for pair in zip(good, bad, strict=True) for ksn in pair]
    results = DukptHost(BDK).working_keys(requests)
    assert results[::2] == [derive_from_bdk(BDK, ksn=ksn, use=DukptKeyUse.DATA_REQUEST) for ksn in good]
    assert [type(result) for result in results[1::2]] == [KsnError] * 4


def test_an_empty_batch_is_an_empty_answer():
    assert DukptHost(BDK).working_keys([]) == []
