"""From requests of the wire to what the data plane and the engine take: every field checked, every key granted.

``CONVERSIONS`` has one entry for each operation, named as in a frame; unary calls and frames share it.
"""

from typing import Any, NamedTuple

from google.protobuf.message import Message
from onecard.v1 import cryptography_pb2 as pb

from crypto.card_verification import CardVerificationKind
from crypto.cryptogram import ARQC_SIZE, ATC_MAX
from crypto.diversification import SessionMethod
from crypto.issuer_script import ScriptCommand
from crypto.key_store.checks import ArqcCheck
from crypto.key_store.requests import (
    CardVerificationCheck,
    CardVerificationRequest,
    IssuerScriptRequest,
    MacCheck,
    MacRequest,
    PinIssue,
    PinTranslation,
)
from crypto.keys import KeyUsage
from crypto.macs import Padding
from crypto.pin_block import PinBlockFormat
from server.edge import fields
from server.edge.chip import SESSION_METHODS
from server.edge.named_keys import PIN_FORMATS, NamedKeys, key_serial_number, named_value
from server.errors import MalformedFieldError

AC_DATA_SIZE_MAX = 252
MESSAGE_SIZE_MAX = 8192
MAC_SIZE_MIN, MAC_SIZE_DEFAULT, MAC_SIZE_MAX = 4, 8, 32
FIRST_PSN = "00"
ISSUED_PIN_LENGTH = 6

_PADDINGS: dict[int, Padding | None] = {
    pb.MAC_PADDING_UNSPECIFIED: None,
    pb.MAC_PADDING_ZEROS: Padding.ZEROS,
    pb.MAC_PADDING_ONE_THEN_ZEROS: Padding.ONE_THEN_ZEROS,
    pb.MAC_PADDING_LENGTH_THEN_ZEROS: Padding.LENGTH_THEN_ZEROS,
}
_KINDS: dict[int, CardVerificationKind] = {
    pb.CARD_VERIFICATION_KIND_CVV: CardVerificationKind.CVV,
    pb.CARD_VERIFICATION_KIND_ICVV: CardVerificationKind.ICVV,
    pb.CARD_VERIFICATION_KIND_CVV2: CardVerificationKind.CVV2,
}
_COMMANDS: dict[int, ScriptCommand] = {
    pb.ISSUER_COMMAND_APPLICATION_BLOCK: ScriptCommand.APPLICATION_BLOCK,
    pb.ISSUER_COMMAND_APPLICATION_UNBLOCK: ScriptCommand.APPLICATION_UNBLOCK,
    pb.ISSUER_COMMAND_PIN_UNBLOCK: ScriptCommand.PIN_UNBLOCK,
    pb.ISSUER_COMMAND_PIN_CHANGE: ScriptCommand.PIN_CHANGE,
}


class ArqcRequest(NamedTuple):
    """A cryptogram to check, and how to answer it: method 1 with an ARC, method 2 with CSU and data, or not."""

    check: ArqcCheck
    arc: bytes
    csu: bytes
    proprietary: bytes


