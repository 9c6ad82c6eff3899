"""Requests of the tests for cryptography that keeps nothing, and the keys they name."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import psec
import pyemv
import pytest
from core_under_test import CALL_S, EVERYTHING, GRANTS_IN_FORCE_S, Caller, Core, refusal_of
from google.protobuf.message import Message
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import OTHER, PinPad, key, zpk

from crypto import macs
from crypto.cryptogram import generate_arqc
from crypto.diversification import derive_emv_common_session_key, derive_pboc_session_key, derive_udk
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding

# pyemv and psec call the library's 3DES by its old name and with short keys. The core runs without this filter.
MARKS = [
    pytest.mark.usefixtures("cryptography_keys"),
    pytest.mark.filterwarnings("ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"),
]

PAN, PSN, ATC = "6217000010012345677", "01", 0x01AB
DATA = bytes(range(3, 41))
MESSAGE = b"0200 one message of a terminal, neither short nor whole blocks"
ARQC = bytes.fromhex("A1B2C3D4E5F60718")
CIPHERS = {"sm4": Cipher.SM4, "tdes": Cipher.TDES, "aes": Cipher.AES}
PBOC, EMV = pb.SESSION_KEY_METHOD_PBOC, pb.SESSION_KEY_METHOD_EMV_COMMON
METHODS = [*itertools.product(CIPHERS, (PBOC,)), ("tdes", EMV), ("aes", EMV)]
METHOD_2 = Padding.ONE_THEN_ZEROS


class MacKey(NamedTuple):
    """A MAC key that the tests make, and its algorithm over the whole block."""

    cipher: Cipher
    usage: KeyUsage
    whole: Callable[[Key, bytes], bytes]


MAC_KEYS = {
    "t-mac-1-sm4": MacKey(
        Cipher.SM4, KeyUsage.MAC_ALGORITHM_1, lambda k, m: macs.mac_algorithm_1(k, m, padding=METHOD_2)
    ),
    "t-mac-1-aes": MacKey(
        Cipher.AES,
        KeyUsage.MAC_ALGORITHM_1,
        lambda k, m: psec.mac.generate_cbc_mac(k.value, m, 2, algorithm=psec.mac.Algorithm.AES),
    ),
    "t-mac-1-tdes": MacKey(
        Cipher.TDES, KeyUsage.MAC_ALGORITHM_1, lambda k, m: psec.mac.generate_cbc_mac(k.value, m, 2)
    ),
    "t-mac-3-tdes": MacKey(
        Cipher.TDES,
        KeyUsage.MAC_ALGORITHM_3,
        lambda k, m: psec.mac.generate_retail_mac(k.value[:8], k.value[8:], m, 2),
    ),
    "t-cmac-sm4": MacKey(Cipher.SM4, KeyUsage.MAC_CMAC, macs.cmac_tag),
    "t-cmac-aes": MacKey(Cipher.AES, KeyUsage.MAC_CMAC, macs.cmac_tag),
    "t-cmac-tdes": MacKey(Cipher.TDES, KeyUsage.MAC_CMAC, macs.cmac_tag),
    "t-unionpay-sm4": MacKey(Cipher.SM4, KeyUsage.MAC_UNIONPAY, macs.unionpay_ecb_mac),
    "t-unionpay-tdes": MacKey(Cipher.TDES, KeyUsage.MAC_UNIONPAY, macs.unionpay_ecb_mac),
    "t-hmac": MacKey(Cipher.HMAC_SM3, KeyUsage.MAC_HMAC_SM3, macs.hmac_sm3),
}
# Versions 1 and 2, of which 1 only verifies.
ROTATED = {
    "t-rotated-mac": (Cipher.SM4, KeyUsage.MAC_CMAC),
    "t-rotated-cvk": (Cipher.TDES, KeyUsage.CARD_VERIFICATION),
    "t-rotated-zpk": (Cipher.SM4, KeyUsage.PIN_ENCRYPTION),
    "t-rotated-imk": (Cipher.SM4, KeyUsage.IMK_AC),
    "t-rotated-smi": (Cipher.SM4, KeyUsage.IMK_SMI),
}
# Without an active version, and not yet active.
RETIRED, UNBORN = "t-retired-mac", "t-unborn-mac"


async def add_cryptography_keys(core: Core) -> None:
    """Keys of these tests beside the shared ones, and participants with few of them, in force on every worker."""
    store = core.store
    for name, mac_key in MAC_KEYS.items():
        store.add_key(name, cipher=mac_key.cipher, usage=mac_key.usage)
    for name, (cipher, usage) in ROTATED.items():
        store.add_key(name, cipher=cipher, usage=usage)
        store.rotate(name)
    store.retire(store.add_key(RETIRED, cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC))
    store.generate(UNBORN, cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC)
    await core.add_participant("keyless-01", EVERYTHING | {"key": []})
    await core.add_participant("keyed-01", EVERYTHING | {"key": ["mac-sm4", "zpk-sm4"]})
    await asyncio.sleep(GRANTS_IN_FORCE_S)


def value_of(core: Core, name: str, usage: KeyUsage, version: int = 0) -> Key:
    ref = core.store.active(name)
    key: Key = core.store.lend(ref._replace(version=version or ref.version))
    assert key.usage is usage
    return key


async def ask(caller: Caller, rpc: str, request: Message) -> Any:
    return await getattr(caller.cryptography, rpc)(request, timeout=CALL_S)


async def refused(caller: Caller, rpc: str, request: Message) -> tuple[str, str, str]:
    refusal = await refusal_of(ask(caller, rpc, request))
    return refusal.code.name, refusal.reason, refusal.field


def spoilt(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def session_of(core: Core, suffix: str, method: int, *, family: str = "ac", arqc: bytes = b"") -> Key:
    """A card's session key; 3DES under EMV by pyemv."""
    usage = KeyUsage[f"IMK_{family.upper()}"]
    imk = value_of(core, f"imk-{family}-{suffix}", usage)
    udk = derive_udk(imk, pan=PAN, psn=PSN)
    if method == PBOC:
        return derive_pboc_session_key(udk, atc=ATC)
    diversifier = arqc or ATC.to_bytes(2) + bytes(6)
    session_key = derive_emv_common_session_key(udk, diversifier=diversifier)
    if suffix == "tdes":
        independent = pyemv.kd.derive_common_sk(pyemv.kd.derive_icc_mk_a(imk.value, PAN, PSN), diversifier)
        assert session_key.value == independent
    return session_key


