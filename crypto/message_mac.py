"""Message authentication as a key decides it: each MAC key's usage is one algorithm, so that no key serves two.

A key fixes no length: who verifies says how many bytes a code must have, 4 at least, and all of them are compared. A
receiver that takes the length of what came as that number takes 4 bytes from a sender that was to send 8: one that
needs more must ask for more.

Must never let a caller choose the algorithm.
"""

from collections.abc import Callable

from crypto.errors import KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import (
    Padding,
    cmac_tag,
    hmac_sm3,
    mac_algorithm_1,
    mac_algorithm_3,
    require_equal_macs,
    unionpay_ecb_mac,
)

MAC_USAGES = (
    KeyUsage.MAC_ALGORITHM_1,
    KeyUsage.MAC_ALGORITHM_3,
    KeyUsage.MAC_CMAC,
    KeyUsage.MAC_UNIONPAY,
    KeyUsage.MAC_HMAC_SM3,
)
_PADDED: dict[KeyUsage, Callable[..., bytes]] = {
    KeyUsage.MAC_ALGORITHM_1: mac_algorithm_1,
    KeyUsage.MAC_ALGORITHM_3: mac_algorithm_3,
}
_UNPADDED: dict[KeyUsage, Callable[..., bytes]] = {
    KeyUsage.MAC_CMAC: cmac_tag,
    KeyUsage.MAC_UNIONPAY: unionpay_ecb_mac,
    KeyUsage.MAC_HMAC_SM3: hmac_sm3,
}


class PaddingError(ValueError):
    """A padding was chosen where the algorithm leaves no choice."""


def generate_message_mac(key: Key, message: bytes, *, padding: Padding | None, size: int) -> bytes:
    """A message's code by the algorithm of its key.

    Args:
        key: one of ``MAC_USAGES``; or ``MESSAGE_MAC``, a terminal's DUKPT key: algorithm 3 for 3DES, CMAC for AES and
            SM4.
        message: any length.
        padding: for algorithms 1 and 3, None is method 2; None for the others.
        size: bytes kept from the left, 4 up to what the algorithm gives; UnionPay's 8 up to a block.
    Raises:
        KeyUsageError: the key is for something else, or of a cipher its algorithm does not know.
        PaddingError: a padding where there is no choice.
        ValueError: ``size`` out of bounds.
    Source: see the functions of ``crypto.macs``; MAC keys of DUKPT: X9.24-1:2009 annex A, X9.24-3:2017 6.3.
    """
    usage = key.usage
    if usage is KeyUsage.MESSAGE_MAC:
        usage = KeyUsage.MAC_ALGORITHM_3 if key.cipher is Cipher.TDES else KeyUsage.MAC_CMAC
    if usage in _PADDED:
        return _PADDED[usage](key, message, padding=padding or Padding.ONE_THEN_ZEROS, size=size)
    if usage not in _UNPADDED:
        raise KeyUsageError(f"a {key.usage.value} key authenticates no messages")
    if padding is not None:
        raise PaddingError("this algorithm leaves no choice of padding")
    return _UNPADDED[usage](key, message, size=size)


def verify_message_mac(key: Key, message: bytes, *, mac: bytes, padding: Padding | None, size: int) -> None:
    """Checks a code of exactly ``size`` bytes.

    Args:
        key, message, padding: as ``generate_message_mac``.
        mac: as it came.
        size: bytes it must have: what was agreed with the sender, not what the sender sent.
    Raises:
        MacInvalidError: wrong code or wrong length.
        KeyUsageError, PaddingError, ValueError: as ``generate_message_mac``.
    Source: see ``generate_message_mac``.
    """
    require_equal_macs(generate_message_mac(key, message, padding=padding, size=size), mac)
