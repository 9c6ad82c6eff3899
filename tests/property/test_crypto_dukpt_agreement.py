"""DUKPT three ways, as a terminal, straight on the host and in batches on the host, is one DUKPT."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import dukpt_aes, dukpt_tdes
from crypto.dukpt_aes import AesDukptTerminal, WorkingKeyType
from crypto.dukpt_host import DukptHost, derive_working_key
from crypto.dukpt_tdes import DukptKeyUse, KsnError, TdesDukptTerminal
from crypto.keys import Cipher, Key, KeyUsage

TRANSACTIONS = 10_000
SEED = 20260102

KINDS = {"3DES": (Cipher.TDES, 16), "AES-128": (Cipher.AES, 16), "AES-192": (Cipher.AES, 24)}
KINDS |= {"AES-256": (Cipher.AES, 32), "SM4": (Cipher.SM4, 16)}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
TDES_USES = [use for use in DukptKeyUse if use is not DukptKeyUse.KEY_ENCRYPTION]


def bdk_of(kind: tuple[Cipher, int], draw: random.Random) -> Key:
    return Key(kind[0], KeyUsage.BDK, draw.randbytes(kind[1]))


def uses_of(bdk: Key) -> list[DukptKeyUse]:
    return TDES_USES if bdk.cipher is Cipher.TDES else list(DukptKeyUse)


def ksn_of(bdk: Key, *, identity: int, counter: int) -> bytes:
    """59 bits ‖ 21 bits, or 64 bits ‖ 32 bits."""
    if bdk.cipher is Cipher.TDES:
        return (identity >> 5 << 21 | counter).to_bytes(10)
    return (identity << 32 | counter).to_bytes(12)


def terminal_of(bdk: Key, ksn: bytes) -> TdesDukptTerminal | AesDukptTerminal:
    if bdk.cipher is Cipher.TDES:
        return TdesDukptTerminal(dukpt_tdes.derive_initial_key(bdk, ksn=ksn), ksn=ksn)
    return AesDukptTerminal(dukpt_aes.derive_initial_key(bdk, ksn=ksn), ksn=ksn)


def counter_of(bdk: Key, draw: random.Random) -> int:
    bits, ones_max = (21, 10) if bdk.cipher is Cipher.TDES else (32, 16)
    return sum(1 << bit for bit in draw.sample(range(bits), draw.randint(1, ones_max)))


@EACH_KIND
def test_terminals_and_the_host_in_batches_agree_over_many_transactions(kind):
    draw = random.Random(SEED)
    bdk = bdk_of(kind, draw)
    # Some terminals are new, others start anywhere.
    terminals = [terminal_of(bdk, ksn_of(bdk, identity=draw.getrandbits(64), counter=0)) for _ in range(4)]
    for _ in range(4):
        ksn = ksn_of(bdk, identity=draw.getrandbits(64), counter=counter_of(bdk, draw) >> 1)
        terminals.append(terminal_of(bdk, ksn))
    host = DukptHost(bdk, cache_max=64)
    for _ in range(TRANSACTIONS // 250):
        requests, expected = [], []
        for _ in range(250):
            terminal, use = draw.choice(terminals), draw.choice(uses_of(bdk))
            requests.append((terminal.begin(), use))
            expected.append(terminal.working_key(use))
        assert host.working_keys(requests) == expected


@EACH_KIND
def test_straight_and_batched_derivation_agree_on_counters_at_random(kind):
    draw = random.Random(SEED)
    bdk = bdk_of(kind, draw)
    identities = [draw.getrandbits(64) for _ in range(50)]
    host = DukptHost(bdk, cache_max=500)
    for _ in range(TRANSACTIONS // 250):
        requests = [
            (
                ksn_of(bdk, identity=draw.choice(identities), counter=counter_of(bdk, draw)),
                draw.choice(uses_of(bdk)),
            )
            for _ in range(250)
        ]
        straight = [derive_working_key(bdk, ksn=ksn, use=use) for ksn, use in requests]
        assert host.working_keys(requests) == straight


@EACH_KIND
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_host_and_terminal_agree_wherever_the_terminal_starts(kind, data):
    cipher, size = kind
    bdk = Key(cipher, KeyUsage.BDK, data.draw(st.binary(min_size=size, max_size=size)))
    bits, ones_max = (21, 10) if cipher is Cipher.TDES else (32, 16)
    ones = data.draw(st.sets(st.integers(0, bits - 2), max_size=ones_max))
    identity = data.draw(st.integers(0, 2**64 - 1))
    terminal = terminal_of(bdk, ksn_of(bdk, identity=identity, counter=sum(1 << bit for bit in ones)))
    host = DukptHost(bdk, cache_max=data.draw(st.integers(1, 20)))
    for use in data.draw(st.lists(st.sampled_from(uses_of(bdk)), min_size=1, max_size=12)):
        ksn = terminal.begin()
        key = terminal.working_key(use)
        assert derive_working_key(bdk, ksn=ksn, use=use) == key
        assert host.working_keys([(ksn, use)]) == [key]


@settings(max_examples=60, deadline=None)
@given(
    ones=st.sets(st.integers(0, 31), min_size=1, max_size=16),
    key_type=st.sampled_from([t for t in WorkingKeyType if t is not WorkingKeyType.SM4]),
    use=st.sampled_from(DukptKeyUse),
)
def test_working_keys_of_every_type_agree_under_aes_256(ones, key_type, use):
    bdk = Key(Cipher.AES, KeyUsage.BDK, bytes(range(32)))
    ksn = ksn_of(bdk, identity=2**63 + 5, counter=sum(1 << bit for bit in ones))
    key = derive_working_key(bdk, ksn=ksn, use=use, key_type=key_type)
    # Twice: the second answer comes from the memory.
    host = DukptHost(bdk)
    assert host.working_keys([(ksn, use)] * 2, key_type=key_type) == [key] * 2


@EACH_KIND
@settings(max_examples=60, deadline=None)
@given(ksns=st.lists(st.binary(max_size=13) | st.binary(min_size=10, max_size=12), max_size=20))
def test_any_bytes_as_ksn_give_what_straight_derivation_gives(kind, ksns):
    bdk = Key(kind[0], KeyUsage.BDK, bytes(range(kind[1])))
    results = DukptHost(bdk).working_keys([(ksn, DukptKeyUse.PIN) for ksn in ksns])
    for ksn, result in zip(ksns, results, strict=True):
        if isinstance(result, KsnError):
            with pytest.raises(KsnError):
                derive_working_key(bdk, ksn=ksn, use=DukptKeyUse.PIN)
        else:
            assert derive_working_key(bdk, ksn=ksn, use=DukptKeyUse.PIN) == result
