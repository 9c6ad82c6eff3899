"""Keys as requests name them, and PINs under them: every field checked, every key granted to who asks."""

import re
from typing import Any

from onecard.v1 import cryptography_pb2 as pb

from crypto.errors import CryptoError, KeyUsageError
from crypto.key_store import KeyStore
from crypto.key_store.requests import EncryptedPin
from crypto.keys import KeyRef, KeyUsage
from crypto.pin_block import PinBlockFormat, cipher_of
from server.edge import fields
from server.edge.caller import Participant
from server.edge.key_errors import RefusedFields, operating_error
from server.errors import MalformedFieldError

_KEY_NAME = re.compile(r"[a-z0-9-]{1,48}", re.ASCII)
KEY_VERSION_MAX = 255
KSN_SIZES = frozenset({0, 10, 12})
PIN_FORMATS: dict[int, PinBlockFormat] = {
    pb.PIN_BLOCK_FORMAT_ISO_0: PinBlockFormat.ISO_0,
    pb.PIN_BLOCK_FORMAT_ISO_1: PinBlockFormat.ISO_1,
    pb.PIN_BLOCK_FORMAT_ISO_3: PinBlockFormat.ISO_3,
    pb.PIN_BLOCK_FORMAT_ISO_4: PinBlockFormat.ISO_4,
    pb.PIN_BLOCK_FORMAT_SM4_0: PinBlockFormat.SM4_0,
}
_BLOCK_SIZES = {PinBlockFormat.ISO_4: 16, PinBlockFormat.SM4_0: 16}


class NamedKeys:
    """Finds the keys that the requests of one caller name, as its grants are now."""

    def __init__(self, store: KeyStore, caller: Participant) -> None:
        self._store = store
        self._caller = caller

    def key(
        self, path: str, reference: pb.KeyReference, *usages: KeyUsage, generating: bool = False
    ) -> KeyRef:
        """The key that is named; version 0 is the active one.

        ``usages`` are asked for where a request names several keys: the data plane refuses without saying which.

        Raises:
            MalformedFieldError: no such name or version can be.
            NotGrantedError: the key is not granted, whether or not it exists.
            NotFoundError, StateConflictError: version 0, and there is none that is active; or not for ``usages``.
        """
        name, version = reference.name, reference.version
        if not _KEY_NAME.fullmatch(name):
            raise MalformedFieldError(f"{path}.name", "must be 1 to 48 of a-z, 0-9 and hyphen")
        if version > KEY_VERSION_MAX:
            raise MalformedFieldError(f"{path}.version", f"must be 0 to {KEY_VERSION_MAX}")
        self._caller.require_key(name, field=path)
        try:
            ref = KeyRef(name, version) if version else self._store.active(name)
            if usages:
                require = self._store.require_generating if generating else self._store.require_usable
                require(ref, *usages)
        except CryptoError as error:
            raise operating_error(error, RefusedFields(path)) from None
        return ref

    def encrypted_pin(self, path: str, pin: pb.EncryptedPin, *, pan: str) -> EncryptedPin:
        """
        Raises:
            OneCardError: as ``key``, or a field is malformed.
        """
        layout = named_value(f"{path}.format", PIN_FORMATS, pin.format)
        return EncryptedPin(
            ksn=key_serial_number(f"{path}.ksn", pin.ksn),
            key=self.key(f"{path}.key", pin.key),
            format=layout,
            block=fields.exactly(f"{path}.block", pin.block, size=_BLOCK_SIZES.get(layout, 8)),
            pan=pan,
        )

    def bound_pin(self, path: str, pin: pb.EncryptedPin, *, pan: str) -> EncryptedPin:
        """``encrypted_pin`` in a layout that is bound to the PAN: another would try one card's PIN on all.

        Raises:
            OneCardError: as ``encrypted_pin``.
        """
        converted_pin = self.encrypted_pin(path, pin, pan=pan)
        if converted_pin.format is PinBlockFormat.ISO_1:
            raise MalformedFieldError(f"{path}.format", "must be bound to the PAN")
        return converted_pin

    def usable_pin(self, path: str, pin: pb.EncryptedPin, *, pan: str) -> EncryptedPin:
        """``encrypted_pin``, of a key that may open it: for requests that name several keys.

        Raises:
            OneCardError: as ``encrypted_pin``, or the key is for something else.
        """
        converted_pin = self.encrypted_pin(path, pin, pan=pan)
        usage = KeyUsage.BDK if pin.ksn else KeyUsage.PIN_ENCRYPTION
        self.require_layout(f"{path}.key", converted_pin.key, usage, converted_pin.format)
        return converted_pin

    def require_layout(self, path: str, ref: KeyRef, usage: KeyUsage, layout: PinBlockFormat) -> None:
        """
        Raises:
            OneCardError: the key is not for PIN blocks of this layout.
        """
        try:
            if self._store.require_usable(ref, usage).cipher is not cipher_of(layout):
                raise KeyUsageError("the layout goes with another cipher")
        except CryptoError as error:
            raise operating_error(error, RefusedFields(path)) from None


def named_value(field: str, names: dict[int, Any], number: int) -> Any:
    """What an enumeration's number stands for.

    Raises:
        MalformedFieldError: no such number.
    """
    if number not in names:
        raise MalformedFieldError(field, "must be one of the named values")
    return names[number]


def key_serial_number(field: str, ksn: bytes) -> bytes:
    """A KSN of DUKPT, or none.

    Raises:
        MalformedFieldError: another size.
    """
    if len(ksn) not in KSN_SIZES:
        raise MalformedFieldError(field, "must be 10 or 12 bytes, or empty")
    return ksn