class Converter(NamedKeys):
    """Converts the requests of one caller, as its grants are now."""

    def pin_issue(self, request: pb.IssuePinRequest, *, pan: str) -> PinIssue:
        """A PIN to draw; a layout that is not bound to the card is refused."""
        layout = named_value("format", PIN_FORMATS, request.format)
        if layout is PinBlockFormat.ISO_1:
            raise MalformedFieldError("format", "must be bound to the PAN")
        key = self.key("key", request.key)
        return PinIssue(key=key, format=layout, pan=pan, length=ISSUED_PIN_LENGTH)

    def verify_arqc(self, request: pb.VerifyArqcRequest) -> ArqcRequest:
        arpc = request.WhichOneof("arpc")
        method_2 = request.method_2
        if arpc == "method_1":
            fields.exactly("method_1.arc", request.method_1.arc, size=2)
        elif arpc == "method_2":
            fields.exactly("method_2.csu", method_2.csu, size=4)
            if len(method_2.proprietary) > 8:
                raise MalformedFieldError("method_2.proprietary", "must be at most 8 bytes")
        if not 1 <= len(request.data) <= AC_DATA_SIZE_MAX:
            raise MalformedFieldError("data", f"must be 1 to {AC_DATA_SIZE_MAX} bytes")
        check = ArqcCheck(
            key=self.key("key", request.key),
            pan=_pan(request.pan, size_min=12),
            psn=fields.digits("psn", request.psn, size=2, default=FIRST_PSN),
            data=request.data,
            atc=_atc(request.atc),
            arqc=fields.exactly("arqc", request.arqc, size=ARQC_SIZE),
            session_method=_session_method(request.session_key_method),
        )
        return ArqcRequest(check, request.method_1.arc, method_2.csu, method_2.proprietary)

    def translate_pin(self, request: pb.TranslatePinRequest) -> PinTranslation:
        pan = _pan(request.pan, size_min=13)
        source = self.encrypted_pin("source", request.source, pan=pan)
        usage = KeyUsage.PIN_ENCRYPTION
        target_key = self.key("target_key", request.target_key, usage, generating=True)
        target_format = named_value("target_format", PIN_FORMATS, request.target_format)
        self.require_layout("target_key", target_key, usage, target_format)
        return PinTranslation(source=source, target_key=target_key, target_format=target_format)

    def generate_mac(self, request: pb.GenerateMacRequest) -> MacRequest:
        return self._mac(request, size=request.mac_bytes or MAC_SIZE_DEFAULT, field="mac_bytes")

    def verify_mac(self, request: pb.VerifyMacRequest) -> MacCheck:
        return MacCheck(request=self._mac(request, size=len(request.mac), field="mac"), mac=request.mac)

    def generate_card_verification(
        self, request: pb.GenerateCardVerificationRequest | pb.VerifyCardVerificationRequest
    ) -> CardVerificationRequest:
        kind = named_value("kind", _KINDS, request.kind)
        if kind is CardVerificationKind.CVV:
            fields.digits("service_code", request.service_code, size=3)
        elif request.service_code:
            raise MalformedFieldError("service_code", "must be empty for this kind")
        return CardVerificationRequest(
            key=self.key("key", request.key),
            kind=kind,
            pan=_pan(request.pan, size_min=12),
            expiry=fields.digits("expiry", request.expiry, size=4),
            service_code=request.service_code,
        )

    def verify_card_verification(self, request: pb.VerifyCardVerificationRequest) -> CardVerificationCheck:
        value = fields.digits("card_verification_value", request.card_verification_value, size=3)
        return CardVerificationCheck(request=self.generate_card_verification(request), value=value)

    def generate_issuer_script(self, request: pb.GenerateIssuerScriptRequest) -> IssuerScriptRequest:
        command = named_value("command", _COMMANDS, request.command)
        changes_pin = command is ScriptCommand.PIN_CHANGE
        for field in ("confidentiality_key", "new_pin"):
            if request.HasField(field) != changes_pin:
                raise MalformedFieldError(field, "is required for a PIN change, and refused otherwise")
        proves_pin = request.HasField("current_pin")
        if request.HasField("cryptogram_key") and not changes_pin:
            raise MalformedFieldError("cryptogram_key", "is refused but for a PIN change")
        if proves_pin and not request.HasField("cryptogram_key"):
            raise MalformedFieldError("current_pin", "needs cryptogram_key")
        pan = _pan(request.pan, size_min=13 if changes_pin else 12)
        return IssuerScriptRequest(
            integrity_key=self.key("integrity_key", request.integrity_key, KeyUsage.IMK_SMI),
            confidentiality_key=(
                self.key("confidentiality_key", request.confidentiality_key, KeyUsage.IMK_SMC)
                if changes_pin
                else None
            ),
            pan=pan,
            psn=fields.digits("psn", request.psn, size=2, default=FIRST_PSN),
            atc=_atc(request.atc),
            arqc=fields.exactly("arqc", request.arqc, size=ARQC_SIZE),
            session_method=_session_method(request.session_key_method),
            command=command,
            new_pin=self.usable_pin("new_pin", request.new_pin, pan=pan) if changes_pin else None,
            current_pin=self.usable_pin("current_pin", request.current_pin, pan=pan) if proves_pin else None,
            cryptogram_key=(
                self.key("cryptogram_key", request.cryptogram_key, KeyUsage.IMK_AC)
                if request.HasField("cryptogram_key")
                else None
            ),
        )

    def _mac(
        self, request: pb.GenerateMacRequest | pb.VerifyMacRequest, *, size: int, field: str
    ) -> MacRequest:
        if not MAC_SIZE_MIN <= size <= MAC_SIZE_MAX:
            raise MalformedFieldError(field, f"must be {MAC_SIZE_MIN} to {MAC_SIZE_MAX} bytes")
        if not 1 <= len(request.message) <= MESSAGE_SIZE_MAX:
            raise MalformedFieldError("message", f"must be 1 to {MESSAGE_SIZE_MAX} bytes")
        return MacRequest(
            ksn=key_serial_number("ksn", request.ksn),
            key=self.key("key", request.key),
            message=request.message,
            padding=named_value("padding", _PADDINGS, request.padding),
            size=size,
        )


def converted(converter: Converter, operation: str, request: Message) -> Any:
    """What the data plane takes for the request of a stateless operation.

    Raises:
        OneCardError: a field is malformed, or a key is not granted.
    """
    return getattr(converter, operation)(request)


def _session_method(number: int) -> SessionMethod:
    method: SessionMethod = named_value("session_key_method", SESSION_METHODS, number)
    return method


def _pan(pan: str, *, size_min: int) -> str:
    if not (size_min <= len(pan) <= 19 and pan.isascii() and pan.isdigit()):
        raise MalformedFieldError("pan", f"must be {size_min} to 19 digits")
    return pan


def _atc(atc: int) -> int:
    if atc > ATC_MAX:
        raise MalformedFieldError("atc", f"must be 0 to {ATC_MAX}")
    return atc
