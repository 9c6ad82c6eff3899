"""PINs of the tests as they travel: under zone keys and by DUKPT terminals, made with the store under test."""

import itertools
from typing import Any

import known_secrets
from core_under_test import new_id, purpose
from onecard.v1 import common_pb2
from onecard.v1 import cryptography_pb2 as pb
from virtual_card import VirtualCard

from crypto import dukpt_aes, dukpt_tdes
from crypto.dukpt_tdes import DukptKeyUse
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import KeyRef
from crypto.pin_block import Pin, PinBlockFormat, decrypt_pin_block, encrypt_pin_block

# Long and distinctive, so that they can be looked for wherever the core writes.
RIGHT, OTHER, THIRD = "70318264", "5926047183", "836150294716"
WRONG = "18273645"
PINS = (RIGHT, OTHER, THIRD, WRONG)
for _pin in PINS:
    known_secrets.remember_pin(_pin)

ISO_0, ISO_1, ISO_3 = pb.PIN_BLOCK_FORMAT_ISO_0, pb.PIN_BLOCK_FORMAT_ISO_1, pb.PIN_BLOCK_FORMAT_ISO_3
ISO_4, SM4_0 = pb.PIN_BLOCK_FORMAT_ISO_4, pb.PIN_BLOCK_FORMAT_SM4_0
FORMATS = (ISO_0, ISO_1, ISO_3, ISO_4, SM4_0)
BOUND_FORMATS = (ISO_0, ISO_3, ISO_4, SM4_0)
SUFFIXES = {ISO_0: "tdes", ISO_1: "tdes", ISO_3: "tdes", ISO_4: "aes", SM4_0: "sm4"}


def format_name(layout: int) -> str:
    return pb.PinBlockFormat.Name(layout).removeprefix("PIN_BLOCK_FORMAT_")


def key(name: str, version: int = 0) -> pb.KeyReference:
    return pb.KeyReference(name=name, version=version)


def zpk(layout: int) -> str:
    """The development zone key that a layout goes with."""
    return f"zpk-{SUFFIXES[layout]}"


def some_pin() -> pb.EncryptedPin:
    """A PIN block of the right shape that does not decode."""
    return pb.EncryptedPin(block=bytes(16), format=SM4_0, key=key("zpk-sm4"))


def pin_verification(bearer: VirtualCard, **fields: Any) -> pb.VerifyPinRequest:
    parts = {
        "request_id": new_id(),
        "pan": bearer.pan,
        "pin": some_pin(),
        "terminal_id": "T-PIN",
        **purpose("card.pin"),
    }
    return pb.VerifyPinRequest(**parts | fields)


def pin_change(bearer: VirtualCard, **fields: Any) -> pb.ChangePinRequest:
    parts = {
        "request_id": new_id(),
        "pan": bearer.pan,
        "current_pin": some_pin(),
        "new_pin": some_pin(),
        "terminal_id": "T-PIN",
        **purpose("card.pin"),
    }
    return pb.ChangePinRequest(**parts | fields)


def pin_unblock(bearer: VirtualCard, **fields: Any) -> pb.UnblockPinRequest:
    reference = common_pb2.CardReference(pan=bearer.pan)
    parts = {"request_id": new_id(), "card": reference, **purpose("card.pin")}
    return pb.UnblockPinRequest(**parts | fields)


def pin_issue(bearer: VirtualCard, **fields: Any) -> pb.IssuePinRequest:
    parts = {
        "request_id": new_id(),
        "pan": bearer.pan,
        "key": key("zpk-sm4"),
        "format": SM4_0,
        **purpose("card.pin"),
    }
    return pb.IssuePinRequest(**parts | fields)


