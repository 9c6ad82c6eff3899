"""What the tests ask of the data plane: PINs by zones and terminals, MACs and scripts, over any backend."""

import pytest

from crypto.diversification import SessionMethod
from crypto.dukpt_host import derive_working_key
from crypto.dukpt_tdes import DukptKeyUse
from crypto.issuer_script import ScriptCommand
from crypto.key_store.requests import EncryptedPin, IssuerScriptRequest, MacRequest, PinReferences
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from crypto.pin_block import Pin, PinBlockFormat, cipher_of, encrypt_pin_block, encrypt_pin_blocks

PAN, OTHER_PAN = "6217000010012345677", "6228480012345678903"
DIGITS, OTHER_DIGITS = "70318264", "5926047183"
SUFFIXES = {Cipher.SM4: "sm4", Cipher.TDES: "tdes", Cipher.AES: "aes"}
ALGORITHMS = pytest.mark.parametrize("suffix", SUFFIXES.values())
MISSING = KeyRef("no-such-key", 1)


def zpk(store, layout):
    return store.active(f"zpk-{SUFFIXES[cipher_of(layout)]}")


def pin_of(store, digits=DIGITS, *, pan=PAN, layout=PinBlockFormat.SM4_0, ref=None) -> EncryptedPin:
    """Encrypted by the store's own primitive, which every backend has."""
    ref = ref or zpk(store, layout)
    [block] = encrypt_pin_blocks(
        lambda blocks: store.encrypt_under_master(ref, blocks), [(Pin(digits), pan)], format=layout
    )
    return EncryptedPin(key=ref, ksn=b"", format=layout, block=block, pan=pan)


def ksn_of(suffix, counter=1):
    return (counter).to_bytes(10 if suffix == "tdes" else 12)


def working_key(store, suffix, ksn, use) -> Key:
    bdk = store.open_key(store.active(f"bdk-{suffix}"), KeyUsage.BDK)
    return derive_working_key(bdk, ksn=ksn, use=use)


def dukpt_pin(store, layout, *, counter=1, pan=PAN, digits=DIGITS) -> EncryptedPin:
    suffix = SUFFIXES[cipher_of(layout)]
    ksn = ksn_of(suffix, counter)
    key = working_key(store, suffix, ksn, DukptKeyUse.PIN)
    block = encrypt_pin_block(key, Pin(digits), pan=pan, format=layout)
    return EncryptedPin(key=store.active(f"bdk-{suffix}"), ksn=ksn, format=layout, block=block, pan=pan)


def references(result) -> dict[int, str]:
    assert isinstance(result, PinReferences), result
    return dict(result.by_version)


def mac_request(ref, **changes) -> MacRequest:
    parts = {"key": ref, "ksn": b"", "message": b"message", "padding": None, "size": 8}
    return MacRequest(**parts | changes)


def script_request(store, suffix, **changes) -> IssuerScriptRequest:
    parts = {
        "integrity_key": store.active(f"imk-smi-{suffix}"),
        "confidentiality_key": store.active(f"imk-smc-{suffix}"),
        "pan": PAN,
        "psn": "00",
        "atc": 7,
        "arqc": bytes(8),
        "session_method": SessionMethod.PBOC,
        "command": ScriptCommand.PIN_CHANGE,
        "new_pin": pin_of(store),
    }
    return IssuerScriptRequest(**parts | changes)
