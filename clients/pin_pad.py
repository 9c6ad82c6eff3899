"""A terminal's PIN pad: each PIN leaves it under a key of its own, by DUKPT, bound to the card it was entered for.

It puts codes over the terminal's messages too, each under a key of its own.

Must never keep a PIN, nor a key that was used.
"""

from onecard.v1 import authorization_pb2
from onecard.v1 import cryptography_pb2 as pb

from clients.message_mac import put_mac
from crypto.dukpt_aes import AesDukptTerminal
from crypto.dukpt_tdes import DukptKeyUse, TdesDukptTerminal
from crypto.keys import Cipher, Key
from crypto.pin_block import Pin, PinBlockFormat, encrypt_pin_block

_FORMATS: dict[Cipher, tuple[PinBlockFormat, "pb.PinBlockFormat.ValueType"]] = {
    Cipher.SM4: (PinBlockFormat.SM4_0, pb.PIN_BLOCK_FORMAT_SM4_0),
    Cipher.TDES: (PinBlockFormat.ISO_3, pb.PIN_BLOCK_FORMAT_ISO_3),
    Cipher.AES: (PinBlockFormat.ISO_4, pb.PIN_BLOCK_FORMAT_ISO_4),
}


class PinPad:
    """One PIN pad.

    Args:
        initial_key: usage ``DUKPT_INITIAL``, as loaded once.
        ksn: 10 bytes (3DES) or 12 (AES, SM4); its counter is the last one used.
        bdk_name: what the core calls the key above the initial key.
    """

    def __init__(self, initial_key: Key, *, ksn: bytes, bdk_name: str) -> None:
        self._layout, self._wire_layout = _FORMATS[initial_key.cipher]
        is_tdes = initial_key.cipher is Cipher.TDES
        self._keys = (TdesDukptTerminal if is_tdes else AesDukptTerminal)(initial_key, ksn=ksn)
        self._bdk_name = bdk_name

    def __repr__(self) -> str:
        return f"PinPad({self._bdk_name}, ****)"

    def enter(self, digits: str, *, pan: str) -> pb.EncryptedPin:
        """A PIN as it leaves the pad, in a transaction of its own.

        Args:
            digits: 4 to 12 digits.
            pan: card it was entered for.
        Raises:
            ValueError: malformed PIN or PAN.
            KeyStateError: the pad's keys are used up.
        """
        pin = Pin(digits)
        ksn = self._keys.begin()
        try:
            block = encrypt_pin_block(
                self._keys.working_key(DukptKeyUse.PIN), pin, pan=pan, format=self._layout
            )
        finally:
            self._keys.end()
        return pb.EncryptedPin(
            block=block, format=self._wire_layout, key=pb.KeyReference(name=self._bdk_name), ksn=ksn
        )

    def put_mac(self, request: authorization_pb2.AuthorizeRequest) -> None:
        """Puts a code on a request that is otherwise ready, in a transaction of its own.

        Raises:
            ValueError: a field holds the separator of the message.
            KeyStateError: the pad's keys are used up.
        """
        ksn = self._keys.begin()
        try:
            key = self._keys.working_key(DukptKeyUse.MAC_REQUEST)
            put_mac(request, key, name=self._bdk_name, ksn=ksn)
        finally:
            self._keys.end()
