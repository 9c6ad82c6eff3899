"""A chip of the tests: personalised by the store, answering as a card does."""

from crypto.cryptogram import generate_arqc
from crypto.diversification import SessionMethod, derive_emv_common_session_key, derive_pboc_session_key
from crypto.internal_authentication import generate_response
from crypto.key_store.checks import ArqcCheck, CardKeys, InternalAuthenticationCheck
from crypto.key_store.software import SoftwareKeyStore

ATR = bytes.fromhex("00814E43238697159900BF7C7A")
DATA = bytes(range(37))


def personalise(store: SoftwareKeyStore, algorithm: str, pan: str) -> CardKeys:
    return store.personalise(
        imk=store.active(f"imk-ac-{algorithm}"),
        ss_master=store.active(f"ss-auth-{algorithm}"),
        pan=pan,
        psn="00",
        region="360102",
        atr_historical_bytes=ATR,
    )


def make_check(store: SoftwareKeyStore, algorithm: str, number: int = 0, *, emv: bool = False) -> ArqcCheck:
    pan = f"62170000100{number:08d}"
    udk = personalise(store, algorithm, pan).udk_ac
    if emv:
        session_key = derive_emv_common_session_key(udk, diversifier=b"\x00\x07" + bytes(6))
    else:
        session_key = derive_pboc_session_key(udk, atc=7)
    return ArqcCheck(
        key=store.active(f"imk-ac-{algorithm}"),
        pan=pan,
        psn="00",
        data=DATA,
        atc=7,
        arqc=generate_arqc(session_key, DATA),
        session_method=SessionMethod.EMV_COMMON if emv else SessionMethod.PBOC,
    )


def make_answer(store: SoftwareKeyStore, algorithm: str, number: int = 0) -> InternalAuthenticationCheck:
    card_key = personalise(store, algorithm, "6217000010012345678").ss_authentication
    challenge = {"process_factor": number.to_bytes(8), "original_data": bytes(8)}
    return InternalAuthenticationCheck(
        key=store.active(f"ss-auth-{algorithm}"),
        region="360102",
        atr_historical_bytes=ATR,
        response=generate_response(card_key, **challenge),
        **challenge,
    )
