"""Software, batch and strict mode compute alike: the same masters, the same cards, the same answers."""

from dataclasses import replace

import pytest
from crypto_virtual_card import ATR

from crypto.blocks import encrypt_ecb
from crypto.cryptogram import ArqcSession
from crypto.diversification import SessionMethod, derive_level_key, derive_ss_card_key, session_factor
from crypto.internal_authentication import generate_response
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.token_settings import TokenMode
from crypto.keys import Cipher, Key, KeyUsage

MASTERS = {
    Cipher.SM4: bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"),
    Cipher.TDES: bytes.fromhex("0023456789ABCDEFFEDCBA9876543211"),
    Cipher.AES: bytes(range(32)),
}
CIPHERS = pytest.mark.parametrize("cipher", MASTERS, ids=lambda cipher: cipher.value)


@pytest.fixture
def store(token, tmp_path):
    return Pkcs11KeyStore.create(tmp_path / "keys", token)


@pytest.fixture
def strict_store(token, tmp_path):
    return Pkcs11KeyStore.create(tmp_path / "strict", replace(token, mode=TokenMode.STRICT))


def installed(store, cipher, usage):
    info = store.install(f"given-{cipher.value.lower()}", Key(cipher, usage, MASTERS[cipher]))
    return store.activate(info.ref).ref


@pytest.mark.parametrize("method", SessionMethod)
@CIPHERS
def test_every_backend_proves_and_answers_alike_under_the_same_master(
    store, strict_store, tmp_path, cipher, method
):
    software = SoftwareKeyStore.create(tmp_path / "software")
    stores = [software, store, strict_store]
    refs = [installed(each, cipher, KeyUsage.IMK_AC) for each in stores]
    checks = []
    for number, length in enumerate([1, 7, 8, 9, 16, 37, 40, 252]):
        pan = f"62170000100{number:08d}"
        udk = software.diversify_udks(refs[0], [(pan, "01")])[0]
        data = bytes(range(length))
        if method is SessionMethod.EMV_COMMON and cipher is Cipher.SM4:
            continue
        session = session_of(udk, method, atc=number)
        check = ArqcCheck(
            key=refs[0],
            pan=pan,
            psn="01",
            data=data,
            atc=number,
            arqc=session.mac(data),
            session_method=method,
        )
        checks.append(check)
    answers = []
    for each, ref in zip(stores, refs, strict=True):
        for check in checks:
            check.key = ref
        verified = each.verify_arqcs(checks)
        assert all(verified)
        answers.append(
            [
                [proven.arpc(b"00"), proven.arpc(b"51")]
                + [proven.arpc_method_2(csu=bytes(4), proprietary=bytes(n)) for n in (0, 4, 8)]
                for proven in verified
            ]
        )
        checks_changed = [changed(check) for check in checks]
        assert each.verify_arqcs(checks_changed) == [None] * len(checks)
    assert answers[0] == answers[1] == answers[2]
    assert len({answer[0] for answer in answers[0]}) == len(checks)


def session_of(udk, method, *, atc):
    return ArqcSession(udk.cipher, encrypt_ecb(udk, session_factor(udk.cipher, method, atc)))


def changed(check):
    arqc = bytes([check.arqc[0] ^ 1]) + check.arqc[1:]
    return ArqcCheck(key=check.key, pan=check.pan, psn=check.psn, data=check.data, atc=check.atc, arqc=arqc)


@CIPHERS
def test_every_backend_proves_internal_authentication_alike(store, strict_store, tmp_path, cipher):
    software = SoftwareKeyStore.create(tmp_path / "software")
    for each in (software, store, strict_store):
        ref = installed(each, cipher, KeyUsage.SS_AUTHENTICATION_PROVINCE)
        checks = [
            InternalAuthenticationCheck(
                key=ref,
                region=region,
                atr_historical_bytes=ATR,
                process_factor=bytes(7) + b"\x01",
                original_data=bytes(range(8)),
                response=RESPONSES[cipher, region],
            )
            for region in ("360102", "360702")
        ]
        assert each.verify_internal_authentications(checks) == [True, True]
        checks[1].response = checks[0].response
        checks[0].original_data += b"\0"
        assert each.verify_internal_authentications(checks) == [False, False]


def responses():
    """The standard functions' answers, level by level."""
    answers = {}
    for cipher, value in MASTERS.items():
        province = Key(cipher, KeyUsage.SS_AUTHENTICATION_PROVINCE, value)
        for region in ("360102", "360702"):
            city = derive_level_key(province, region=region[:4] + "00")
            card = derive_ss_card_key(city, atr_historical_bytes=ATR)
            challenge = {"process_factor": bytes(7) + b"\x01", "original_data": bytes(range(8))}
            answers[cipher, region] = generate_response(card, **challenge)
    return answers


RESPONSES = responses()