def stateless_requests(pan: str) -> dict[str, Any]:
    """A request of each RPC that keeps nothing, with every field set; nothing in it fits but its form."""
    chip = {"pan": pan, "psn": "01", "atc": 7, "session_key_method": pb.SESSION_KEY_METHOD_PBOC}
    message = {"key": key("mac-sm4"), "message": b"message", "padding": pb.MAC_PADDING_UNSPECIFIED}
    card_verification = {
        "key": key("cvk"),
        "kind": pb.CARD_VERIFICATION_KIND_CVV,
        "pan": pan,
        "expiry": "2812",
        "service_code": "201",
    }
    return {
        "VerifyArqc": pb.VerifyArqcRequest(
            key=key("imk-ac-sm4"),
            data=b"data",
            arqc=bytes(8),
            method_1=pb.ArpcMethod1(arc=b"00"),
            **chip,
        ),
        "TranslatePin": pb.TranslatePinRequest(
            pan=pan, source=some_pin(), target_key=key("zpk-sm4"), target_format=SM4_0
        ),
        "GenerateMac": pb.GenerateMacRequest(mac_bytes=8, **message),
        "VerifyMac": pb.VerifyMacRequest(mac=bytes(8), **message),
        "GenerateCardVerification": pb.GenerateCardVerificationRequest(**card_verification),
        "VerifyCardVerification": pb.VerifyCardVerificationRequest(
            card_verification_value="123", **card_verification
        ),
        "GenerateIssuerScript": pb.GenerateIssuerScriptRequest(
            integrity_key=key("imk-smi-sm4"),
            confidentiality_key=key("imk-smc-sm4"),
            cryptogram_key=key("imk-ac-sm4"),
            arqc=bytes(8),
            command=pb.ISSUER_COMMAND_PIN_CHANGE,
            new_pin=some_pin(),
            current_pin=some_pin(),
            **chip,
        ),
    }


class DukptTerminal:
    """A terminal of the development BDK of one cipher."""

    _identities = itertools.count(1)

    def __init__(self, store: SoftwareKeyStore, suffix: str) -> None:
        self.key_name = f"bdk-{suffix}"
        bdk = store.lend(store.active(self.key_name))
        identity = next(self._identities)
        self._terminal: Any
        if suffix == "tdes":
            ksn = (0xFFFF9876540000000000 | identity << 21).to_bytes(10)
            initial_key = dukpt_tdes.derive_initial_key(bdk, ksn=ksn)
            self._terminal = dukpt_tdes.TdesDukptTerminal(initial_key, ksn=ksn)
        else:
            ksn = (0x123456789 << 28 | identity).to_bytes(8) + bytes(4)
            initial_key = dukpt_aes.derive_initial_key(bdk, ksn=ksn)
            self._terminal = dukpt_aes.AesDukptTerminal(initial_key, ksn=ksn)

    def begin(self) -> bytes:
        """Starts a transaction; gives its KSN."""
        return bytes(self._terminal.begin())

    def working_key(self, use: DukptKeyUse) -> Any:
        return self._terminal.working_key(use)

    def pin(self, digits: str, pan: str, layout: int) -> pb.EncryptedPin:
        """A PIN of a new transaction."""
        ksn = self.begin()
        block = encrypt_pin_block(
            self.working_key(DukptKeyUse.PIN),
            Pin(digits),
            pan=pan,
            format=PinBlockFormat[format_name(layout)],
        )
        return pb.EncryptedPin(block=block, format=layout, key=key(self.key_name), ksn=ksn)


class PinPad:
    """Encrypts PINs under the zone keys of a store, and opens what comes back."""

    def __init__(self, store: SoftwareKeyStore) -> None:
        self.store = store

    def ref(self, name: str, version: int = 0) -> KeyRef:
        return KeyRef(name, version) if version else self.store.active(name)

    def pin(
        self, digits: str, pan: str, *, layout: int = SM4_0, name: str = "", version: int = 0
    ) -> pb.EncryptedPin:
        """Under the development zone key of the layout, unless a key is named."""
        name = name or zpk(layout)
        zone_key = self.store.lend(self.ref(name, version))
        block = encrypt_pin_block(zone_key, Pin(digits), pan=pan, format=PinBlockFormat[format_name(layout)])
        return pb.EncryptedPin(block=block, format=layout, key=key(name, version))

    def opened(self, block: bytes, pan: str, *, layout: int = SM4_0, name: str = "") -> str:
        """The digits of a block that the core made."""
        zone_key = self.store.lend(self.store.active(name or zpk(layout)))
        return decrypt_pin_block(zone_key, block, pan=pan, format=PinBlockFormat[format_name(layout)]).digits

    def terminal(self, suffix: str) -> DukptTerminal:
        return DukptTerminal(self.store, suffix)

    def verification(self, card: VirtualCard, digits: str = RIGHT, **fields: Any) -> pb.VerifyPinRequest:
        return pin_verification(card, **{"pin": self.pin(digits, card.pan)} | fields)

    def change(
        self, card: VirtualCard, current: str = RIGHT, new: str = OTHER, **fields: Any
    ) -> pb.ChangePinRequest:
        pins = {"current_pin": self.pin(current, card.pan), "new_pin": self.pin(new, card.pan)}
        return pin_change(card, **pins | fields)
