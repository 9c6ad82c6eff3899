"""Key stores of every backend: what they refuse, and what one card's fault must not do to its neighbours."""

import pickle
import threading

import pytest
from crypto_virtual_card import ATR, DATA, make_answer, make_check, personalise
from key_store_bureau import Bureau, handing_out_card_keys

from crypto.cryptogram import generate_arpc_method_1, generate_arpc_method_2
from crypto.diversification import (
    SessionMethod,
    derive_level_key,
    derive_pboc_session_key,
    derive_ss_card_key,
    derive_udk,
)
from crypto.errors import (
    KeyNotFoundError,
    KeyUsageError,
)
from crypto.key_store import KeyStore
from crypto.key_store.diagnosis import ArqcFinding
from crypto.key_store.software import DEVELOPMENT_KEYS
from crypto.keys import KeyRef, KeyState
from crypto.macs import Padding, mac_algorithm_1

ALGORITHMS = pytest.mark.parametrize("algorithm", ["sm4", "tdes", "aes"])


def test_the_store_fulfils_the_protocol(any_store):
    protocol: KeyStore = any_store
    assert {info.name for info in protocol.describe()} == set(DEVELOPMENT_KEYS)
    for info in protocol.describe():
        assert (info.version, info.state) == (1, KeyState.ACTIVE)
        assert (info.cipher, info.usage) == DEVELOPMENT_KEYS[info.name]
        assert len(info.kcv) == 6
        assert protocol.active(info.name) == info.ref == KeyRef(info.name, 1)


@pytest.mark.parametrize("emv", [False, True])
@pytest.mark.parametrize("algorithm", ["tdes", "aes"])
def test_session_methods_of_emv_and_pboc_are_both_proven(any_store, algorithm, emv):
    assert any_store.verify_arqcs([make_check(Bureau(any_store), algorithm, emv=emv)])[0] is not None


def test_emv_session_keys_do_not_exist_for_sm4_and_prove_nothing(any_store):
    check = make_check(Bureau(any_store), "sm4")
    check.session_method = SessionMethod.EMV_COMMON
    assert any_store.verify_arqcs([check]) == [None]


@ALGORITHMS
def test_a_proven_cryptogram_answers_the_card_as_the_standard_functions_do(any_store, algorithm):
    check = make_check(Bureau(any_store), algorithm)
    udk = personalise(Bureau(any_store), algorithm, check.pan).udk_ac
    session_key = derive_pboc_session_key(udk, atc=check.atc)
    (verified,) = any_store.verify_arqcs([check])
    assert verified is not None
    for arc in (b"00", b"51"):
        expected = generate_arpc_method_1(session_key, arqc=check.arqc, arc=arc)
        assert verified.arpc(arc) == expected
    csu, proprietary = bytes.fromhex("03800000"), b"four"
    expected = generate_arpc_method_2(session_key, arqc=check.arqc, csu=csu, proprietary=proprietary)
    assert verified.arpc_method_2(csu=csu, proprietary=proprietary) == expected
    assert verified.arpc(b"00") == generate_arpc_method_1(session_key, arqc=check.arqc, arc=b"00")


def test_one_bad_card_neither_passes_nor_fails_its_neighbours(any_store):
    checks = [
        make_check(Bureau(any_store), ("sm4", "tdes", "aes")[number % 3], number) for number in range(12)
    ]
    checks[1].arqc = bytes(8)
    checks[2].key = KeyRef("imk-ac-sm4", 9)
    checks[3].key = KeyRef("no-such-key", 1)
    checks[4].key = any_store.active("sealing")
    checks[5].pan = "malformed"
    checks[6].atc = 65536
    checks[7].arqc = checks[7].arqc[:7]
    checks[8].psn = ""
    checks[9].data = DATA[:-1]
    proven = [result is not None for result in any_store.verify_arqcs(checks)]
    assert proven == [True] + [False] * 9 + [True, True]
    assert any_store.verify_arqcs([]) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({}, ArqcFinding.PROVEN),
        ({"key": KeyRef("imk-ac-sm4", 9)}, ArqcFinding.KEY_UNKNOWN),
        ({"key": KeyRef("sealing", 1)}, ArqcFinding.KEY_OF_OTHER_USAGE),
        ({"key": KeyRef("imk-ac-aes", 1)}, ArqcFinding.FITS_OTHER_PARAMETERS),
        ({"session_method": SessionMethod.EMV_COMMON}, ArqcFinding.FITS_OTHER_PARAMETERS),
        ({"pan": "1"}, ArqcFinding.CARD_NUMBER_MALFORMED),
        ({"atc": -1}, ArqcFinding.COUNTER_MALFORMED),
        ({"arqc": b""}, ArqcFinding.CRYPTOGRAM_MALFORMED),
        ({"arqc": bytes(8)}, ArqcFinding.FITS_NOTHING),
    ],
)
def test_operators_are_told_why_a_cryptogram_is_not_proven(any_store, change, finding):
    check = make_check(Bureau(any_store), "sm4")
    for name, value in change.items():
        setattr(check, name, value)
    with handing_out_card_keys(any_store) as store:
        explanation = store.explain_arqc(check)
    assert explanation.finding is finding
    if finding is ArqcFinding.FITS_OTHER_PARAMETERS:
        assert explanation.fitting is not None
        assert explanation.fitting.key == KeyRef("imk-ac-sm4", 1)