def arqc_check(core: Core, suffix: str, method: int = PBOC, **fields: Any) -> pb.VerifyArqcRequest:
    parts = {
        "key": key(f"imk-ac-{suffix}"),
        "pan": PAN,
        "psn": PSN,
        "atc": ATC,
        "data": DATA,
        "arqc": generate_arqc(session_of(core, suffix, method), DATA),
        "session_key_method": method,
    }
    return pb.VerifyArqcRequest(**parts | fields)


def translation(
    source: pb.EncryptedPin, target: int, pan: str = PAN, **fields: Any
) -> pb.TranslatePinRequest:
    parts = {"pan": pan, "source": source, "target_key": key(zpk(target)), "target_format": target}
    return pb.TranslatePinRequest(**parts | fields)


def mac_request(name: str, size: int = 0, version: int = 0, **fields: Any) -> pb.GenerateMacRequest:
    return pb.GenerateMacRequest(
        **{"key": key(name, version), "message": MESSAGE, "mac_bytes": size} | fields
    )


def mac_check(name: str, mac: bytes, version: int = 0, **fields: Any) -> pb.VerifyMacRequest:
    return pb.VerifyMacRequest(**{"key": key(name, version), "message": MESSAGE, "mac": mac} | fields)


def script(
    suffix: str, method: int, command: int = pb.ISSUER_COMMAND_PIN_UNBLOCK, **fields: Any
) -> pb.GenerateIssuerScriptRequest:
    parts = {
        "integrity_key": key(f"imk-smi-{suffix}"),
        "pan": PAN,
        "psn": PSN,
        "atc": ATC,
        "arqc": ARQC,
        "session_key_method": method,
        "command": command,
    }
    return pb.GenerateIssuerScriptRequest(**parts | fields)


def pin_change(
    pad: PinPad, suffix: str = "sm4", method: int = PBOC, **fields: Any
) -> pb.GenerateIssuerScriptRequest:
    parts = {"confidentiality_key": key(f"imk-smc-{suffix}"), "new_pin": pad.pin(OTHER, PAN)}
    return script(suffix, method, pb.ISSUER_COMMAND_PIN_CHANGE, **parts | fields)