def test_operators_are_told_of_a_card_that_pads_otherwise(any_store):
    check = make_check(Bureau(any_store), "sm4")
    udk = personalise(Bureau(any_store), "sm4", check.pan).udk_ac
    session_key = derive_pboc_session_key(udk, atc=check.atc)
    check.arqc = mac_algorithm_1(session_key, DATA, padding=Padding.ZEROS, size=8)
    explanation = any_store.explain_arqc(check)
    assert explanation.finding is ArqcFinding.FITS_OTHER_PARAMETERS
    assert explanation.fitting is not None
    assert explanation.fitting.padding is Padding.ZEROS


def test_card_keys_of_a_batch_are_those_of_the_standard_function(store):
    cards = [(f"62170000100{number:08d}", f"{number % 3:02d}") for number in range(20)]
    udks = store.diversify_udks(store.active("imk-ac-sm4"), cards)
    imk = store._keys[store.active("imk-ac-sm4")][1]
    assert udks == [derive_udk(imk, pan=pan, psn=psn) for pan, psn in cards]
    with pytest.raises(ValueError, match="card number"):
        store.diversify_udks(store.active("imk-ac-sm4"), [*cards, ("1", "00")])


@ALGORITHMS
def test_internal_authentications_are_proven_one_by_one(any_store, algorithm):
    checks = [make_answer(Bureau(any_store), algorithm, number) for number in range(10)]
    checks[1].response = bytes(8)
    checks[2].region = "360200"
    checks[3].region = "3601"
    checks[4].atr_historical_bytes = ATR[:-1] + b"\0"
    checks[5].process_factor = bytes(7)
    checks[6].key = KeyRef("ss-auth-sm4", 9)
    checks[7].key = any_store.active("imk-ac-sm4")
    checks[8].response = checks[8].response[:7]
    results = any_store.verify_internal_authentications(checks)
    assert results == [True, *[False] * 8, True]
    assert any_store.verify_internal_authentications([]) == []


def test_a_personalised_card_holds_the_key_of_the_hierarchy(store):
    master = store._keys[store.active("ss-auth-sm4")][1]
    city = derive_level_key(master, region="360100")
    expected = derive_ss_card_key(city, atr_historical_bytes=ATR)
    assert personalise(store, "sm4", "6217000010012345678").ss_authentication == expected


def test_nothing_of_the_store_shows_a_key_or_a_card_number(store):
    check = make_check(store, "sm4", 12345)
    (verified,) = store.verify_arqcs([check])
    udk = personalise(store, "sm4", check.pan)
    shown = f"{store!r} {check!r} {verified!r} {udk!r} {make_answer(store, 'sm4')!r} {store.describe()!r}"
    assert check.pan not in shown
    for _, key in store._keys.values():
        assert key.value.hex() not in shown.lower()
        assert repr(key.value) not in shown
    with pytest.raises(TypeError):
        pickle.dumps(verified)


def test_a_handle_serves_its_usage_only(any_store):
    for name, call in {
        "sealing": any_store.sealer,
        "blind-index": any_store.blind_index,
        "card-code": any_store.card_codes,
        "challenge": any_store.challenges,
        "request-digest": any_store.request_digest,
        "identification-code": any_store.identification_codes,
    }.items():
        call(any_store.active(name))
        with pytest.raises(KeyUsageError):
            call(any_store.active("imk-ac-sm4"))
        with pytest.raises(KeyNotFoundError):
            call(KeyRef(name, 2))
    with pytest.raises(KeyUsageError):
        any_store.diversify_udks(any_store.active("sealing"), [])
    with pytest.raises(KeyNotFoundError):
        any_store.active("no-such-key")


def test_threads_share_a_store(any_store):
    checks = [
        make_check(Bureau(any_store), ("sm4", "tdes", "aes")[number % 3], number) for number in range(60)
    ]
    failures: list[object] = []

    def verify() -> None:
        try:
            for _ in range(5):
                if any(result is None for result in any_store.verify_arqcs(checks)):
                    failures.append("not proven")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=verify) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
